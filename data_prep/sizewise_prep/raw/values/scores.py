"""What another model says of rows: its probabilities as the log-odds that shards keep."""

import polars as pl

_LEAST = 1e-7  # probabilities of 0 and 1, which have no log-odds, are taken for this one and 1 less it


def log_odds(probabilities: pl.Series) -> pl.Series:
    """Float32 log-odds of float64 probabilities; null where a number is no probability."""
    shares = probabilities.set(~probabilities.is_between(0, 1), None).clip(_LEAST, 1 - _LEAST)
    return (shares / (1 - shares)).log().cast(pl.Float32)
