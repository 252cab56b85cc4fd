"""Growth of a training state to that of a larger model."""
