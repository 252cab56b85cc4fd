"""The MLflow mirror of the stage folders. It may lag behind them; it never says what they do not."""
