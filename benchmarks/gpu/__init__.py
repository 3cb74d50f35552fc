"""Measurements on an NVIDIA GPU: `benchmarks/gpu.sh` runs all of them, each step in a process of its own."""
