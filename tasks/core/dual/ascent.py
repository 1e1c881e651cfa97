"""The gradient ascent, in float32, that looks for good choices."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import Float32Array, IntArray
from tasks.core.dual.choices import Choices
from tasks.core.dual.float32_passes import Passes
from tasks.core.dual.live_layers import compiled
from tasks.core.dual.subproblems import Subproblems

LEARNING_RATE = 0.25
PLANE_RATE = 0.2
RATE_DECAY = 0.9
ADAM_BETAS = (0.8, 0.99)
WORTH_LEAVING = 0.75  # of them open, below which the others are left out of further steps


@dataclass(frozen=True)
class Limits:
    """How long an ascent goes on: `deadline` is in seconds of `time.monotonic`.

    Subproblems are left alone once their bound is above `stop_above`.
    """

    num_steps: int
    stop_above: float = 0.0
    deadline: float = np.inf


@dataclass(frozen=True, eq=False)
class Optimised:
    """Choices for lower bounds on the greatest row, and what they give in float32: no proof.

    `estimates`, (batch,), are the bounds; `points`, (batch, inputs), minimise the relaxations:
    candidates for counterexamples. `scores`, (batch, units), say how much each unsplit unit's
    relaxation costs there.
    """

    estimates: Float32Array
    choices: Choices
    points: Float32Array
    scores: Float32Array


def ascended(
    passes: Passes, problems: Subproblems, start: Choices, boxes: slice, limits: Limits
) -> Optimised:
    """See `DualProblem.optimise`; `boxes` as in `LiveUnits.data`."""
    units = passes.units
    data, current = units.data(problems, start, boxes)
    least = np.where(units.activation.movable[data.split], -np.inf, 0).astype(np.float32)
    split, ascent, columns = data.split, Ascent(current, least[:, None]), np.arange(len(problems))
    best = Choices(*(part.copy() for part in current.parts()))
    best_lower = np.full(len(problems), -np.inf, dtype=np.float32)
    points = np.zeros((len(data.center), len(problems)), dtype=np.float32)
    for step in range(limits.num_steps + 1):
        found = passes.gradient(data, ascent.choices)
        better = found.backward.lower > best_lower[columns]
        best_lower[columns[better]] = found.backward.lower[better]
        keep(best, ascent.choices, columns, better)
        points[:, columns] = found.backward.points
        left = np.flatnonzero(~(best_lower[columns] > limits.stop_above))
        if step == limits.num_steps or not len(left) or time.monotonic() > limits.deadline:
            break
        ascent.step(found.gradient, np.abs(found.backward.coefficients).max(axis=0, initial=0))
        if len(left) < WORTH_LEAVING * len(columns) and data.curves is None:
            columns, data = columns[left], data.at(left)
            ascent.keep(left)
    some = passes.scores(data, found.backward, ascent.choices, ascent.mean_sides)
    scores = np.zeros((len(problems), units.num_units), dtype=np.float32)
    scores[columns[:, None], units.live] = some.T
    return Optimised(best_lower, units.whole(best, split, start), points.T, scores)


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
