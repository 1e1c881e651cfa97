"""Epsilon, the robust loss's weight and the learning rate, at each point of a training."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi

from tasks.core.training.training_settings import TrainingSettings


@dataclass(frozen=True)
class Scheduled:
    """What holds at a point of the training; `ramp` goes from 0 to 1 as epsilon does."""

    epsilon: float
    robust_weight: float
    learning_rate: float
    ramp: float


def scheduled(settings: TrainingSettings, progress: float) -> Scheduled:
    """At `progress` epochs, a fraction of an epoch included."""
    start, length = settings.warmup_epochs, settings.ramp_epochs
    ramp = min(max(progress - start, 0.0) / length, 1.0) if length else float(progress >= start)
    weights = settings.robust_weight_start, settings.robust_weight
    return Scheduled(
        epsilon=ramp * (settings.training_epsilon or 0.0),
        robust_weight=weights[0] + ramp * (weights[1] - weights[0]),
        learning_rate=settings.learning_rate * _decay(settings, progress),
        ramp=ramp,
    )


def _decay(settings: TrainingSettings, progress: float) -> float:
    """The share of the learning rate that is left."""
    start = settings.warmup_epochs + settings.ramp_epochs
    if settings.learning_rate_decay == "none" or progress <= start:
        return 1.0
    return (1 + cos(pi * (progress - start) / (settings.epochs - start))) / 2
