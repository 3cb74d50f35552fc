"""Parts of `benchmarks.infer`: the subjects, and what they are shown."""
