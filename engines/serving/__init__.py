"""The engines of a node, in processes of their own: watched, verified again and again, exchanged without a pause."""
