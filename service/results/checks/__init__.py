"""The last look at each kind of result object: the decoded file against what it was made from."""
