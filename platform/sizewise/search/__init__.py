"""Searching: the space of configurations, Optuna's samplers taught from the ledger, the pruning rule, the mirror.

No Ray here.
"""
