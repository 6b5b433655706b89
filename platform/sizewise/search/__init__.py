"""The search space, Optuna's samplers given the ledger's trials, the pruning rule, the Optuna mirror.

No Ray here.
"""
