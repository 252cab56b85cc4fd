"""Growth of trained models, which turns the training state of a model into the training state of a larger
model."""
