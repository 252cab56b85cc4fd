"""MLflow as a tracker. Nothing outside this package imports MLflow."""
