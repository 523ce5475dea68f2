"""What the quickstart leaves out of its story: its pictures and its page."""
