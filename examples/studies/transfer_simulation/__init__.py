"""The published simulation of RECaST."""
