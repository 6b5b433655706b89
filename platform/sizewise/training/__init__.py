"""Training one trial: `loop.train` is what each worker does.

`input` makes batches of shards, `steps` updates the model by one, `scoring` predicts for many rows, `checkpoints` keeps
what a trial goes on from, `teachers` has the scores that students train against.
"""
