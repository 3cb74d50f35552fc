"""Findings drawn on their images, for people and for viewers that show nothing else."""
