"""The parts of `benchmarks/cuda_check.py`."""
