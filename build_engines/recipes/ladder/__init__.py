"""The ladder: published systems, each built here, trained on the same data and compared (docs/models.md)."""
