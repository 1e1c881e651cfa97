"""Hidden layers' bounds made tighter by optimised slopes and planes (alpha-CROWN's first half)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import BoolArray, Float32Array, IntArray
from tasks.core.bounds.relaxations import Bounds
from tasks.core.dual.ascent import Limits
from tasks.core.dual.choices import Choices
from tasks.core.dual.dual_problem import MAX_ENTRIES, DualProblem
from tasks.core.dual.subproblems import Subproblems
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box

Settled = Callable[[int, NDArray[np.intp], Choices], Choices]

MAX_ROWS = 256  # bounded at once
MOST_CANCELLED = 2.0**16  # times |W|, beyond which parts of layers would give up too much


def tightened_hidden(
    network: ReluNetwork,
    box: Box,
    hidden: Sequence[Bounds],
    num_steps: int,
    deadline: float,
    settled: Settled | None = None,
    *,
    with_planes: bool = True,
) -> list[Bounds]:
    """Sound bounds on every hidden layer over one box, never looser than `hidden`.

    The first layer's are exact as they are; in the others, only unstable units are worth the work.
    After `deadline`, in seconds of `time.monotonic`, what is left stays as it is. `settled` gets a
    layer's number, some of its units and the choices behind their bounds, all lower ones first, and
    returns those to be used.
    """
    tightened = list(hidden[:1])
    for depth in range(1, len(hidden)):
        lower, upper = hidden[depth].lower.copy(), hidden[depth].upper.copy()
        chosen = hidden[depth].unstable(network.activations[depth])[0]
        for part in _parts(network, box, tightened, chosen, with_planes):
            if time.monotonic() > deadline:
                break
            found = part.bounds(num_steps, deadline, settled)
            lower[0, part.units] = np.fmax(lower[0, part.units], found.lower)  # instead of NaN
            upper[0, part.units] = np.fmin(upper[0, part.units], found.upper)
        tightened.append(Bounds(lower, upper))
    return tightened


def _parts(
    network: ReluNetwork,
    box: Box,
    hidden: list[Bounds],
    chosen: BoolArray,
    with_planes: bool,
) -> Iterator[_Part]:
    """The chosen units of the layer behind `hidden`, (units,), in problems as small as may be."""
    depth = len(hidden)
    found = network.cones(depth)
    is_whole = found is None or max(network.cancellations[: depth + 1]) > MOST_CANCELLED
    if found is None or is_whole or any(cone.first is not None for cone in found):
        problem = DualProblem(network.up_to(depth), box, hidden, with_planes=with_planes)
        units = np.flatnonzero(chosen)
        size = max(1, min(MAX_ROWS, problem.max_batch) // 2)
        for start in range(0, len(units), size):
            some = units[start : start + size]
            yield _Part(problem, depth, some, some)
        return
    for cone in found:
        part = network.of_cone(cone)
        places, filters = np.nonzero(chosen[cone.units])
        size = max(1, MAX_ENTRIES // (2 * cone.width))
        for start in range(0, len(places), size):
            at, outputs = places[start : start + size], filters[start : start + size]
            reads = [np.tile(read[at], (2, 1)) for read in cone.reads]
            here = box.at(np.zeros(2 * len(at), dtype=np.int64), reads[0])
            near = [bounds[0, read] for bounds, read in zip(hidden, reads[1:], strict=True)]
            problem = DualProblem(part, here, near, with_planes=with_planes)
            units = cone.units[at, outputs]
            yield _Part(problem, depth, units, outputs, _Spread(reads, network, depth))


@dataclass(frozen=True, eq=False)
class _Part:
    """Some units and the problem that they are outputs of.

    Attributes:
        units: of the layer, (n,).
        outputs: of the problem, (n,).
        spread: of choices over what the units read to choices over whole layers, if that is less.
    """

    problem: DualProblem
    depth: int
    units: NDArray[np.intp]
    outputs: NDArray[np.intp]
    spread: _Spread | None = None

    def bounds(self, num_steps: int, deadline: float, settled: Settled | None) -> Bounds:
        """By ascent from CROWN's choices, (n,) each."""
        problem, count = self.problem, len(self.units)
        rows = np.zeros((count, problem.network.num_outputs))
        rows[np.arange(count), self.outputs] = 1
        both = np.concatenate([rows, -rows])[:, None, :]
        signs = np.zeros((1, problem.num_units), dtype=np.int8)
        problems = Subproblems(both, np.zeros((len(both), 1)), signs, problem.bounds)
        start = problem.initial_choices(problems)
        found = problem.optimise(problems, start, Limits(num_steps, deadline=deadline))
        choices = found.choices if settled is None else self._settled(found.choices, settled)
        lower = problem.certified(problems, choices)
        return Bounds(lower[:count], -lower[count:])

    def _settled(self, choices: Choices, settled: Settled) -> Choices:
        if self.spread is None:
            return settled(self.depth, self.units, choices)
        whole = settled(self.depth, self.units, self.spread.whole(choices))
        return self.spread.part(whole)


class _Spread:
    """Between choices over what some units read, for each row, and over whole layers.

    `reads` are of each layer, the inputs first, (rows, s) each.
    """

    def __init__(self, reads: Sequence[IntArray], network: ReluNetwork, depth: int) -> None:
        widths = [len(layer.bias) for layer in network.layers[:depth]]
        starts = np.cumsum([0, *widths])
        units = [start + read for start, read in zip(starts, reads[1:], strict=False)]
        self.places = {
            "slopes": (np.concatenate(units, axis=1), sum(widths)),
            "multipliers": (np.concatenate(units, axis=1), sum(widths)),
            "levels": (reads[1], widths[0]),
            "tilts": (reads[0], network.num_inputs),
        }

    def whole(self, choices: Choices) -> Choices:
        """Zero where nothing is read."""
        parts = {name: _spread(getattr(choices, name), *at) for name, at in self.places.items()}
        return replace(choices, **parts)

    def part(self, choices: Choices) -> Choices:
        """What is read."""
        arrays = {name: (getattr(choices, name), at) for name, (at, _) in self.places.items()}
        parts = {
            name: np.take_along_axis(values, at, axis=1) if values.shape[1] else values
            for name, (values, at) in arrays.items()
        }
        return replace(choices, **parts)


def _spread(values: Float32Array, places: IntArray, size: int) -> Float32Array:
    """At `places` of rows of `size`; where there are no planes, there are no values."""
    if values.shape[1] == 0:
        return values
    result = np.zeros((len(values), size), dtype=values.dtype)
    np.put_along_axis(result, places, values, axis=1)
    return result
