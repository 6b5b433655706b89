"""What a model predicts for many rows, and metrics of that."""
