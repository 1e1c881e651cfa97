"""What a lower bound is free to choose, and the gradient ascent that chooses it.

Any choice gives a sound bound; the ascent, in float32, only looks for a good one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import Float32Array, IntArray
from tasks.core.bounds.live_layers import compiled

LEARNING_RATE = 0.25
PLANE_RATE = 0.2
RATE_DECAY = 0.9
ADAM_BETAS = (0.8, 0.99)


@dataclass(frozen=True, eq=False)
class Choices:
    """The choices of each subproblem of a batch, or the gradients of its bound by them.

    Attributes:
        slopes: lower slopes, (batch, units of all hidden layers).
        multipliers: of the splits' constraints, at least 0, the same shape; of units split by value
            negative ones belong to the constraint of the other side.
        weights: of a region's rows, (batch, rows), not negative, their sum 1.
        uppers: shares of upper slopes of curved units, the shape of `slopes`, or (batch, 0) where
            no unit is curved; their `slopes` are shares as well (see `curve_choices`).
        levels, tilts: of the planes over the inputs, (batch, first layer's units) and
            (batch, inputs), or (batch, 0) where there are no planes.
    """

    slopes: Float32Array
    multipliers: Float32Array
    weights: Float32Array
    levels: Float32Array
    tilts: Float32Array
    uppers: Float32Array

    def parts(self) -> list[Float32Array]:
        """The arrays, in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)]

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> Choices:
        return Choices(*(part[rows] for part in self.parts()))

    def at(self, columns: IntArray) -> Choices:
        """Of some subproblems, where arrays are (units, batch)."""
        return Choices(*(np.take(part, columns, axis=1) for part in self.parts()))


def joined(choices: Sequence[Choices]) -> Choices:
    """One batch after the other."""
    arrays = zip(*(some.parts() for some in choices), strict=True)
    return Choices(*(np.concatenate(parts) for parts in arrays))


def keep(best: Choices, new: Choices, columns: IntArray, better: NDArray[np.bool_]) -> None:
    """Puts `new`, (units, batch), where marked to `columns` of `best`."""
    for target, values in zip(best.parts(), new.parts(), strict=True):
        _keep(target, values, columns, better)


class Ascent:
    """Projected steps: Adam (Kingma and Ba 2015), and dual averaging for the planes.

    Of choices as the passes hold them, (units, batch). The planes' levels and tilts move along the
    mean of the last minimisers' sides of the box and of the ReLU, which is what `gradient` holds
    for them.
    """

    def __init__(self, choices: Choices, least: Float32Array) -> None:
        """From `choices`, which it changes in place; `least` are the multipliers', (split, 1)."""
        self.choices, self.least = choices, least
        self.first = Choices(*(np.zeros_like(part) for part in choices.parts()))
        self.second = Choices(*(np.zeros_like(part) for part in choices.parts()))
        self.count = 0
        self.rate = 1.0

    @property
    def mean_sides(self) -> Float32Array:
        """Where the last minimisers were on the average, (inputs, batch), in [-1, 1]."""
        return self.first.tilts / np.float32(1 - ADAM_BETAS[0] ** max(self.count, 1))

    def keep(self, columns: IntArray) -> None:
        """Goes on with some subproblems alone."""
        self.choices, self.first, self.second = (
            each.at(columns) for each in (self.choices, self.first, self.second)
        )

    def step(self, gradient: Choices, scale: Float32Array) -> None:
        """Uphill; multipliers step in units of `scale`, (batch,)."""
        self.count += 1
        one = np.ones_like(scale)
        self._climb("slopes", gradient, one)
        self._climb("uppers", gradient, one)
        self._climb("multipliers", gradient, scale)
        self._climb("weights", gradient, one)
        choices = self.choices
        for part in (choices.slopes, choices.uppers):
            np.clip(part, 0, 1, out=part)
        np.maximum(choices.multipliers, self.least, out=choices.multipliers)
        weights = choices.weights
        np.maximum(weights, 0, out=weights)
        weights += np.float32(1e-9)
        weights /= weights.sum(axis=0)
        for name in ("levels", "tilts"):
            rate = np.float32(PLANE_RATE * self.rate)
            _drift(getattr(choices, name), getattr(gradient, name), getattr(self.first, name), rate)
        self.rate *= RATE_DECAY

    def _climb(self, name: str, gradient: Choices, scale: Float32Array) -> None:
        corrections = [np.float32(1 / (1 - beta**self.count)) for beta in ADAM_BETAS]
        _climb(
            *(getattr(each, name) for each in (self.choices, gradient, self.first, self.second)),
            np.float32(LEARNING_RATE * self.rate) * scale,
            *corrections,
        )


@compiled
def _keep(best, values, columns, better):  # type: ignore[no-untyped-def]
    for unit in range(len(values)):
        target, value = best[unit], values[unit]
        for at in range(len(value)):
            if better[at]:
                target[columns[at]] = value[at]


@compiled
def _climb(values, gradient, first, second, rate, first_correction, second_correction):  # type: ignore[no-untyped-def]
    """A step of Adam, at `rate` of each subproblem."""
    keep, keep_square = np.float32(ADAM_BETAS[0]), np.float32(ADAM_BETAS[1])
    share, share_square = np.float32(1) - keep, np.float32(1) - keep_square
    for unit in range(len(values)):
        value, slope, mean, square = values[unit], gradient[unit], first[unit], second[unit]
        for at in range(len(value)):
            mean[at] = keep * mean[at] + share * slope[at]
            square[at] = keep_square * square[at] + share_square * slope[at] * slope[at]
            size = np.sqrt(square[at] * second_correction) + np.float32(1e-12)
            value[at] += rate[at] * mean[at] * first_correction / size


@compiled
def _drift(values, sides, mean, rate):  # type: ignore[no-untyped-def]
    keep = np.float32(ADAM_BETAS[0])
    share = np.float32(1) - keep
    for unit in range(len(values)):
        value, side, middle = values[unit], sides[unit], mean[unit]
        for at in range(len(value)):
            middle[at] = keep * middle[at] + share * side[at]
            value[at] += rate * middle[at]
