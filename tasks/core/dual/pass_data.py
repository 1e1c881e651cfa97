"""Subproblems in float32, as the passes take them: the units that a box leaves alive.

Arrays are (units, batch), those of a `Choices` as well: then its multipliers are those of the units
in `PassData.split` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import BoolArray, Float32Array, IntArray
from tasks.core.bounds.relaxations import Relaxation
from tasks.core.dual.choices import Choices
from tasks.core.dual.curve_choices import CurveTables
from tasks.core.dual.input_planes import InputPlanes
from tasks.core.dual.subproblems import Subproblems
from tasks.core.networks.activation import Activation
from tasks.core.properties.box import Box


@dataclass(frozen=True, eq=False)
class PassData:
    """A batch of subproblems and the lines of its relaxations.

    Attributes:
        rows, offsets: (batch, m, outputs) and (m, batch).
        split: units that some subproblem has split; `signs` and `ends` are theirs, the latter of
            units that are split by value (see `Subproblems.split_points`).
        open_relus: those whose lines are free; `fixed` has the lower slopes of the others.
        upper_slopes, heights: of the upper lines; 0 of units that have a plane.
        curves: None where no unit is curved.
        center, radius: of the boxes, (inputs, batch) or (inputs, 1).
    """

    rows: Float32Array
    offsets: Float32Array
    split: IntArray
    signs: Float32Array
    ends: tuple[Float32Array, Float32Array]
    open_relus: BoolArray
    fixed: Float32Array
    upper_slopes: Float32Array
    heights: Float32Array
    curves: CurveTables | None
    center: Float32Array
    radius: Float32Array
    planes: InputPlanes | None

    def points(self, choices: Choices) -> Float32Array:
        """The p of each split unit's constraint."""
        terms = self.signs * choices.multipliers
        return np.where(np.where(terms == 0, self.signs, terms) > 0, *self.ends)

    def at(self, columns: IntArray) -> PassData:
        """Of some subproblems, or of some again and again; of a network that is not curved."""

        def part(values: NDArray[Any]) -> Any:
            return values if values.shape[1] == 1 else np.take(values, columns, axis=1)

        return replace(
            self,
            rows=self.rows[columns],
            offsets=self.offsets[:, columns],
            signs=self.signs[:, columns],
            ends=(part(self.ends[0]), part(self.ends[1])),
            open_relus=np.take(self.open_relus, columns, axis=1),
            fixed=np.take(self.fixed, columns, axis=1),
            upper_slopes=np.take(self.upper_slopes, columns, axis=1),
            heights=np.take(self.heights, columns, axis=1),
            center=part(self.center),
            radius=part(self.radius),
            planes=None if self.planes is None else self.planes.at(columns),
        )


