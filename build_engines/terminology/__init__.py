"""Codes for the names that models give to what they find."""
