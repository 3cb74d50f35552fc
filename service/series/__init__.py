"""Decides when a series is whole; orders slices; turns stored values into a Volume or a Radiograph."""
