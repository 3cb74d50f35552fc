"""Pictures for the documents of what the rows of the ladder find; matplotlib is in the extra ``evaluate``."""
