"""The compiled functions behind `kernels.cpu`: blocks of a flat pool, found by hashes.

`single` has those for rows of one id a feature, `bags` those for rows that have lists of values too, `common` what
both do.
"""
