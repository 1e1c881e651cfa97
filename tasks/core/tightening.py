"""Hidden layers' bounds made tighter: by optimised slopes, and by the splits of a subproblem.

A split's constraint cuts the box, so it also narrows what other units can reach; with its
multiplier in the bounds of the hidden units themselves the chords of the whole subtree get shorter
(the same dual as beta-CROWN's, applied to intermediate bounds).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.core.bounds import Bounds
from tasks.core.dual_bounds import DualProblem, SignArray, Subproblems
from tasks.core.network import Affine, ReluNetwork
from tasks.core.specification import LinfBall

MAX_ROWS = 1024  # bounded at once


class Tightening:
    """Bounds on the hidden units of a network over one box, layer after layer."""

    def __init__(self, network: ReluNetwork, box: LinfBall, hidden: Sequence[Bounds]) -> None:
        self.problems = [
            DualProblem(_up_to(network, depth), box, hidden[: depth + 1])
            for depth in range(len(hidden))
        ]
        self.linear = network.linear

    def tightened(
        self, bounds: Bounds, signs: SignArray, units: NDArray[np.bool_], num_steps: int
    ) -> Bounds:
        """Sound bounds where the splits hold, never looser than `bounds`; one subproblem.

        `bounds` and `signs` have shape (1, units of all hidden layers), `units` marks those worth
        the work, (units,). A lower bound above its upper one shows that the subproblem is empty.
        """
        lower, upper = bounds.lower.copy(), bounds.upper.copy()
        for depth, problem in enumerate(self.problems):
            at = problem.layers[depth]
            known = slice(0, at.stop)
            if depth == 0 and not signs[:, known].any():
                continue  # intervals are exact
            current = Bounds(lower[:, known], upper[:, known])
            wanted = units[at] & current[:, at].unstable(self.linear[depth])[0]
            chosen = np.flatnonzero(wanted)
            for start in range(0, len(chosen), MAX_ROWS // 2):
                some = chosen[start : start + MAX_ROWS // 2]
                found = _bounds_of(problem, some, current, signs[:, known], num_steps)
                columns = at.start + some  # where the new bound is NaN the old one stays
                lower[0, columns] = np.fmax(lower[0, columns], found.lower)
                upper[0, columns] = np.fmin(upper[0, columns], found.upper)
        return Bounds(lower, upper)


def _bounds_of(
    problem: DualProblem,
    units: NDArray[np.intp],
    bounds: Bounds,
    signs: SignArray,
    num_steps: int,
) -> Bounds:
    rows = np.eye(problem.network.num_outputs)[units]
    both = np.concatenate([rows, -rows])[:, None, :]
    problems = Subproblems(both, np.zeros((len(both), 1)), signs, bounds)
    start = problem.initial_choices(problems)
    found = problem.optimise(problems, start, num_steps).lower
    return Bounds(found[: len(units)], -found[len(units) :])


def _up_to(network: ReluNetwork, depth: int) -> ReluNetwork:
    """The pre-activations of hidden layer `depth`, as a last hidden layer of linear units.

    So the constraints of splits in that very layer have a place.
    """
    width = len(network.layers[depth].bias)
    return ReluNetwork(
        (*network.layers[: depth + 1], Affine(np.eye(width), np.zeros(width))),
        (*network.linear[:depth], np.ones(width, dtype=bool)),
    )
