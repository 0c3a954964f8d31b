"""Benchmarks: every figure is printed with its ratio to a baseline of the same run. `make bench`."""