class LiveUnits:
    """The hidden units that are not 0 in all of a box, or of one for each subproblem."""

    def __init__(
        self,
        activations: Sequence[Activation],
        box: Box,
        live: Sequence[BoolArray],
        planes: InputPlanes | None,
    ) -> None:
        """`live`, (units,), says which, of each hidden layer.

        `planes` are of the first layer's live units, in float32.
        """
        self.planes, self.masks = planes, list(live)
        self.live = np.flatnonzero(np.concatenate([np.zeros(0, dtype=bool), *live]))
        self.num_units = sum(map(len, live))
        ends = np.cumsum([0, *(int(some.sum()) for some in live)]).tolist()
        self.layers = [slice(a, b) for a, b in pairwise(ends)]
        parts = zip(activations, live, strict=True)
        self.activations = [activation.restricted(some) for activation, some in parts]
        none = Activation.of_relus(np.zeros(0, dtype=bool))
        self.activation = Activation.joined([*self.activations, none])
        self.center = ((box.lower + box.upper) / 2).astype(np.float32).T
        self.radius = ((box.upper - box.lower) / 2).astype(np.float32).T

    def data(
        self, problems: Subproblems, choices: Choices, boxes: slice = slice(None)
    ) -> tuple[PassData, Choices]:
        """In float32, and the choices with the slopes that are in use.

        `boxes` says which boxes are the subproblems', where there is one for each.
        """
        count, activation = len(problems), self.activation
        bounds = problems.bounds[:, self.live]
        relaxation = Relaxation.of_relus(bounds, activation)
        relus = bounds.unstable(activation) & ~activation.curved
        open_relus = _columns(relus, count)
        fixed, upper_slopes, heights = (
            _columns(lines.astype(np.float32), count)
            for lines in (
                relaxation.lower_slope,
                relaxation.upper_slope,
                np.where(activation.curved, 0, relaxation.upper_intercept),
            )
        )
        if self.planes is not None:
            first = self.layers[0]
            upper_slopes[first][open_relus[first]] = 0
            heights[first][open_relus[first]] = 0
        split, signs, ends = self._splits(problems)
        data = PassData(
            problems.rows.astype(np.float32),
            problems.offsets.T.astype(np.float32),
            split,
            signs,
            ends,
            open_relus,
            fixed,
            upper_slopes,
            heights,
            CurveTables(bounds, activation) if activation.is_curved else None,
            self.center if self.center.shape[1] == 1 else self.center[:, boxes],
            self.radius if self.radius.shape[1] == 1 else self.radius[:, boxes],
            None if self.planes is None else self.planes.at(boxes),
        )
        return data, self._live_choices(choices, data)

    def _splits(
        self, problems: Subproblems
    ) -> tuple[IntArray, Float32Array, tuple[Float32Array, Float32Array]]:
        """The units that some subproblem has split, their signs, and `PassData.ends`."""
        all_signs = problems.signs[:, self.live]
        split: IntArray = np.flatnonzero(all_signs.any(axis=0)).astype(np.int64)
        signs = _columns(all_signs[:, split].astype(np.float32), len(problems))
        nothing = np.zeros((1, 1), dtype=np.float32)
        if not self.activation.is_curved:
            return split, signs, (nothing, nothing)
        movable = self.activation.movable[split, None]
        bounds = problems.bounds[:, self.live[split]]
        low, high = (
            np.where(movable, ends.T, 0).astype(np.float32) for ends in (bounds.lower, bounds.upper)
        )
        return split, signs, (low, high)

    def _live_choices(self, choices: Choices, data: PassData) -> Choices:
        count = data.offsets.shape[1]
        is_free = data.open_relus | self.activation.curved[:, None]
        first = self.live[self.layers[0]] if self.planes is not None else slice(0)
        levels = choices.levels[:, first]
        has_uppers = choices.uppers.shape[1] > 0
        return Choices(
            np.where(is_free, _columns(choices.slopes[:, self.live], count), data.fixed),
            _columns(choices.multipliers[:, self.live[data.split]], count),
            _columns(choices.weights, count),
            _columns(levels, count),
            _columns(choices.tilts, count),
            _columns(choices.uppers[:, self.live if has_uppers else slice(0)], count),
        )

    def whole(self, found: Choices, split: IntArray, start: Choices) -> Choices:
        """Choices of all units, (batch, units): `found` of live ones, `start` of the others."""
        slopes, multipliers = start.slopes.copy(), np.zeros_like(start.multipliers)
        slopes[:, self.live] = found.slopes.T
        multipliers[:, self.live[split]] = found.multipliers.T
        levels, uppers = start.levels.copy(), start.uppers.copy()
        if self.planes is not None:
            levels[:, self.live[self.layers[0]]] = found.levels.T
        if uppers.shape[1]:
            uppers[:, self.live] = found.uppers.T
        weights, tilts = (np.ascontiguousarray(each.T) for each in (found.weights, found.tilts))
        return Choices(slopes, multipliers, weights, levels, tilts, uppers)


def _columns(values: NDArray[Any], count: int) -> NDArray[Any]:
    """(batch, n), or (1, n) for all, to (n, count), to be changed at will."""
    return np.array(np.broadcast_to(values, (count, values.shape[1])).T, order="C")
