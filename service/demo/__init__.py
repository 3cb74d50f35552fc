"""The demonstration: a phantom body, its CT and its chest X-ray."""
