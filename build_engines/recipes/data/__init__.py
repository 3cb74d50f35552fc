"""The images that recipes learn from, as they come."""
