"""Growth of trained models, which turns the training state of a model into that of a larger model."""
