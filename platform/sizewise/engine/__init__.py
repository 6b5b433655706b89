"""Running, resuming, watching and stopping a study: the only package that knows Ray.

`run` starts and resumes studies: `preparing` checks and makes what must be there before the first trial, `driving` is
the process that holds the study, `deciding` says which trial is next and what its evaluations mean, and a backend
carries that out: `ray_tune` on workers, `simulated` without training.
"""
