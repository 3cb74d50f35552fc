"""From a trained network to a model package, and back."""
