"""The node: from the wire to the archive, one room per stage."""
