"""How good the models are, in the figures of their cards and of the ladder."""
