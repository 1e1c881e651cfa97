"""Lower bounds whose free choices are optimised: alpha-CROWN and beta-CROWN.

A backward linear bound holds for every lower slope in [0, 1] of an unstable ReLU, every
non-negative multiplier of a split's constraint and every convex weighting of a region's rows. The
best choice is found by gradient ascent (Xu et al. 2021, "Fast and Complete"; Wang et al. 2021,
"Beta-CROWN"); the first layer's ReLUs have planes over the inputs for upper lines. The ascent runs
in float32: it only chooses. What is returned is computed once more from the choice in float64 with
outward rounding, by `linear.backward_bounds`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import BoolArray, Float32Array, FloatArray
from tasks.core.bounds.choices import Ascent, Choices, chosen
from tasks.core.bounds.input_planes import InputPlanes, Planes, Spans
from tasks.core.bounds.linear import PlaneTerms, backward_bounds
from tasks.core.bounds.relaxations import Bounds, ReluRelaxation
from tasks.core.bounds.rounding import RoundingScales, gamma, rounding_scales
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import LinfBall

SignArray = NDArray[np.int8]

LINE_COST = np.float32(1e-6)
MAX_ENTRIES = 2**22  # units of a batch of subproblems: 16 MB in float32, and a dozen such live
LEAST_SCORE = np.float32(1e-30)  # so that every unstable unit comes before every other


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
    """One evaluation: a backward pass and the gradients of its bounds by the choices."""

    backward: _Backward
    gradient: Choices


class DualProblem:
    """A network over one box, with bounds on its hidden layers: what all subproblems share."""

    @np.errstate(over="ignore", invalid="ignore")  # what float32 cannot hold proves nothing
    def __init__(self, network: ReluNetwork, box: LinfBall, hidden: Sequence[Bounds]) -> None:
        self.network, self.box, self.hidden = network, box, list(hidden)
        self.planes = self.exact_planes = None
        first = network.layers[0]
        spans = Spans.of(first.matrix)
        if hidden and spans.pay:
            self.planes = InputPlanes(first, spans, box, np.float32)
            self.exact_planes = InputPlanes(first, spans, box, np.float64)
        widths = [len(layer.bias) for layer in network.layers[:-1]]
        ends = np.cumsum([0, *widths])
        self.layers = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        self.num_units = int(ends[-1])
        self.max_batch = max(1, MAX_ENTRIES // max(1, self.num_units))  # of subproblems at once
        self.linear = np.concatenate([*network.linear, np.zeros(0, dtype=bool)])
        empty = np.zeros((1, 0))
        self.bounds = Bounds(
            np.concatenate([empty, *(b.lower for b in hidden)], axis=1),
            np.concatenate([empty, *(b.upper for b in hidden)], axis=1),
        )
        self.matrices = [layer.matrix.single() for layer in network.layers]
        self.biases = [layer.bias.astype(np.float32) for layer in network.layers]
        self.center = ((box.lower[0] + box.upper[0]) / 2).astype(np.float32)
        self.radius = ((box.upper[0] - box.lower[0]) / 2).astype(np.float32)
        self.scales: RoundingScales = rounding_scales(network, hidden, box)

    def initial_choices(self, problems: Subproblems) -> Choices:
        """CROWN's slopes, no multipliers, equal weights."""
        relaxation = ReluRelaxation.of(problems.bounds, self.linear)
        count, num_rows = problems.offsets.shape
        shape = (count, self.num_units)
        chords = relaxation.upper_slope[:, self.layers[0] if self.planes else slice(0)]
        return Choices(
            np.broadcast_to(relaxation.lower_slope.astype(np.float32), shape),
            np.zeros(shape, dtype=np.float32),
            np.full((count, num_rows), 1 / num_rows, dtype=np.float32),
            np.tile(chords.astype(np.float32), (count // len(chords), 1)),
            np.zeros((count, self.network.num_inputs if self.planes else 0), dtype=np.float32),
        )

    @np.errstate(over="ignore", invalid="ignore")
    def certified(self, problems: Subproblems, choices: Choices) -> FloatArray:
        """The bounds that `choices` give, (batch,), in float64 and rounded outwards.

        Sound for any finite choices: slopes are moved into [0, 1], multipliers and weights to
        what is not negative.
        """
        bounds = problems.bounds
        relaxation = ReluRelaxation.of(bounds, self.linear)
        slopes = np.clip(choices.slopes.astype(np.float64), 0, 1)
        unstable = bounds.unstable(self.linear)
        relaxation = self._without_chords(
            replace(relaxation, lower_slope=np.where(unstable, slopes, relaxation.lower_slope)),
            unstable,
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
            [relaxation[:, at] for at in self.layers],
            self.box,
            self.scales,
            [terms[:, at] for at in self.layers],
            self._plane_terms(unstable, choices),
        )
        return self._outwards(lower[:, 0] + offsets, weights, problems)

    def _without_chords(self, relaxation: ReluRelaxation, unstable: BoolArray) -> ReluRelaxation:
        """Upper lines of zero where a plane takes their place."""
        if self.planes is None:
            return relaxation
        upper_slope, intercept = relaxation.upper_slope.copy(), relaxation.upper_intercept.copy()
        at = self.layers[0]
        upper_slope[:, at][unstable[:, at]] = 0
        intercept[:, at][unstable[:, at]] = 0
        return replace(relaxation, upper_slope=upper_slope, upper_intercept=intercept)

    def _plane_terms(self, unstable: BoolArray, choices: Choices) -> PlaneTerms | None:
        """What the planes add to a backward pass in float64, rounded outwards.

        The top of a plane and the sums over inputs and units are of terms whose magnitudes add up
        to at most those behind `affine[0]`; with centre and radius there are fewer than eight.
        """
        planes = self.exact_planes
        if planes is None:
            return None

        def terms(negative: FloatArray) -> tuple[FloatArray, FloatArray]:
            used = np.where(unstable[:, self.layers[0]], negative[:, 0], 0)
            found = planes.weighted(
                used, choices.levels.astype(np.float64), choices.tilts.astype(np.float64)
            )
            error = (-used * self.scales.affine[0]).sum(axis=1)
            return found.rows[:, None], (found.constants - 8 * error)[:, None]

        return terms

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
        return np.where(np.isnan(total), -np.inf, total)

    def estimated(self, problems: Subproblems, choices: Choices) -> Float32Array:
        """The bounds that `choices` give in float32, (batch,): to compare, not to prove."""
        return self._backward(*self._data(problems, choices)).lower

    # OpenBLAS can raise the flag on finite numbers (numpy issue 24067), and NaN proves nothing.
    @np.errstate(over="ignore", invalid="ignore")
    def optimise(
        self,
        problems: Subproblems,
        start: Choices,
        num_steps: int,
        *,
        stop_above: float = 0.0,
        deadline: float = np.inf,
    ) -> Optimised:
        """Gradient ascent from `start` until every bound is above `stop_above` or steps run out.

        At `deadline`, in seconds of `time.monotonic`, they have.
        """
        data, current = self._data(problems, start)
        best, ascent = current, Ascent(current)
        best_lower = np.full(len(problems), -np.inf, dtype=np.float32)
        for step in range(num_steps + 1):
            found = self._pass(data, current)
            better = found.backward.lower > best_lower
            best_lower = np.where(better, found.backward.lower, best_lower)
            best = chosen(better, current, best)
            if step == num_steps or (best_lower > stop_above).all():
                break
            if time.monotonic() > deadline:
                break
            scale = np.abs(found.backward.coefficients).max(axis=1, keepdims=True, initial=0)
            current = ascent.step(current, found.gradient, scale)
        scores = self._scores(data, found.backward, current, ascent.mean_sides)
        return Optimised(self.certified(problems, best), best, found.backward.points, scores)

    def _data(self, problems: Subproblems, choices: Choices) -> tuple[_PassData, Choices]:
        bounds = problems.bounds
        unstable = bounds.unstable(self.linear)
        relaxation = self._without_chords(ReluRelaxation.of(bounds, self.linear), unstable)
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
        values, outputs, _ = self._forward(found, data, choices, found.points)
        gradient = Choices(
            np.maximum(found.coefficients, 0) * values * data.unstable,
            -data.signs * values,
            (data.rows @ outputs[:, :, None])[..., 0] + data.offsets,
            found.planes.sides if found.planes else choices.levels,
            found.sides if found.planes else choices.tilts,
        )
        return _Pass(found, gradient)

    def _backward(self, data: _PassData, choices: Choices) -> _Backward:
        current = (choices.weights[:, None, :] @ data.rows)[:, 0]
        constant = (choices.weights * data.offsets).sum(axis=1)
        split_terms = data.signs * choices.multipliers
        coefficients, slopes = np.empty_like(choices.slopes), np.empty_like(choices.slopes)
        for index in range(len(self.layers), 0, -1):
            at = self.layers[index - 1]
            constant = constant + current @ self.biases[index]
            current = self.matrices[index].backward(current)
            coefficients[:, at] = current
            slopes[:, at] = np.where(current > 0, choices.slopes[:, at], data.upper_slopes[:, at])
            negative = np.minimum(current, 0)
            constant += (negative * data.intercepts[:, at]).sum(axis=1)
            current = current * slopes[:, at] - split_terms[:, at]
        constant = constant + current @ self.biases[0]
        current = self.matrices[0].backward(current)
        planes = None
        if self.planes is not None:
            planed = np.where(data.unstable[:, self.layers[0]], negative, 0)
            planes = self.planes.weighted(planed, choices.levels, choices.tilts)
            current += planes.rows
            constant += planes.constants
        sides = -np.copysign(np.float32(1), current)
        points = self.center + self.radius * sides
        lower = constant + np.einsum("bn,bn->b", current, points)
        return _Backward(lower, points, sides, coefficients, slopes, planes)

    def _forward(
        self, found: _Backward, data: _PassData, choices: Choices, points: Float32Array
    ) -> tuple[Float32Array, Float32Array, Float32Array]:
        """At `points`: pre-activations, activations and outputs of the relaxed network.

        Each ReLU is the line or plane in use.
        """
        values, lines = np.empty_like(found.coefficients), np.empty_like(found.coefficients)
        activations = points
        for index, at in enumerate(self.layers):
            values[:, at] = self.matrices[index].forward(activations) + self.biases[index]
            upper_line = np.where(found.coefficients[:, at] > 0, 0, data.intercepts[:, at])
            activations = values[:, at] * found.slopes[:, at] + upper_line
            if index == 0 and self.planes is not None and found.planes is not None:
                used = data.unstable[:, at] & (found.coefficients[:, at] < 0)
                activations += self.planes.values(
                    found.planes, used, choices.levels, choices.tilts, points
                )
            lines[:, at] = activations
        return values, self.matrices[-1].forward(activations) + self.biases[-1], lines

    def _scores(
        self, data: _PassData, found: _Backward, choices: Choices, mean_sides: Float32Array
    ) -> Float32Array:
        """What the upper lines and planes cost.

        For a chord that is BaBSR's main term (Bunel et al. 2020, "Branch and Bound for Piecewise
        Linear Neural Network Verification"); for a plane, how far it is above the ReLU where the
        last minimisers are on the average. A lower line costs nothing where its slope is optimal,
        so it counts only to break ties.
        """
        cost = np.where(found.coefficients < 0, -found.coefficients, LINE_COST)
        height = data.intercepts
        if self.planes is not None:
            points = self.center + self.radius * mean_sides
            values, _, lines = self._forward(found, data, choices, points)
            first = np.arange(self.num_units) < self.layers[0].stop
            height = np.where(first, np.abs(lines - np.maximum(values, 0)), height)
        return np.where(data.unstable, cost * height + LEAST_SCORE, 0)


@dataclass(frozen=True, eq=False)
class _Backward:
    """A backward pass: bounds, their minimisers, coefficients of activations, slopes in use."""

    lower: Float32Array
    points: Float32Array
    sides: Float32Array
    coefficients: Float32Array
    slopes: Float32Array
    planes: Planes | None


@dataclass(frozen=True, eq=False)
class _PassData:
    rows: Float32Array
    offsets: Float32Array
    signs: Float32Array
    unstable: NDArray[np.bool_]
    upper_slopes: Float32Array
    intercepts: Float32Array
