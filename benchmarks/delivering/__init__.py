"""Parts of `benchmarks.deliver`: a sink that costs little, and those who send to it."""
