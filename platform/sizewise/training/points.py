"""When a trial is evaluated."""

import math

from sizewise.config.trial import TrialConfig


def evaluation_points(config: TrialConfig, iterations_per_epoch: int) -> list[int]:
    """The iterations after which a trial is evaluated, the last one always among them."""
    total = config.search.epochs * iterations_per_epoch
    every = config.train.evaluate_every
    step = max(every if isinstance(every, int) else every * iterations_per_epoch, 1)
    points = {min(max(round(k * step), 1), total) for k in range(1, math.ceil(total / step) + 1)}
    return sorted(points | {total})
