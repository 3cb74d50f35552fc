"""Accepts associations, stores instances bit for bit, acknowledges only what is on disk."""
