"""Training one trial: batches, steps, optimizers, checkpoints."""
