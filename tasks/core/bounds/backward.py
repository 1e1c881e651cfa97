"""Rows of coefficients carried backwards through a network: the one pass behind CROWN's bounds.

Rows over the values of a layer become rows over the inputs, each activation replaced by the line
that is on the right side (Zhang et al. 2018, "Efficient Neural Network Robustness Certification
with General Activation Functions"). Of units that read little of the layers before, rows hold that
alone (see `networks.cones`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.bounds.backward_kernel import Tables, least_over, through_activation
from tasks.core.bounds.relaxations import Bounds, ReluRelaxation, activation_box
from tasks.core.bounds.rounding import HUGE, UNDERFLOW, RoundingScales
from tasks.core.networks.matrices import Matrix
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box, Ellipsoid

PlaneTerms = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What rows meet on their way, by their owner: a box, or a place in a box.

    Attributes:
        tables: of each hidden layer before the rows' own.
        ball, scale: the inputs, and what rounding does there; of all owners, or of 1 for all.
    """

    tables: list[Tables]
    ball: Box
    scale: FloatArray

    @classmethod
    def of(
        cls,
        network: ReluNetwork,
        hidden: Sequence[Bounds],
        relaxations: Sequence[ReluRelaxation],
        ball: Box,
        scales: RoundingScales,
        split_terms: Sequence[FloatArray] | None = None,
    ) -> Surroundings:
        """Of whole layers, each box an owner; all but the network may be of 1 for all."""
        terms = repeat(np.zeros((1, 0))) if split_terms is None else split_terms
        tables = []
        for depth, (bounds, lines, split) in enumerate(
            zip(hidden, relaxations, terms, strict=False)
        ):
            box, scale = activation_box(bounds, network.linear[depth]), scales.relu[depth]
            center, radius = _middle(box)
            bias = network.layers[depth].bias[None]
            tables.append(
                Tables(
                    lines.lower_slope,
                    lines.upper_slope,
                    lines.upper_intercept,
                    scale,
                    center,
                    radius + scale,
                    bias,
                    scales.affine[depth],
                    split,
                )
            )
        return cls(
            [Tables(*map(np.ascontiguousarray, each)) for each in tables], ball, scales.inputs
        )

    def within(self, boxes: IntArray, reads: Sequence[IntArray]) -> Surroundings:
        """Of places in `boxes`, (owners,): what is read there of each layer, (owners, s) each."""

        def part(values: FloatArray, read: IntArray) -> FloatArray:
            some: FloatArray = values[boxes[:, None] % len(values), read]
            return some

        tables = [
            Tables._make([*(part(values, read) for values in each[:-1]), each.terms])
            for each, read in zip(self.tables, reads[1:], strict=True)
        ]
        return Surroundings(tables, self.ball.at(boxes, reads[0]), part(self.scale, reads[0]))

    @np.errstate(over="ignore", invalid="ignore")
    def lower_bounds(
        self,
        matrices: Sequence[Matrix],
        coefficients: FloatArray,
        owners: IntArray,
        constant: FloatArray,
        planes: PlaneTerms | None = None,
    ) -> FloatArray:
        """Of `coefficients @ h + constant`, (rows,): h what the activation of the last layer gives.

        Args:
            matrices: of the affine layers up to that one; the outputs of each have `tables`.
            coefficients: (rows, its units); used up.
            owners: whose each row is, (rows,).
            constant: what is certain beside the coefficients, (rows,).
            planes: see `backward_bounds`.

        Returns:
            The best of the bounds met on the way, from each activation's box to the inputs.
        """
        best, constant = np.full(len(constant), -np.inf), constant.copy()
        direct: FloatArray | float = 0.0
        below: FloatArray | float = 0.0
        for index in range(len(self.tables) - 1, -1, -1):
            if planes is not None and index == 0:
                direct, below = planes(np.minimum(coefficients, 0))
            through_activation(coefficients, owners, self.tables[index], constant, best)
            coefficients = matrices[index].backward(coefficients)
        coefficients += direct
        constant += below
        center, radius = _middle(self.ball)
        least = least_over(coefficients, owners, center, radius + self.scale)
        if isinstance(self.ball, Ellipsoid):
            within = least_over(coefficients, owners, self.ball.center, self.scale)
            scales = np.atleast_2d(self.ball.scales)
            scaled = coefficients * scales[owners % len(scales)]
            least = np.fmax(least, within + self.ball.least(scaled))
        return _held(np.fmax(best, least + constant))


def backward_bounds(
    network: ReluNetwork,
    rows: FloatArray,
    hidden: Sequence[Bounds],
    relaxations: Sequence[ReluRelaxation],
    ball: Box,
    scales: RoundingScales,
    split_terms: Sequence[FloatArray] | None = None,
    planes: PlaneTerms | None = None,
) -> FloatArray:
    """Rows (batch, units) over the outputs of layer `len(hidden)`, to bounds (batch,).

    All but the rows may have a batch of 1 for all. `split_terms`, (batch, units) for each hidden
    layer, are multipliers of the constraints of split ReLUs times their signs: where
    `sign * z >= 0` holds and the multiplier is not negative, `f >= f - multiplier * sign * z`, so
    the bound holds wherever the splits do (Wang et al. 2021, "Beta-CROWN", theorem 3.1). `planes`
    gives, for the negative coefficients (batch, units) of the first layer's activations, rows over
    the inputs and constants that bound part of their sum from below, where the relaxation has upper
    lines of zero.
    """
    around = Surroundings.of(network, hidden, relaxations, ball, scales, split_terms)
    depth, owners = len(hidden), np.arange(len(rows))
    constant = through_affine(network, depth, rows, scales.affine[depth])
    matrices = [layer.matrix for layer in network.layers[:depth]]
    coefficients = network.layers[depth].matrix.backward(rows)
    return around.lower_bounds(matrices, coefficients, owners, constant, planes)


@np.errstate(over="ignore", invalid="ignore")
def through_affine(
    network: ReluNetwork, depth: int, rows: FloatArray, scale: FloatArray
) -> FloatArray:
    """What the bias of layer `depth` and its rounding add to rows over its outputs, (rows,)."""
    lost: FloatArray = (np.abs(rows) * scale).sum(axis=1)
    return rows @ network.layers[depth].bias - lost


def _middle(box: Box) -> tuple[FloatArray, FloatArray]:
    return (box.upper + box.lower) / 2, (box.upper - box.lower) / 2


def _held(bounds: FloatArray) -> FloatArray:
    """Lower bounds as far as they prove something: an overflow on the way ends beyond `HUGE`."""
    return np.where(np.abs(bounds) < HUGE, bounds - UNDERFLOW, -np.inf)
