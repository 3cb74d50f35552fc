"""Parts of `benchmarks.turnaround`: the series that is sent, the node and its archive, what each stage took."""
