"""Branch and bound on the phases of unstable ReLUs, with β-CROWN bounds.

Complete but for time and rounding: a split adds z >= 0 or z <= 0 to a subproblem, which makes that
unit linear, and its constraint enters the bound through a multiplier (Wang et al. 2021,
"Beta-CROWN"). The subproblem with the least bound goes first. Units are chosen by filtered strong
branching (De Palma et al. 2021, "Improved Branch and Bound for Neural Network Verification via
Lagrangian Decomposition"): the best few by what their chords cost are tried with one pass each.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.core.bounds import Bounds
from tasks.core.dual_bounds import Choices, DualProblem, Optimised, SignArray, Subproblems
from tasks.core.tightening import Tightening
from tasks.core.network import ReluNetwork
from tasks.core.specification import FloatArray, LinfBall, UnsafeRegion

BATCH = 64
CANDIDATES = 4  # units tried with a pass each
ROOT_STEPS = 20
STEPS = 10


@dataclass(frozen=True, eq=False)
class Search:
    """How a search ended.

    Attributes:
        proved: whether every subproblem was closed: no region is reached.
        candidate: a point whose float64 outputs reach a region, shape (inputs,), or None.
        lower: the least proved bound over all open and closed subproblems.
        domains: how many subproblems were bounded.
    """

    proved: bool
    candidate: FloatArray | None
    lower: float
    domains: int


@dataclass(frozen=True, eq=False)
class _Domain:
    region: int
    signs: SignArray
    bounds: Bounds  # (1, units)
    depth: int
    parent_lower: float
    tight_depth: int
    choices: Choices  # a batch of one
    scores: NDArray[np.float32]


class PhaseSearch:
    """The search over one box and the regions that share it."""

    def __init__(
        self,
        network: ReluNetwork,
        box: LinfBall,
        regions: Sequence[UnsafeRegion],
        hidden: Sequence[Bounds],
    ) -> None:
        self.network, self.box, self.regions = network, box, regions
        self.problem = DualProblem(network, box, hidden)
        self.tightening = Tightening(network, box, hidden)
        self.ntight=0; self.ttight=0
        self.heap: list[tuple[float, int, _Domain]] = []
        self.domains = 0
        self.closed = np.inf
        self.candidate: FloatArray | None = None

    def run(self, deadline: float) -> Search:
        """Bounds and splits until all is closed, a point is found, or the deadline passes."""
        self._bound_roots()
        while self.heap and self.candidate is None and time.monotonic() < deadline:
            batch = [heapq.heappop(self.heap) for _ in range(min(BATCH, len(self.heap)))]
            parents = self._tighten([(low, domain) for low, _, domain in batch])
            if not parents: continue
            units = self._branching_units(parents)
            self._bound_children(parents, units)
        open_lower = min((entry[0] for entry in self.heap), default=np.inf)
        return Search(
            proved=not self.heap and self.candidate is None,
            candidate=self.candidate,
            lower=float(min(open_lower, self.closed)),
            domains=self.domains,
        )

    def _bound_roots(self) -> None:
        signs = np.zeros((len(self.regions), self.problem.num_units), dtype=np.int8)
        self.root_lower = []
        for index in range(len(self.regions)):
            problems = self._subproblems([index], signs[:1], self.problem.bounds)
            start = self.problem.initial_choices(problems)
            found = self.problem.optimise(problems, start, ROOT_STEPS)
            self._file([index], found, problems, None)
            self.root_lower.append(float(found.lower[0]))

    def _subproblems(self, regions: Sequence[int], signs: SignArray, bounds: Bounds) -> Subproblems:
        """Regions padded to one number of rows by repeating their last."""
        most = max(len(self.regions[index].rows) for index in regions)
        places = [
            np.minimum(np.arange(most), len(self.regions[index].rows) - 1) for index in regions
        ]
        return Subproblems(
            np.stack([self.regions[i].rows[at] for i, at in zip(regions, places, strict=True)]),
            np.stack([self.regions[i].offsets[at] for i, at in zip(regions, places, strict=True)]),
            signs,
            bounds,
        )

    def _file(
        self,
        regions: Sequence[int],
        found: Optimised,
        problems: Subproblems,
        parents,
    ) -> None:
        """Closed subproblems are dropped, open ones queued, their points tried."""
        self.domains += len(regions)
        self._try_points(found, problems)
        for row, lower in enumerate(found.lower):
            if lower > 0:
                self.closed = min(self.closed, float(lower))
                continue
            at = slice(row, row + 1)
            domain = _Domain(regions[row], problems.signs[row], problems.bounds[at], 0 if parents is None else parents[row//2].depth+1, 0, 0 if parents is None else parents[row//2].tight_depth, found.choices[at], found.scores[row])
            heapq.heappush(self.heap, (float(lower), self.domains + row, domain))

    def _tighten(self, batch):
        out = []
        for low, d in batch:
            gain = max((low - self.root_lower[d.region]) / max(d.depth, 1), 1e-9)
            if d.depth - d.tight_depth >= EVERY and -low / gain > LEVELS:
                t = time.monotonic()
                b = self.tightening.tightened(d.bounds, d.signs[None], d.scores > 0, TSTEPS)
                self.ntight += 1
                self.ttight += time.monotonic() - t
                if (b.lower > b.upper).any():
                    continue
                d = replace(d, bounds=b, tight_depth=d.depth)
            out.append(d)
        return out

    def _refresh(self, bounds, split):
        from tasks.core.bounds import linear_lower_bounds
        net = self.network
        for row in range(len(bounds.lower)):
            layer = next(k for k, at in enumerate(self.problem.layers) if at.start <= split[row] < at.stop)
            for k in range(layer + 1, len(self.problem.layers)):
                at = self.problem.layers[k]
                hidden = [Bounds(bounds.lower[row:row+1, a], bounds.upper[row:row+1, a]) for a in self.problem.layers[:k]]
                cur = Bounds(bounds.lower[row:row+1, at], bounds.upper[row:row+1, at])
                units = np.flatnonzero(cur.unstable(net.linear[k])[0])
                if not len(units): continue
                eye = np.eye(at.stop-at.start)[units]
                both = linear_lower_bounds(net, k, np.vstack([eye, -eye]), hidden, self.box)[0]
                n = len(units); idx = at.start + units
                bounds.lower[row, idx] = np.maximum(bounds.lower[row, idx], both[:n])
                bounds.upper[row, idx] = np.minimum(bounds.upper[row, idx], -both[n:])

    def _try_points(self, found: Optimised, problems: Subproblems) -> None:
        points = np.clip(found.points.astype(np.float64), self.box.lower, self.box.upper)
        outputs = self.network(points)
        excess = ((problems.rows @ outputs[:, :, None])[..., 0] + problems.offsets).max(axis=1)
        if excess.min() <= 0:
            self.candidate = points[excess.argmin()]

    def _branching_units(self, parents: Sequence[_Domain]) -> NDArray[np.intp]:
        """The unit to split, for each parent."""
        scores = np.stack([domain.scores for domain in parents])
        if REFRESH:
            for k in range(len(self.problem.layers)-1):
                first = scores[:, self.problem.layers[k]]
                has = (first > 0).any(axis=1)
                for later in range(k+1, len(self.problem.layers)):
                    scores[has, self.problem.layers[later]] *= FACTOR
        if PERLAYER:
            picks = []
            for at in self.problem.layers:
                c = min(CANDIDATES // len(self.problem.layers), at.stop - at.start)
                picks.append(at.start + np.argpartition(-scores[:, at], c - 1, axis=1)[:, :c])
            units = np.concatenate(picks, axis=1)
            count = units.shape[1]
        else:
            count = min(CANDIDATES, scores.shape[1])
            units = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        repeated = np.repeat(np.arange(len(parents)), count)
        worst = []
        for sign in (1, -1):
            signs = np.stack([domain.signs for domain in parents])[repeated]
            signs[np.arange(len(signs)), units.ravel()] = sign
            problems = self._subproblems([parents[i].region for i in repeated], signs, clipped(_joined([d.bounds for d in parents])[repeated], signs))
            choices = _stacked([domain.choices for domain in parents])[repeated]
            worst.append(self.problem.quick(problems, choices).reshape(units.shape))
        possible = np.take_along_axis(scores, units, axis=1) > 0
        gain = np.where(possible, np.minimum(*worst) + 0.1*np.maximum(*worst), -np.inf)
        chosen = gain.argmax(axis=1)
        LOG.append((units[np.arange(len(parents)), chosen] >= self.problem.layers[0].stop).mean())
        return units[np.arange(len(parents)), chosen]

    def _bound_children(self, parents: Sequence[_Domain], units: NDArray[np.intp]) -> None:
        signs = np.repeat(np.stack([domain.signs for domain in parents]), 2, axis=0)
        signs[0::2][np.arange(len(parents)), units] = 1
        signs[1::2][np.arange(len(parents)), units] = -1
        regions = np.repeat([domain.region for domain in parents], 2).tolist()
        split = np.repeat(units, 2)
        bounds = clipped(_joined([d.bounds for d in parents])[np.repeat(np.arange(len(parents)), 2)], signs)
        if REFRESH:
            self._refresh(bounds, split)
        problems = self._subproblems(regions, signs, bounds)
        choices = _stacked([domain.choices for domain in parents])
        start = choices[np.repeat(np.arange(len(parents)), 2)]
        found = self.problem.optimise(problems, start, STEPS)
        self._file(regions, found, problems, parents)


REFRESH = False
EVERY=4
LEVELS=6
TSTEPS=12
PERLAYER=0
LOG=[]
FACTOR = 0.01

def clipped(bounds, signs):
    return Bounds(np.where(signs > 0, np.maximum(bounds.lower, 0), bounds.lower), np.where(signs < 0, np.minimum(bounds.upper, 0), bounds.upper))

def _joined(parts):
    return Bounds(np.concatenate([p.lower for p in parts]), np.concatenate([p.upper for p in parts]))

def _stacked(choices: Sequence[Choices]) -> Choices:
    return Choices(
        np.concatenate([choice.slopes for choice in choices]),
        np.concatenate([choice.multipliers for choice in choices]),
        np.concatenate([choice.weights for choice in choices]),
    )
