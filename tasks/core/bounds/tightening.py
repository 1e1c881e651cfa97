"""Hidden layers' bounds made tighter by optimised slopes and planes (alpha-CROWN's first half)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.core.bounds.choices import Choices
from tasks.core.bounds.dual import DualProblem
from tasks.core.bounds.relaxations import Bounds
from tasks.core.bounds.subproblems import Subproblems
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box

Settled = Callable[[int, NDArray[np.intp], Choices], Choices]

MAX_ROWS = 256  # bounded at once


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
        part = network.up_to(depth)
        problem = DualProblem(part, box, tightened, with_planes=with_planes)
        lower, upper = hidden[depth].lower.copy(), hidden[depth].upper.copy()
        units = np.flatnonzero(hidden[depth].unstable(network.activations[depth])[0])
        size = max(1, min(MAX_ROWS, problem.max_batch) // 2)
        for start in range(0, len(units), size):
            if time.monotonic() > deadline:
                break
            some = units[start : start + size]
            found = _bounds_of(problem, some, num_steps, deadline, settled)
            lower[0, some] = np.fmax(lower[0, some], found.lower)  # the old one instead of NaN
            upper[0, some] = np.fmin(upper[0, some], found.upper)
        tightened.append(Bounds(lower, upper))
    return tightened


def _bounds_of(
    problem: DualProblem,
    units: NDArray[np.intp],
    num_steps: int,
    deadline: float,
    settled: Settled | None,
) -> Bounds:
    rows = np.zeros((len(units), problem.network.num_outputs))
    rows[np.arange(len(units)), units] = 1
    both = np.concatenate([rows, -rows])[:, None, :]
    signs = np.zeros((1, problem.num_units), dtype=np.int8)
    problems = Subproblems(both, np.zeros((len(both), 1)), signs, problem.bounds)
    start = problem.initial_choices(problems)
    found = problem.optimise(problems, start, num_steps, deadline=deadline)
    lower = found.lower
    if settled is not None:
        choices = settled(len(problem.layers), units, found.choices)
        lower = problem.certified(problems, choices)
    return Bounds(lower[: len(units)], -lower[len(units) :])
