"""Lower bounds whose free choices are optimised: alpha-CROWN and beta-CROWN.

A backward linear bound holds for every lower slope in [0, 1] of an unstable ReLU, every
non-negative multiplier of a split's constraint and every convex weighting of a region's rows. The
best choice is found by gradient ascent (Xu et al. 2021, "Fast and Complete"; Wang et al. 2021,
"Beta-CROWN"); the first layer's ReLUs have planes over the inputs for upper lines. The ascent runs
in float32: it only chooses. What is returned is computed once more from the choice in float64 with
outward rounding, by `backward.backward_bounds`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from tasks.core.arrays import BoolArray, Float32Array, FloatArray, IntArray
from tasks.core.bounds.backward import PlaneTerms, backward_bounds
from tasks.core.bounds.relaxations import Bounds, Relaxation
from tasks.core.bounds.rounding import RoundingScales, gamma, rounding_scales
from tasks.core.dual.ascent import Limits, Optimised, ascended
from tasks.core.dual.choices import Choices, joined
from tasks.core.dual.curve_choices import chosen_slopes, middle_shares
from tasks.core.dual.float32_passes import Passes
from tasks.core.dual.input_planes import InputPlanes, Spans
from tasks.core.dual.pass_data import LiveUnits
from tasks.core.dual.subproblems import Subproblems
from tasks.core.networks.activation import Activation
from tasks.core.networks.network import ReluNetwork
from tasks.core.networks.threads import in_threads, parts
from tasks.core.properties.box import Box

MAX_ENTRIES = 2**22  # units of a batch of subproblems: 16 MB in float32, and a dozen such live
NARROW = 2.0**-30  # of a unit's values, that is not worth a split
CURVE_ENTRIES = 32  # of a curved unit, which has a table
AT_ONCE = 64  # subproblems in a pass, whose numbers caches hold


class DualProblem:
    """A network over a box, with bounds on its hidden layers: what all subproblems share.

    Or over as many boxes as there are subproblems, one for each.
    """

    @np.errstate(over="ignore", invalid="ignore")  # what float32 cannot hold proves nothing
    def __init__(
        self,
        network: ReluNetwork,
        box: Box,
        hidden: Sequence[Bounds],
        *,
        with_planes: bool = True,
    ) -> None:
        self.network, self.box, self.hidden = network, box, list(hidden)
        widths = [len(layer.bias) for layer in network.layers[:-1]]
        ends = np.cumsum([0, *widths])
        self.layers = [slice(int(a), int(b)) for a, b in pairwise(ends)]
        self.num_units = int(ends[-1])
        none = Activation.of_relus(np.zeros(0, dtype=bool))
        self.activation = Activation.joined([*network.activations, none])
        entries = self.num_units + CURVE_ENTRIES * int(self.activation.curved.sum())
        self.max_batch = max(1, MAX_ENTRIES // max(1, entries))  # of subproblems at once
        empty = np.zeros((len(box), 0))
        self.bounds = Bounds(
            np.concatenate([empty, *(b.lower for b in hidden)], axis=1),
            np.concatenate([empty, *(b.upper for b in hidden)], axis=1),
        )
        relus = ~(self.activation.linear | self.activation.movable)
        dead = (self.bounds.upper <= 0).all(axis=0) & relus
        live = [~dead[at] for at in self.layers]
        self.planes, rough = self._planes(live) if hidden and with_planes else (None, None)
        self.planed = np.zeros(self.num_units, dtype=bool)  # whose upper lines are planes
        if self.planes is not None:
            self.planed[self.layers[0]] = live[0]
        self.units = LiveUnits(network.activations, box, live, rough)
        self.passes = Passes(network, self.units)
        self.scales: RoundingScales = rounding_scales(network, hidden, box)

    def _planes(self, live: Sequence[BoolArray]) -> tuple[InputPlanes | None, InputPlanes | None]:
        """Of the first layer's live units, in float64 and float32; none where they do not pay."""
        every = np.ones(self.network.num_inputs, dtype=bool)
        layer = self.network.layers[0].restricted(live[0], every)
        spans = Spans.of(layer.matrix)
        if not spans.pay:
            return None, None
        double, single = (InputPlanes(layer, spans, self.box, t) for t in (np.float64, np.float32))
        return double, single

    def splittable(self, bounds: Bounds) -> BoolArray:
        """Units whose split makes a relaxation tighter, (batch, units)."""
        width = bounds.upper - bounds.lower
        is_wide = width > NARROW * (1 + bounds.magnitude)
        relus = self._open_relus(bounds)
        return relus | (self.activation.movable & is_wide) if self.activation.is_curved else relus

    def _open_relus(self, bounds: Bounds) -> BoolArray:
        """The ReLUs that may change phase, (batch, units)."""
        unstable = bounds.unstable(self.activation)
        return unstable & ~self.activation.curved if self.activation.is_curved else unstable

    def initial_choices(self, problems: Subproblems) -> Choices:
        """CROWN's slopes, no multipliers, equal weights."""
        relaxation = Relaxation.of_relus(problems.bounds, self.activation)
        lower, uppers = relaxation.lower_slope, np.zeros((1, 0))
        if self.activation.is_curved:
            shares, uppers = middle_shares(problems.bounds, self.activation)
            lower = np.where(self.activation.curved, shares, lower)
        count, num_rows = problems.offsets.shape
        shape = (count, self.num_units)
        chords = relaxation.upper_slope[:, self.layers[0] if self.planes else slice(0)]
        return Choices(
            np.broadcast_to(lower.astype(np.float32), shape),
            np.zeros(shape, dtype=np.float32),
            np.full((count, num_rows), 1 / num_rows, dtype=np.float32),
            np.tile(chords.astype(np.float32), (count // len(chords), 1)),
            np.zeros((count, self.network.num_inputs if self.planes else 0), dtype=np.float32),
            np.broadcast_to(uppers.astype(np.float32), (count, uppers.shape[1])),
        )

    @np.errstate(over="ignore", invalid="ignore")
    def certified(self, problems: Subproblems, choices: Choices) -> FloatArray:
        """The bounds that `choices` give, (batch,), in float64 and rounded outwards.

        Sound for any finite choices: slopes are moved into [0, 1], multipliers and weights to
        what is not negative.
        """
        bounds = problems.bounds
        relaxation = Relaxation.of_relus(bounds, self.activation)
        slopes = np.clip(choices.slopes.astype(np.float64), 0, 1)
        unstable = self._open_relus(bounds)
        has_plane = unstable & self.planed
        relaxation = replace(
            relaxation,
            lower_slope=np.where(unstable, slopes, relaxation.lower_slope),
            upper_slope=np.where(has_plane, 0, relaxation.upper_slope),
            upper_intercept=np.where(has_plane, 0, relaxation.upper_intercept),
        )
        if self.activation.is_curved:
            curves = chosen_slopes(bounds, self.activation, choices.slopes, choices.uppers)
            relaxation = relaxation.with_curves(bounds, self.activation, curves)
        multipliers = choices.multipliers.astype(np.float64)
        if self.activation.is_curved:
            multipliers = np.where(self.activation.movable, multipliers, np.maximum(multipliers, 0))
        else:
            multipliers = np.maximum(multipliers, 0)
        terms: FloatArray = multipliers * problems.signs
        weights = np.maximum(choices.weights.astype(np.float64), 0)
        weights /= weights.sum(axis=1, keepdims=True)
        rows = (weights[:, None, :] @ problems.rows)[:, 0]
        offsets = (weights * problems.offsets).sum(axis=1)
        lower = backward_bounds(
            self.network,
            rows,
            [bounds[:, at] for at in self.layers],
            [relaxation[:, at] for at in self.layers],
            self.box,
            self.scales,
            [terms[:, at] for at in self.layers],
            self._split_offsets(problems, terms),
            self._plane_terms(has_plane, choices),
        )
        return self._outwards(lower + offsets, weights, problems)

    def _split_offsets(self, problems: Subproblems, terms: FloatArray) -> list[FloatArray] | None:
        """What the terms of splits add for where curved units are split, (batch, units)."""
        if not self.activation.is_curved:
            return None
        offsets: FloatArray = terms * problems.split_points(self.activation, terms)
        return [offsets[:, at] for at in self.layers]

    def _plane_terms(self, has_plane: BoolArray, choices: Choices) -> PlaneTerms | None:
        """What the planes add to a backward pass in float64, rounded outwards.

        The top of a plane and the sums over inputs and units are of terms whose magnitudes add up
        to at most those behind `affine[0]`; with centre and radius there are fewer than eight.
        """
        planes = self.planes
        if planes is None:
            return None
        first = self.layers[0]
        live = np.flatnonzero(self.planed[first])
        levels, tilts = choices.levels[:, live].T, choices.tilts.T

        def terms(negative: FloatArray) -> tuple[FloatArray, FloatArray]:
            used = np.where(has_plane[:, first], negative, 0)
            found = planes.weighted(
                used[:, live].T, levels.astype(np.float64), tilts.astype(np.float64)
            )
            error = (-used * self.scales.affine[0]).sum(axis=1)
            return found.rows.T, found.constants - 8 * error

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
        outputs = (count * rows * self.scales.affine[-1]).sum(axis=1)  # gamma is in the scales
        offsets = gamma(count + 8) * (weights * np.abs(problems.offsets)).sum(axis=1)
        total: FloatArray = bounds - outputs - offsets - gamma(count + 8) * np.abs(bounds)
        return np.where(np.isnan(total), -np.inf, total)

    def estimated(self, problems: Subproblems, choices: Choices) -> Float32Array:
        """The bounds that `choices` give in float32, (batch,): to compare, not to prove."""
        found = in_threads(
            lambda at: self.passes.backward(*self.units.data(problems[at], choices[at], at)).lower,
            parts(len(problems), AT_ONCE),
        )
        return np.concatenate(found)

    def estimated_splits(
        self, problems: Subproblems, choices: Choices, units: IntArray
    ) -> Float32Array:
        """The same where each of some ReLUs, (batch, n), is split: (2, batch, n), z >= 0 first."""
        places = np.zeros(self.num_units, dtype=np.int64)
        places[self.units.live] = np.arange(len(self.units.live))

        def bounded(at: slice) -> Float32Array:
            data, live = self.units.data(problems[at], choices[at], at)
            return self.passes.split_bounds(data, live, places[units[at]])

        found = in_threads(bounded, parts(len(problems), max(1, AT_ONCE // units.shape[1])))
        return np.concatenate(found, axis=1)

    def optimise(self, problems: Subproblems, start: Choices, limits: Limits) -> Optimised:
        """Gradient ascent from `start`, of each bound, within `limits`.

        Bounds that are above `stop_above` are left where they are: their `points` and `scores` may
        be those of any choices.
        """
        found = in_threads(
            lambda at: ascended(self.passes, problems[at], start[at], at, limits),
            parts(len(problems), AT_ONCE),
        )
        return Optimised(
            np.concatenate([part.estimates for part in found]),
            joined([part.choices for part in found]),
            np.concatenate([part.points for part in found]),
            np.concatenate([part.scores for part in found]),
        )
