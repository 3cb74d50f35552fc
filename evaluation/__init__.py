"""How good a model is, on anybody's data: metrics with intervals, labelled images, the report of `wetread evaluate`."""
