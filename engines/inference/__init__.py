"""From an image to findings: the path of one model over one image."""
