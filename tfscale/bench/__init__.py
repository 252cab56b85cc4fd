"""Benchmarks of speed and memory on this machine, run by `tfscale bench`."""
