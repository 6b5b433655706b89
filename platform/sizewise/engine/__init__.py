"""Running, resuming, watching and stopping a study: the only package that knows Ray.

`run` is where a study starts and resumes; it keeps one `driver`, which lets the `engine` decide and a backend carry
out: `tune` on Ray's workers, `simulated` without training.
"""
