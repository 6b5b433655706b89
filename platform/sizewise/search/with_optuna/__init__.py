"""Optuna's side of a search: samplers, a mirror in its storage, trials of other studies."""
