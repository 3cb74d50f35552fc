"""Objects to the archive, and what the archive said."""
