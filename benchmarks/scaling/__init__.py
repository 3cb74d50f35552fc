"""A model of many studies on many machines: `inputs` reads it, `simulation` plays it, `pictures` draws it."""
