"""The networks, one family a module; all of them end in probabilities."""
