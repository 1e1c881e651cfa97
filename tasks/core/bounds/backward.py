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
from tasks.core.bounds.relaxations import Bounds, Relaxation, activation_box
from tasks.core.bounds.rounding import HUGE, UNDERFLOW, RoundingScales, gamma
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
        relaxations: Sequence[Relaxation],
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
            box, scale = activation_box(bounds, network.activations[depth]), scales.relu[depth]
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
        least = least_at_inputs(self.ball, self.scale, coefficients, owners)
        return held(np.fmax(best, least + constant))


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
    the bound holds wherever the splits do (Wang et al. 2021, "Beta-CROWN", theorem 3.1). In curved
    networks that is `sign * (z - p) >= 0`, and `split_offsets` are the terms times p. `planes`
    gives, for the negative coefficients (batch, units) of the first layer's activations, rows over
    the inputs and constants that bound part of their sum from below, where the relaxation has upper
    lines of zero.
    """
    if network.is_curved:
        lower = curved_lower_bounds(
            network,
            rows[:, None],
            hidden,
            relaxations,
            ball,
            scales,
            split_terms,
            split_offsets,
            planes,
        )
        return lower[:, 0]
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


def least_at_inputs(
    ball: Box, scale: FloatArray, coefficients: FloatArray, owners: IntArray
) -> FloatArray:
    """Minimum of rows over the inputs of their owners, less rounding, (rows,)."""
    center, radius = _middle(ball)
    least = least_over(coefficients, owners, center, radius + scale)
    if isinstance(ball, Ellipsoid):
        within = least_over(coefficients, owners, ball.center, scale)
        scales = np.atleast_2d(ball.scales)
        scaled = coefficients * scales[owners % len(scales)]
        least = np.fmax(least, within + ball.least(scaled))
    return least


def _middle(box: Box) -> tuple[FloatArray, FloatArray]:
    return (box.upper + box.lower) / 2, (box.upper - box.lower) / 2


def held(bounds: FloatArray) -> FloatArray:
    """Lower bounds as far as they prove something: an overflow on the way ends beyond `HUGE`."""
    return np.where(np.abs(bounds) < HUGE, bounds - UNDERFLOW, -np.inf)


@np.errstate(over="ignore", invalid="ignore")
def curved_lower_bounds(
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
    """As `backward_bounds`, of curved networks: rows (batch, m, units) to (batch, m)."""
    batch, count = rows.shape[:2]
    coefficients, constant = rows, np.zeros((batch, count))
    best, direct = np.full((batch, count), -np.inf), np.zeros((1, 1, 1))
    for index in range(len(hidden), -1, -1):
        layer = network.layers[index]
        constant += coefficients @ layer.bias - _dot(np.abs(coefficients), scales.affine[index])
        coefficients = _times(coefficients, layer.matrix)
        if index == 0:
            break
        activation, lines = network.activations[index - 1], relaxations[index - 1]
        scale = scales.relu[index - 1]
        center, radius = _middle(activation_box(hidden[index - 1], activation))
        least = _dot(coefficients, center) - _dot(np.abs(coefficients), radius + scale)
        best = np.fmax(best, least + constant)
        positive, negative = np.maximum(coefficients, 0), np.minimum(coefficients, 0)
        constant += _dot(negative, lines.upper_intercept) - _dot(positive - negative, scale)
        coefficients = positive * lines.lower_slope[:, None] + negative * lines.upper_slope[:, None]
        if lines.lower_height is not None:
            constant += _dot(positive, lines.lower_height)
        products = activation.products
        if len(products) and lines.lower_partner is not None and lines.upper_partner is not None:
            added = positive[..., products] * lines.lower_partner[:, None, products]
            added += negative[..., products] * lines.upper_partner[:, None, products]
            coefficients += activation.at_partners(added)
        if planes is not None and index == 1:
            own, below = planes(negative[:, 0])
            direct, constant = own[:, None], constant + below[:, None]
        if split_terms is not None:
            terms = split_terms[index - 1][:, None]
            coefficients -= terms
            constant -= _dot(np.abs(terms), scale)
        if split_offsets is not None:
            offsets = split_offsets[index - 1]
            lost = gamma(offsets.shape[1] + 8) * np.abs(offsets)
            constant += (offsets - lost).sum(axis=1)[:, None]
    flat = (coefficients + direct).reshape(batch * count, -1)
    owners = np.repeat(np.arange(batch), count)
    last = least_at_inputs(ball, scales.inputs, flat, owners).reshape(batch, count)
    return held(np.fmax(best, last + constant))


def _times(coefficients: FloatArray, matrix: Matrix) -> FloatArray:
    """One large matrix product instead of one for each box: (batch, m, n) to (batch, m, k)."""
    batch, count, units = coefficients.shape
    if coefficients.strides[0] == 0:  # the same for all boxes
        once = matrix.backward(np.ascontiguousarray(coefficients[0]))
        return np.broadcast_to(once, (batch, *once.shape))
    return matrix.backward(coefficients.reshape(-1, units)).reshape(batch, count, -1)


def _dot(coefficients: FloatArray, values: FloatArray) -> FloatArray:
    """(batch, m, n) and (batch, n) to (batch, m)."""
    dots: FloatArray = (coefficients @ values[:, :, None])[..., 0]
    return dots
