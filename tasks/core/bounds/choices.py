"""What a lower bound is free to choose, and the gradient ascent that chooses it.

Any choice gives a sound bound; the ascent, in float32, only looks for a good one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import Float32Array

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


def joined(choices: Sequence[Choices]) -> Choices:
    """One batch after the other."""
    arrays = zip(*(some.parts() for some in choices), strict=True)
    return Choices(*(np.concatenate(parts) for parts in arrays))


def chosen(rows: NDArray[np.bool_], new: Choices, old: Choices) -> Choices:
    """`new` in the marked rows of the batch, `old` in the others."""
    parts = zip(new.parts(), old.parts(), strict=True)
    return Choices(*(np.where(rows[:, None], one, other) for one, other in parts))


class Ascent:
    """Projected steps: Adam (Kingma and Ba 2015), and dual averaging for the planes.

    The planes' levels and tilts move along the mean of the last minimisers' sides of the box and
    of the ReLU, which is what `gradient` holds for them.
    """

    def __init__(self, choices: Choices, movable: NDArray[np.bool_]) -> None:
        """`movable`, (units,), are split by value: their multipliers may change the side."""
        self.least = np.where(movable, np.float32(-np.inf), np.float32(0))
        self.first = Choices(*(np.zeros_like(part) for part in choices.parts()))
        self.second = Choices(*(np.zeros_like(part) for part in choices.parts()))
        self.count = 0
        self.rate = 1.0

    @property
    def mean_sides(self) -> Float32Array:
        """Where the last minimisers were on the average, (batch, inputs), in [-1, 1]."""
        return self.first.tilts / np.float32(1 - ADAM_BETAS[0] ** max(self.count, 1))

    def step(self, choices: Choices, gradient: Choices, scale: Float32Array) -> Choices:
        """The next choices; multipliers step in units of `scale`, (batch, 1)."""
        self.count += 1
        self.first = _moved(self.first, gradient.parts(), ADAM_BETAS[0])
        self.second = _moved(self.second, [part * part for part in gradient.parts()], ADAM_BETAS[1])
        rate, self.rate = self.rate, self.rate * RATE_DECAY
        weights = np.maximum(choices.weights + self._adam_move("weights", rate), 0)
        weights += np.float32(1e-9)
        plane_rate = np.float32(PLANE_RATE * rate)
        return Choices(
            np.clip(choices.slopes + self._adam_move("slopes", rate), 0, 1),
            np.maximum(
                choices.multipliers + scale * self._adam_move("multipliers", rate), self.least
            ),
            weights / weights.sum(axis=1, keepdims=True),
            choices.levels + plane_rate * self.first.levels,
            choices.tilts + plane_rate * self.first.tilts,
            np.clip(choices.uppers + self._adam_move("uppers", rate), 0, 1),
        )

    def _adam_move(self, name: str, rate: float) -> Float32Array:
        move: Float32Array = getattr(self.first, name) / (1 - ADAM_BETAS[0] ** self.count)
        square = getattr(self.second, name) / (1 - ADAM_BETAS[1] ** self.count)
        move /= np.sqrt(square) + np.float32(1e-12)
        move *= np.float32(LEARNING_RATE * rate)
        return move


def _moved(mean: Choices, parts: Sequence[Float32Array], keep: float) -> Choices:
    """The exponential mean with one more term."""
    share = np.float32(1 - keep)
    pairs = zip(mean.parts(), parts, strict=True)
    return Choices(*(old + share * (part - old) for old, part in pairs))
