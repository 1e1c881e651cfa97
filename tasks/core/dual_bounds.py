"""Lower bounds whose free choices are optimised: alpha-CROWN and beta-CROWN.

A backward linear bound holds for every lower slope in [0, 1] of an unstable ReLU, every
non-negative multiplier of a split's constraint and every convex weighting of a region's rows. The
best choice is found by gradient ascent (Xu et al. 2021, "Fast and Complete"; Wang et al. 2021,
"Beta-CROWN"). The ascent runs in float32: it only chooses. What is returned is computed once more
from the choice in float64 with outward rounding, by `bounds.backward_bounds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tasks.core.bounds import (
    Bounds,
    ReluRelaxation,
    RoundingScales,
    backward_bounds,
    gamma,
    rounding_scales,
)
from tasks.core.network import ReluNetwork
from tasks.core.specification import FloatArray, LinfBall

Float32Array = NDArray[np.float32]
SignArray = NDArray[np.int8]

LEARNING_RATE = 0.25
LEARNING_RATE_DECAY = 0.95
LINE_COST = np.float32(1e-6)
ADAM_BETAS = (0.8, 0.99)


@dataclass(frozen=True, eq=False)
class Choices:
    """What a bound is free to choose, for each subproblem of a batch.

    Attributes:
        slopes: lower slopes, (batch, units of all hidden layers).
        multipliers: of the splits' constraints, at least 0, the same shape.
        weights: of a region's rows, (batch, rows), not negative, their sum 1.
    """

    slopes: Float32Array
    multipliers: Float32Array
    weights: Float32Array

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> Choices:
        return Choices(self.slopes[rows], self.multipliers[rows], self.weights[rows])


@dataclass(frozen=True, eq=False)
class Subproblems:
    """A batch of regions with splits, all in the problem's box.

    Attributes:
        rows, offsets: (batch, m, outputs) and (batch, m): unsafe is `rows @ y + offsets <= 0`.
        signs: (batch, units of all hidden layers): 1 where z >= 0 is assumed, -1 where z <= 0, 0
            where the unit is not split; a batch of 1 serves all.
        bounds: of all hidden layers' units, (batch, units), where the splits hold; likewise.
    """

    rows: FloatArray
    offsets: FloatArray
    signs: SignArray
    bounds: Bounds

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> Subproblems:
        return Subproblems(self.rows[rows], self.offsets[rows], self.signs[rows], self.bounds[rows])


@dataclass(frozen=True, eq=False)
class Optimised:
    """Sound lower bounds (batch,) on the greatest row; the choices; and where each bound is least.

    `points`, (batch, inputs), minimise the relaxations: candidates for counterexamples. `scores`,
    (batch, units), say how much each unsplit unit's relaxation costs there.
    """

    lower: FloatArray
    choices: Choices
    points: Float32Array
    scores: Float32Array


@dataclass(frozen=True, eq=False)
class _Pass:
    """One evaluation: the bounds and their gradients by slopes, multipliers and weights."""

    lower: Float32Array
    points: Float32Array
    slopes: Float32Array
    multipliers: Float32Array
    rows: Float32Array
    coefficients: Float32Array


class DualProblem:
    """A network over one box, with bounds on its hidden layers: what all subproblems share."""

    def __init__(self, network: ReluNetwork, box: LinfBall, hidden: Sequence[Bounds]) -> None:
        self.network, self.box, self.hidden = network, box, list(hidden)
        widths = [len(layer.bias) for layer in network.layers[:-1]]
        ends = np.cumsum([0, *widths])
        self.layers = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        self.num_units = int(ends[-1])
        self.linear = np.concatenate([*network.linear, np.zeros(0, dtype=bool)])
        empty = np.zeros((1, 0))
        self.bounds = Bounds(
            np.concatenate([empty, *(b.lower for b in hidden)], axis=1),
            np.concatenate([empty, *(b.upper for b in hidden)], axis=1),
        )
        self.weights = [layer.weight.astype(np.float32) for layer in network.layers]
        self.biases = [layer.bias.astype(np.float32) for layer in network.layers]
        self.center = ((box.lower[0] + box.upper[0]) / 2).astype(np.float32)
        self.radius = ((box.upper[0] - box.lower[0]) / 2).astype(np.float32)
        self.scales: RoundingScales = rounding_scales(network, len(hidden), hidden, box)

    def initial_choices(self, problems: Subproblems) -> Choices:
        """CROWN's slopes, no multipliers, equal weights."""
        slopes = ReluRelaxation.of(problems.bounds, self.linear).lower_slope.astype(np.float32)
        count, num_rows = problems.offsets.shape
        shape = (count, self.num_units)
        return Choices(
            np.broadcast_to(slopes, shape),
            np.zeros(shape, dtype=np.float32),
            np.full((count, num_rows), 1 / num_rows, dtype=np.float32),
        )

    def certified(self, problems: Subproblems, choices: Choices) -> FloatArray:
        """The bounds that `choices` give, (batch,), in float64 and rounded outwards.

        Sound for any finite choices: slopes are moved into [0, 1], multipliers and weights to
        what is not negative.
        """
        bounds = problems.bounds
        relaxation = ReluRelaxation.of(bounds, self.linear)
        slopes = np.clip(choices.slopes.astype(np.float64), 0, 1)
        relaxation = replace(
            relaxation,
            lower_slope=np.where(bounds.unstable(self.linear), slopes, relaxation.lower_slope),
        )
        multipliers = np.maximum(choices.multipliers.astype(np.float64), 0)
        terms: FloatArray = multipliers * problems.signs
        weights = np.maximum(choices.weights.astype(np.float64), 0)
        weights /= weights.sum(axis=1, keepdims=True)
        rows = weights[:, None, :] @ problems.rows
        offsets = (weights * problems.offsets).sum(axis=1)
        lower = backward_bounds(
            self.network,
            rows,
            [bounds[:, at] for at in self.layers],
            [
                ReluRelaxation(
                    relaxation.lower_slope[:, at],
                    relaxation.upper_slope[:, at],
                    relaxation.upper_intercept[:, at],
                )
                for at in self.layers
            ],
            self.box,
            self.scales,
            [terms[:, at] for at in self.layers],
        )
        return self._outwards(lower[:, 0] + offsets, weights, problems)

    def _outwards(
        self, bounds: FloatArray, weights: FloatArray, problems: Subproblems
    ) -> FloatArray:
        """Less what rounding did to the weighted rows and offsets and to the last sums.

        The weights are exact numbers whose sum is 1 up to rounding; the greatest row is at least
        the weighted sum divided by theirs.
        """
        count = weights.shape[1]
        rows = (weights[:, None, :] @ np.abs(problems.rows))[:, 0]
        outputs = (count * rows) @ self.scales.affine[-1][0]  # gamma is in the scales
        offsets = gamma(count + 8) * (weights * np.abs(problems.offsets)).sum(axis=1)
        total: FloatArray = bounds - outputs - offsets - gamma(count + 8) * np.abs(bounds)
        return total

    def estimated(self, problems: Subproblems, choices: Choices) -> Float32Array:
        """The bounds that `choices` give in float32, (batch,): to compare, not to prove."""
        return self._backward(*self._data(problems, choices)).lower

    def optimise(
        self, problems: Subproblems, start: Choices, num_steps: int, *, stop_above: float = 0.0
    ) -> Optimised:
        """Gradient ascent from `start` until every bound is above `stop_above` or steps run out."""
        data, current = self._data(problems, start)
        best = replace(current)
        best_lower = np.full(len(problems), -np.inf, dtype=np.float32)
        ascent = _Ascent(current)
        for step in range(num_steps + 1):
            found = self._pass(data, current)
            better = found.lower > best_lower
            best_lower = np.where(better, found.lower, best_lower)
            best = _merged(better, current, best)
            if step == num_steps or (best_lower > stop_above).all():
                break
            current = ascent.step(current, found)
        scores = self._scores(data, found)
        return Optimised(self.certified(problems, best), best, found.points, scores)

    def _data(self, problems: Subproblems, choices: Choices) -> tuple[_PassData, Choices]:
        bounds = problems.bounds
        unstable = bounds.unstable(self.linear)
        relaxation = ReluRelaxation.of(bounds, self.linear)
        slopes = np.where(unstable, choices.slopes, relaxation.lower_slope).astype(np.float32)
        data = _PassData(
            problems.rows.astype(np.float32),
            problems.offsets.astype(np.float32),
            problems.signs.astype(np.float32),
            unstable,
            relaxation.upper_slope.astype(np.float32),
            relaxation.upper_intercept.astype(np.float32),
        )
        return data, replace(choices, slopes=slopes)

    def _pass(self, data: _PassData, choices: Choices) -> _Pass:
        """The bound and, from its minimiser forwards, its gradients (Danskin's theorem)."""
        found = self._backward(data, choices)
        values, outputs = self._forward(found, data)
        return _Pass(
            lower=found.lower,
            points=found.points,
            slopes=np.maximum(found.coefficients, 0) * values * data.unstable,
            multipliers=-data.signs * values,
            rows=(data.rows @ outputs[:, :, None])[..., 0] + data.offsets,
            coefficients=found.coefficients,
        )

    def _backward(self, data: _PassData, choices: Choices) -> _Backward:
        current = (choices.weights[:, None, :] @ data.rows)[:, 0]
        constant = (choices.weights * data.offsets).sum(axis=1)
        split_terms = data.signs * choices.multipliers
        coefficients, slopes = np.empty_like(choices.slopes), np.empty_like(choices.slopes)
        for index in range(len(self.layers), 0, -1):
            at = self.layers[index - 1]
            constant = constant + current @ self.biases[index]
            current = current @ self.weights[index]
            coefficients[:, at] = current
            slopes[:, at] = np.where(current > 0, choices.slopes[:, at], data.upper_slopes[:, at])
            negative = np.minimum(current, 0)
            constant += (negative * data.intercepts[:, at]).sum(axis=1)
            current = current * slopes[:, at] - split_terms[:, at]
        constant = constant + current @ self.biases[0]
        current = current @ self.weights[0]
        points = self.center - np.copysign(self.radius, current)
        lower = constant + np.einsum("bn,bn->b", current, points)
        return _Backward(lower, points, coefficients, slopes)

    def _forward(self, found: _Backward, data: _PassData) -> tuple[Float32Array, Float32Array]:
        """Pre-activations and outputs of the relaxed network: each ReLU is the line in use."""
        values = np.empty_like(found.coefficients)
        activations = found.points
        for index, at in enumerate(self.layers):
            values[:, at] = activations @ self.weights[index].T + self.biases[index]
            upper_line = np.where(found.coefficients[:, at] > 0, 0, data.intercepts[:, at])
            activations = values[:, at] * found.slopes[:, at] + upper_line
        return values, activations @ self.weights[-1].T + self.biases[-1]

    def _scores(self, data: _PassData, found: _Pass) -> Float32Array:
        """What the chords cost: BaBSR's main term.

        Bunel et al. 2020, "Branch and Bound for Piecewise Linear Neural Network Verification". A
        lower line costs nothing where its slope is optimal, so it counts only to break ties.
        """
        cost = np.where(found.coefficients < 0, -found.coefficients, LINE_COST)
        return np.where(data.unstable, cost * data.intercepts, 0)


