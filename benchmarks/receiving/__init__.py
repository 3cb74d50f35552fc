"""Parts of `wetread bench receive`."""
