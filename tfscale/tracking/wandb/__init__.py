"""Weights & Biases as a tracker. Runs are written offline, and `wandb sync` uploads them."""
