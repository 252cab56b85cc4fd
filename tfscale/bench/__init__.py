"""Measurements of speed and memory, side by side in one run: `tfscale bench`, or `python -m tfscale.bench` where only
torch, numpy and safetensors are installed."""
