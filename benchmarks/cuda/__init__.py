"""Parts of `benchmarks/cuda_check.py`."""
