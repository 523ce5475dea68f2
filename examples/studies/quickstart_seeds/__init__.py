"""The quickstart's comparison over several seeds."""
