"""The search: `suggest` says which configuration of the space comes next. No Ray here.

`with_optuna` has what is Optuna's in it; `pruning` stops trials early, and `teachers` are trained before the first
student.
"""
