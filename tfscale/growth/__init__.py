"""Growth of trained models. A growth operator converts the training state of a model to that of a larger model."""
