"""The integers of a planted world: their joint distribution, and their own effect on a click."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sizewise_prep.planted.dials import Dials
from sizewise_prep.planted.randomness import Floats

Ints = npt.NDArray[np.int64]

NORMAL_CUBIC = (1.5976, 0.07056)  # logit of the normal distribution function at x: about ax + bx^3


class IntegerModel:
    """The integers' joint distribution, and their own effect on a click.

    Attributes:
        count: how many integers a row has.
        missing: each one's share of missing values.
        levels, log_quantiles: quantiles of log(value + 4) at the levels, one array per integer.
        loadings: how the integers follow factors A and B, (13,) each.
        residual: (13, 13), how they follow normals of their own.
        moments: mean and spread of log1p(value + 1) where observed.
        intercept, linear, square, absent: the effect on a click, see `effects`.
    """

    def __init__(self, figures: Mapping[str, Any], dials: Dials) -> None:
        columns = figures["integer"]
        self.count = len(columns)
        self.missing = [min(column["missing"] * dials.missing, 1.0) for column in columns]
        self.levels = np.array(figures["levels"])
        self.log_quantiles = [np.log(np.array(column["quantiles"]) + 4.0) for column in columns]
        click = figures["click"]
        self.intercept: float = click["intercept"]
        self.linear, self.square, self.absent = (
            np.array(click[part]) for part in ("linear", "square", "missing")
        )
        self.loadings = np.array(figures["loading_a"]), np.array(figures["loading_b"])
        self.residual = _root(
            np.array(figures["correlation"]) - sum(np.outer(loading, loading) for loading in self.loadings)
        )
        grid = (np.arange(4096) + 0.5) / 4096
        typical = [np.log1p(np.maximum(np.rint(self._value(j, grid)) + 1, 0)) for j in range(self.count)]
        self.moments = [(float(logs.mean()), float(logs.std())) for logs in typical]

    def _value(self, column: int, quantile: Floats) -> Floats:
        """The value at a quantile among the observed ones, by interpolation in log(value + 4)."""
        return np.exp(np.interp(quantile, self.levels, self.log_quantiles[column])) - 4.0

    def draw(
        self, factor_a: Floats, factor_b: Floats, noise: list[Floats]
    ) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Draw integers.

        Args:
            factor_a, factor_b: (rows,), normals that columns have in common.
            noise: for each column, (rows,), independent normals.

        Returns:
            Integers (13, rows) int64, and which of them are observed (13, rows) bool.
        """
        integers = np.empty((self.count, len(factor_a)), np.int64)
        observed = np.empty(integers.shape, np.bool_)
        for j, missing in enumerate(self.missing):
            # Sums rather than a matrix product, whose rounding could depend on the number of rows.
            normal = self.loadings[0][j] * factor_a + self.loadings[1][j] * factor_b
            normal += weighted_sum(self.residual[j], noise)
            # The normal distribution function.
            quantile = sigmoid(NORMAL_CUBIC[0] * normal + NORMAL_CUBIC[1] * normal**3)
            observed[j] = quantile >= missing
            rest = (quantile - missing) / (1 - missing) if missing < 1 else quantile
            integers[j] = np.rint(self._value(j, rest)).astype(np.int64)
        return integers, observed

    def effects(self, logs: Floats, observed: npt.NDArray[np.bool_]) -> Floats:
        """The integers' part of the logit, (rows,): linear and square in log1p(x + 1), or a constant."""
        total = np.full(logs.shape[1], self.intercept)
        for j in range(self.count):
            total += (self.linear[j] + self.square[j] / 10 * logs[j]) * logs[j] + self.absent[j] * ~observed[
                j
            ]
        return total

    def standardized(self, logs: Floats, observed: npt.NDArray[np.bool_]) -> Floats:
        """t scaled to mean 0 and variance 1 over observed values, 0 where missing; (13, rows)."""
        return np.stack(
            [(logs[j] - mean) / spread * observed[j] for j, (mean, spread) in enumerate(self.moments)]
        )


def weighted_sum(weights: Floats, vectors: list[Floats] | Floats) -> Floats:
    """The sum of vectors by weights, (vectors,), added one by one: the same for any number of rows."""
    total: Floats = weights[0] * vectors[0]
    for weight, vector in zip(weights[1:], vectors[1:], strict=True):
        if weight:
            total += weight * vector
    return total


def _root(covariance: Floats) -> Floats:
    """A symmetric square root, negative eigenvalues clipped, rescaled to the diagonal asked for."""
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return np.asarray(root * (np.sqrt(np.diag(covariance)) / np.sqrt((root**2).sum(axis=1)))[:, None])


def sigmoid(logit: Floats) -> Floats:
    """The probability at each logit."""
    return np.asarray(1 / (1 + np.exp(-logit)))
