"""Growth of a trained model: the training state of the model becomes the training state of a larger model."""
