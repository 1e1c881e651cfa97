"""Branch and bound on the phases of unstable ReLUs, with beta-CROWN bounds.

Curved units, and the factors of products, are split by value, in the middle of their bounds: each
half has lines of its own, and the constraint z >= p or z <= p its multiplier (Shi et al. 2024,
"Neural Network Verification with Branch-and-Bound for General Nonlinearities").

Complete but for time and rounding: a split adds z >= 0 or z <= 0 to a subproblem, which makes that
unit linear, and its constraint enters the bound through a multiplier (Wang et al. 2021,
"Beta-CROWN"). The subproblem with the least bound goes first. Units are chosen by filtered strong
branching (De Palma et al. 2021, "Improved Branch and Bound for Neural Network Verification via
Lagrangian Decomposition"): in every layer the few whose relaxation costs most are tried with one
pass each.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import FloatArray
from tasks.core.attacks.falsification import padded_rows, reaches
from tasks.core.bounds.relaxations import Bounds
from tasks.core.dual.ascent import Limits, Optimised
from tasks.core.dual.choices import Choices, joined
from tasks.core.dual.dual_problem import DualProblem
from tasks.core.dual.subproblems import SignArray, Subproblems
from tasks.core.dual.tightening import tightened_hidden
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search.leaves import programmed
from tasks.core.search.outcome import BestFirst, Search, worst_first
from tasks.core.search.record import Record

BATCH = 64
CANDIDATES = 12  # units tried with two passes each, over all layers
CANDIDATES_OF_A_LAYER = (2, 4)  # at least, and at most
ROOT_STEPS = 20
STEPS = 6
TIGHTENING_SHARE = 0.4  # of the time, for hidden bounds
LAST_STEPS = 300  # where nothing is left to split


@dataclass(frozen=True, eq=False)
class _Node:
    """An open subproblem; `bounds` and `choices` are batches of one.

    `place` is its number in the record, if there is one; `lower` is proved.
    """

    region: int
    place: int
    signs: SignArray
    bounds: Bounds
    choices: Choices
    scores: NDArray[np.float32]
    lower: float


class PhaseSearch(BestFirst):
    """See `BestFirst`; in `heap`: (bound, order, node).

    A bound that is not above 0 is an estimate: only what may exclude a region is proved.
    """

    def __init__(
        self,
        network: ReluNetwork,
        box: Box,
        regions: Sequence[UnsafeRegion],
        hidden: Sequence[Bounds],
        goal: float = 0.0,
        record: Record | None = None,
        *,
        with_planes: bool = True,
    ) -> None:
        super().__init__(network, box, regions, goal)
        self.record = record
        self.problem = DualProblem(network, box, hidden, with_planes=with_planes)
        self.rows, self.offsets = padded_rows(regions)
        self.root_lower = np.full(len(regions), -np.inf)

    def run(self, deadline: float) -> Search:
        """Bounds and splits until all is closed, a point is found, or the deadline passes."""
        if self.subproblems == 0:
            self.bound_roots(deadline)
        most = max(1, min(BATCH, self.problem.max_batch // 2))
        while self.goes_on(deadline):
            nodes = [entry[-1] for entry in worst_first(self.heap, most)]
            nodes, units = self._without_stuck(nodes, self._branching_units(nodes), deadline)
            if nodes:
                self._bound_children(nodes, units, deadline)
                self.attacks(deadline)
        lower = min((entry[-1].lower for entry in self.heap), default=np.inf)
        return self.ended(lower, "branch and bound", "", "without a unit to split")

    def bound_roots(self, deadline: float) -> None:
        """Bounds each region without a split, into `root_lower`."""
        size = self.problem.max_batch
        for start in range(0, len(self.regions), size):
            regions = list(range(len(self.regions)))[start : start + size]
            signs = np.zeros((len(regions), self.problem.num_units), dtype=np.int8)
            bounds = self.problem.bounds[np.zeros(len(regions), dtype=np.intp)]
            problems = self._problems(regions, signs, bounds)
            choices = self.problem.initial_choices(problems)
            limits = Limits(ROOT_STEPS, self.goal.bound, deadline)
            found = self.problem.optimise(problems, choices, limits)
            found, places = self._settled(found), [0] * len(regions)
            if self.record is not None:
                places = self.record.places(len(regions))
                self.record.roots += places
            self.root_lower[regions] = self.problem.certified(problems, found.choices)
            nothing = np.full(len(regions), -np.inf)
            self._file(problems, found, regions, places, self.root_lower[regions], nothing)

    def _problems(self, regions: Sequence[int], signs: SignArray, bounds: Bounds) -> Subproblems:
        """Regions padded to one number of rows."""
        rows = np.array(regions)
        return Subproblems(self.rows[rows], self.offsets[rows], signs, bounds)

    def _settled(self, found: Optimised) -> Optimised:
        """With choices as the record keeps them."""
        if self.record is None:
            return found
        return replace(found, choices=self.record.settled(found.choices))

    def _file(
        self,
        problems: Subproblems,
        found: Optimised,
        regions: Sequence[int],
        places: Sequence[int],
        proved: FloatArray,
        known: FloatArray,
    ) -> None:
        """Closed subproblems are dropped, open ones queued, their points tried.

        `proved`, (batch,), is what the choices found prove, `known` what holds of them already.
        """
        self.subproblems += len(regions)
        self._try_points(found, problems, regions)
        if self.record is not None:
            for row in np.flatnonzero(proved > 0).tolist():
                self.record.exclude(places[row], found.choices[row : row + 1])
        lower = np.fmax(proved, known)
        keys = np.where(lower > 0, lower, np.minimum(found.estimates, 0))
        for row in range(len(regions)):
            if lower[row] > self.goal.bound:
                self.closed_lower = min(self.closed_lower, float(lower[row]))
                continue
            at = slice(row, row + 1)
            node = _Node(
                regions[row],
                places[row],
                problems.signs[row],
                problems.bounds[at],
                found.choices[at],
                found.scores[row],
                float(lower[row]),
            )
            heapq.heappush(self.heap, (float(keys[row]), next(self.order), node))

    def _try_points(self, found: Optimised, problems: Subproblems, regions: Sequence[int]) -> None:
        points = np.clip(found.points.astype(np.float64), self.box.lower, self.box.upper)
        outputs = self.network(points)
        excess = ((problems.rows @ outputs[:, :, None])[..., 0] + problems.offsets).max(axis=1)
        deepest = slice(int(excess.argmin()), int(excess.argmin()) + 1)
        self.met(regions[deepest.start], points[deepest], excess[deepest])

    def _without_stuck(
        self, nodes: list[_Node], units: NDArray[np.intp], deadline: float
    ) -> tuple[list[_Node], NDArray[np.intp]]:
        """Nodes with no unit left to split are bounded once more, or stay open.

        By the multipliers of linear programming, then by many steps of ascent. Those that the
        deadline leaves are queued again.
        """
        keep = [row for row, unit in enumerate(units) if unit >= 0]
        for node in (nodes[row] for row, unit in enumerate(units) if unit < 0):
            if time.monotonic() > deadline:
                heapq.heappush(self.heap, (node.lower, next(self.order), node))
                continue
            problems = self._problems([node.region], node.signs[None], node.bounds)
            region, signs = self.regions[node.region], node.signs
            point, choices = None, node.choices
            if not self.network.is_curved:
                point, choices = programmed(self.problem, region, signs, node.bounds, choices)
            choices = choices if self.record is None else self.record.settled(choices)
            lower = float(np.fmax(self.problem.certified(problems, choices)[0], node.lower))
            if not lower > 0:
                limits = Limits(LAST_STEPS, deadline=deadline)
                found = self.problem.optimise(problems, node.choices, limits)
                choices = self._settled(found).choices
                lower = float(np.fmax(lower, self.problem.certified(problems, choices)[0]))
            if self.record is not None and lower > 0:
                self.record.exclude(node.place, choices)
            self.closed_lower = min(self.closed_lower, lower)
            if lower > 0:
                continue
            self.stuck += 1
            if point is not None and reaches(self.network, self.regions[node.region], point):
                self.candidate = point
        return [nodes[row] for row in keep], units[keep]

    def _branching_units(self, nodes: Sequence[_Node]) -> NDArray[np.intp]:
        """The unit to split, for each node; -1 where none is left."""
        if self.problem.num_units == 0:
            return np.full(len(nodes), -1)
        scores = np.stack([node.scores for node in nodes])
        if self.network.is_curved:
            return self._costliest_units(scores, nodes)
        units = self._candidate_units(scores)
        bounds = _joined_bounds([node.bounds for node in nodes])
        problems = self._problems(
            [node.region for node in nodes], np.stack([node.signs for node in nodes]), bounds
        )
        sides = self.problem.estimated_splits(problems, joined([n.choices for n in nodes]), units)
        possible = np.take_along_axis(self.problem.splittable(bounds), units, axis=1)
        gain = np.minimum(*sides) + 0.1 * np.maximum(*sides)
        gain = np.where(
            possible, np.nan_to_num(gain, nan=float(-np.finfo(np.float32).max)), -np.inf
        )
        chosen = gain.argmax(axis=1)
        rows = np.arange(len(nodes))
        return np.where(possible.any(axis=1), units[rows, chosen], -1)

    def _costliest_units(
        self, scores: NDArray[np.float32], nodes: Sequence[_Node]
    ) -> NDArray[np.intp]:
        """Without a pass for each: tables of all curved units would cost more than that tells."""
        splittable = self.problem.splittable(_joined_bounds([node.bounds for node in nodes]))
        left = np.where(splittable, scores, -np.inf)
        return np.where(splittable.any(axis=1), left.argmax(axis=1), -1)

    def _split(self, bounds: Bounds, units: NDArray[np.intp], sign: int) -> Bounds:
        """Each row's bounds where its unit is split: a ReLU at 0, others in the middle."""
        rows = np.arange(len(units))
        lower, upper = bounds.lower.copy(), bounds.upper.copy()
        low, high = lower[rows, units], upper[rows, units]
        point = np.where(self.problem.activation.movable[units], low + (high - low) / 2, 0.0)
        if sign > 0:
            lower[rows, units] = np.maximum(low, point)
        else:
            upper[rows, units] = np.minimum(high, point)
        return Bounds(lower, upper)

    def _candidate_units(self, scores: NDArray[np.float32]) -> NDArray[np.intp]:
        """In every layer the units whose relaxation costs most, (nodes, candidates)."""
        layers = self.problem.layers
        share = int(np.clip(CANDIDATES // len(layers), *CANDIDATES_OF_A_LAYER))
        picks = []
        for at in layers:
            count = min(share, at.stop - at.start)
            best = np.argpartition(-scores[:, at], count - 1, axis=1)[:, :count]
            picks.append(at.start + best)
        return np.concatenate(picks, axis=1)

    def _bound_children(
        self, nodes: Sequence[_Node], units: NDArray[np.intp], deadline: float
    ) -> None:
        rows = np.arange(len(nodes))
        twice = np.repeat(rows, 2)
        signs = np.stack([node.signs for node in nodes])[twice]
        signs[2 * rows, units], signs[2 * rows + 1, units] = 1, -1
        before = _joined_bounds([node.bounds for node in nodes])
        halves = [self._split(before, units, sign) for sign in (1, -1)]
        order = np.stack([rows, len(nodes) + rows], axis=1).ravel()
        bounds = _joined_bounds(halves)[order]
        regions = [nodes[row].region for row in twice.tolist()]
        problems = self._problems(regions, signs, bounds)
        start = joined([node.choices for node in nodes])[twice]
        limits = Limits(STEPS, self.goal.bound, deadline)
        found = self.problem.optimise(problems, start, limits)
        found, places = self._settled(found), [0] * len(twice)
        if self.record is not None:
            parents = [node.place for node in nodes]
            places = self.record.split(parents, units.tolist(), np.zeros(len(units)).tolist())
        proved = np.full(len(twice), -np.inf)
        some = np.flatnonzero(found.estimates > 0)
        if len(some):
            proved[some] = self.problem.certified(problems[some], found.choices[some])
        known = np.array([node.lower for node in nodes])[twice]
        self._file(problems, found, regions, places, proved, known)


def optimised_root(
    network: ReluNetwork,
    box: Box,
    regions: Sequence[UnsafeRegion],
    hidden: Sequence[Bounds],
    num_steps: int,
    deadline: float,
    goal: float = 0.0,
) -> PhaseSearch:
    """alpha-CROWN: a search whose hidden bounds and roots are bounded by optimised choices.

    Its `root_lower` and `problem.hidden` are what alpha-CROWN shows; `run` goes on from there.
    Without steps the hidden bounds stay; they get a share of the time at most.
    """
    now = time.monotonic()
    tightened = hidden
    if num_steps:
        until = now + TIGHTENING_SHARE * (deadline - now)
        tightened = tightened_hidden(network, box, hidden, num_steps, until)
    search = PhaseSearch(network, box, regions, tightened, goal)
    search.bound_roots(deadline)
    return search


def _joined_bounds(parts: Sequence[Bounds]) -> Bounds:
    return Bounds(
        np.concatenate([part.lower for part in parts]),
        np.concatenate([part.upper for part in parts]),
    )
