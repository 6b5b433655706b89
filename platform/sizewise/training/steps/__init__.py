"""One optimizer step and what it follows: optimizers, learning rates, dropout."""
