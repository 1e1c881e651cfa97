"""Rows of coefficients carried backwards through a network: the one pass behind CROWN's bounds.

Rows over the values of a layer become rows over the inputs, each activation replaced by the line
that is on the right side (Zhang et al. 2018, "Efficient Neural Network Robustness Certification
with General Activation Functions"). Of units that read little of the layers before, rows hold that
alone (see `networks.cones`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.bounds.backward_kernel import Tables, least_over, through_activation
from tasks.core.bounds.precision import DOUBLE, Precision
from tasks.core.bounds.relaxations import Bounds, Relaxation, activation_box
from tasks.core.bounds.rounding import HUGE, RoundingScales, gamma
from tasks.core.networks.activation import Activation
from tasks.core.networks.matrices import Backward
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box, Ellipsoid

PlaneTerms = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What rows meet on their way, by their owner: a box, or a place in a box.

    Attributes:
        tables: of each hidden layer before the rows' own.
        products: of each of them, where it has any.
        ball, scale: the inputs, and what rounding does there; of all owners, or of 1 for all.
    """

    tables: list[Tables]
    products: list[_Products | None]
    ball: Box
    scale: FloatArray

    @classmethod
    @np.errstate(over="ignore", invalid="ignore")
    def of(
        cls,
        network: ReluNetwork,
        hidden: Sequence[Bounds],
        relaxations: Sequence[Relaxation],
        ball: Box,
        scales: RoundingScales,
        split_terms: Sequence[FloatArray] | None = None,
        split_offsets: Sequence[FloatArray] | None = None,
    ) -> Surroundings:
        """Of whole layers, each box an owner; all but the network may be of 1 for all."""
        none, depths = np.zeros((1, 0)), range(len(hidden))
        tables = [
            _tables(
                network,
                depth,
                hidden[depth],
                relaxations[depth],
                scales,
                none if split_terms is None else split_terms[depth],
                none if split_offsets is None else split_offsets[depth],
            )
            for depth in depths
        ]
        products = [_Products.of(network.activations[k], relaxations[k]) for k in depths]
        return cls(tables, products, ball, scales.inputs)

    def within(self, boxes: IntArray, reads: Sequence[IntArray]) -> Surroundings:
        """Of places in `boxes`, (owners,): what is read there of each layer, (owners, s) each.

        Of networks without products, and without splits.
        """

        def part(values: FloatArray, read: IntArray) -> FloatArray:
            some: FloatArray = values[boxes[:, None] % len(values), read]
            return some

        tables = [
            Tables._make([*(part(values, read) for values in each[:-2]), *each[-2:]])
            for each, read in zip(self.tables, reads[1:], strict=True)
        ]
        ball, scale = self.ball.at(boxes, reads[0]), part(self.scale, reads[0])
        return Surroundings(tables, [None] * len(tables), ball, scale)

    @np.errstate(over="ignore", invalid="ignore")
    def lower_bounds(
        self,
        matrices: Sequence[Backward],
        coefficients: FloatArray,
        owners: IntArray,
        constant: FloatArray,
        planes: PlaneTerms | None = None,
        precision: Precision = DOUBLE,
    ) -> FloatArray:
        """Of `coefficients @ h + constant`, (rows,): h what the activation of the last layer gives.

        Args:
            matrices: of the affine layers up to that one; the outputs of each have `tables`.
            coefficients: (rows, its units); used up.
            owners: whose each row is, (rows,).
            constant: what is certain beside the coefficients, (rows,).
            planes: see `backward_bounds`.
            precision: of the coefficients, the matrices, and the scales in the tables.

        Returns:
            The best of the bounds met on the way, from each activation's box to the inputs.
        """
        best, constant = np.full(len(constant), -np.inf), constant.copy()
        direct: FloatArray | float = 0.0
        below: FloatArray | float = 0.0
        for index in range(len(self.tables) - 1, -1, -1):
            if planes is not None and index == 0:
                direct, below = planes(np.minimum(coefficients, 0))
            products, tables = self.products[index], self.tables[index]
            added = None if products is None else products.added(coefficients, owners)
            through_activation(coefficients, owners, tables, constant, best)
            if added is not None:
                coefficients += added
                lost = np.abs(added) * tables.affine_scale[owners % len(tables.affine_scale)]
                constant += (added * tables.bias - lost).sum(axis=1)
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
        bounds = np.fmax(best, least + constant)
        # As far as they prove something: an overflow on the way ends beyond `HUGE`.
        return np.where(np.abs(bounds) < HUGE, bounds - precision.underflow, -np.inf)


