"""Measurements of speed and memory. `wetread bench NAME` runs one; nothing here is asserted by a test."""