@dataclass(frozen=True, eq=False)
class _Backward:
    """A backward pass: bounds, their minimisers, coefficients of activations, slopes in use."""

    lower: Float32Array
    points: Float32Array
    coefficients: Float32Array
    slopes: Float32Array


@dataclass(frozen=True, eq=False)
class _PassData:
    rows: Float32Array
    offsets: Float32Array
    signs: Float32Array
    unstable: NDArray[np.bool_]
    upper_slopes: Float32Array
    intercepts: Float32Array


def _merged(better: NDArray[np.bool_], new: Choices, old: Choices) -> Choices:
    at = better[:, None]
    return Choices(
        np.where(at, new.slopes, old.slopes),
        np.where(at, new.multipliers, old.multipliers),
        np.where(at, new.weights, old.weights),
    )


class _Ascent:
    """Adam (Kingma and Ba 2015), with projection; multipliers step in units of the coefficients."""

    def __init__(self, choices: Choices) -> None:
        shape = np.concatenate([choices.slopes, choices.multipliers, choices.weights], axis=1).shape
        self.first = np.zeros(shape, dtype=np.float32)
        self.second = np.zeros(shape, dtype=np.float32)
        self.count = 0
        self.rate = LEARNING_RATE

    def step(self, choices: Choices, found: _Pass) -> Choices:
        self.count += 1
        gradient = np.concatenate([found.slopes, found.multipliers, found.rows], axis=1)
        one, two = ADAM_BETAS
        self.first += (1 - one) * (gradient - self.first)
        self.second += (1 - two) * (gradient * gradient - self.second)
        move = self.first / (1 - one**self.count)
        move /= np.sqrt(self.second / (1 - two**self.count)) + np.float32(1e-12)
        move *= np.float32(self.rate)
        self.rate *= LEARNING_RATE_DECAY
        units = choices.slopes.shape[1]
        scale = np.abs(found.coefficients).max(axis=1, keepdims=True, initial=0)
        weights = np.maximum(choices.weights + move[:, 2 * units :], 0)
        weights += np.float32(1e-9)
        return Choices(
            np.clip(choices.slopes + move[:, :units], 0, 1),
            np.maximum(choices.multipliers + scale * move[:, units : 2 * units], 0),
            weights / weights.sum(axis=1, keepdims=True),
        )