def backward_bounds(
    network: ReluNetwork,
    rows: FloatArray,
    hidden: Sequence[Bounds],
    relaxations: Sequence[Relaxation],
    ball: Box,
    scales: RoundingScales,
    split_terms: Sequence[FloatArray] | None = None,
    split_offsets: Sequence[FloatArray] | None = None,
    planes: PlaneTerms | None = None,
) -> FloatArray:
    """Rows (batch, units) over the outputs of layer `len(hidden)`, to bounds (batch,).

    All but the rows may have a batch of 1 for all. `split_terms`, (batch, units) for each hidden
    layer, are multipliers of the constraints of split ReLUs times their signs: where
    `sign * z >= 0` holds and the multiplier is not negative, `f >= f - multiplier * sign * z`, so
    the bound holds wherever the splits do (Wang et al. 2021, "Beta-CROWN", theorem 3.1). Where
    `sign * (z - p) >= 0` holds instead, `split_offsets` are the terms times p. `planes` gives, for
    the negative coefficients (batch, units) of the first layer's activations, rows over the inputs
    and constants that bound part of their sum from below, where the relaxation has upper lines of
    zero.
    """
    around = Surroundings.of(network, hidden, relaxations, ball, scales, split_terms, split_offsets)
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


def _tables(
    network: ReluNetwork,
    depth: int,
    bounds: Bounds,
    lines: Relaxation,
    scales: RoundingScales,
    terms: FloatArray,
    offsets: FloatArray,
) -> Tables:
    """Of hidden layer `depth`."""
    scale = scales.relu[depth]
    center, radius = _middle(activation_box(bounds, network.activations[depth]))
    lost = gamma(offsets.shape[1] + 8) * np.abs(offsets)
    height = np.zeros((1, center.shape[1])) if lines.lower_height is None else lines.lower_height
    parts = Tables(
        lines.lower_slope,
        height,
        lines.upper_slope,
        lines.upper_intercept,
        scale,
        center,
        radius + scale,
        network.layers[depth].bias[None],
        scales.affine[depth],
        terms,
        (offsets - lost).sum(axis=1, keepdims=True),
    )
    return Tables(*map(np.ascontiguousarray, parts))


@dataclass(frozen=True, eq=False)
class _Products:
    """A layer's products: the slopes by their partners' values, (owners, products)."""

    activation: Activation
    lower: FloatArray
    upper: FloatArray

    @classmethod
    def of(cls, activation: Activation, lines: Relaxation) -> _Products | None:
        """None where there are none."""
        units = activation.products
        if len(units) == 0:
            return None
        assert lines.lower_partner is not None
        assert lines.upper_partner is not None
        return cls(activation, lines.lower_partner[:, units], lines.upper_partner[:, units])

    def added(self, coefficients: FloatArray, owners: IntArray) -> FloatArray:
        """What rows over the activations add to the coefficients of partners: (rows, units)."""
        own = coefficients[:, self.activation.products]
        least = np.maximum(own, 0) * self.lower[owners % len(self.lower)]
        most = np.minimum(own, 0) * self.upper[owners % len(self.upper)]
        return self.activation.at_partners(least + most)


def _middle(box: Box) -> tuple[FloatArray, FloatArray]:
    return (box.upper + box.lower) / 2, (box.upper - box.lower) / 2
