"""Model packages: folders that say everything about a model."""
