"""Functions that models have, said with curves, products and ReLUs of a lowering."""

from __future__ import annotations

from math import prod

import numpy as np

from tasks.core.errors import CertiflowError
from tasks.core.networks.curves import Kind
from tasks.core.tensors.lowering import Lowering
from tasks.core.tensors.tensor import Tensor
from tasks.core.tensors.windows import check_elements

SQRT_TWO = float(np.sqrt(2.0))


def elu(lowering: Lowering, tensor: Tensor, alpha: float, scale: float = 1.0) -> Tensor:
    """`scale * (relu(x) + alpha * (exp(min(x, 0)) - 1))`, by the ELU of alpha 1."""
    curve = lowering.curved(Kind.ELU, tensor)
    if alpha == 1.0:
        return curve if scale == 1.0 else curve.scaled(scale)
    straight = lowering.relu(tensor).scaled(scale * (1 - alpha))
    return lowering.add(curve.scaled(scale * alpha), straight)


def hard_sigmoid(lowering: Lowering, tensor: Tensor, slope: float, shift: float) -> Tensor:
    """`max(0, min(1, slope * x + shift))`."""
    line = lowering.add(tensor.scaled(slope), lowering.constant(shift))
    return lowering.clipped(line, 0.0, 1.0)


def reciprocal(lowering: Lowering, tensor: Tensor) -> Tensor:
    """`1 / x`: nothing is known of it where x may be 0."""
    return lowering.curved(Kind.RECIPROCAL, tensor)


def quotient(lowering: Lowering, first: Tensor, second: Tensor) -> Tensor:
    """`first / second`."""
    return product(lowering, first, reciprocal(lowering, second))


def softmax(lowering: Lowering, tensor: Tensor, axis: int) -> Tensor:
    """`1 / sum_j exp(x_j - x_i)` along an axis: one curve of each difference, and no product."""
    return reciprocal(lowering, _totals(lowering, tensor, axis))


def _totals(lowering: Lowering, tensor: Tensor, axis: int) -> Tensor:
    """`sum_j exp(x_j - x_i)` for every x_i, of the tensor's shape; that of j = i is 1."""
    moved = np.moveaxis(tensor.positions, axis, -1)
    size = moved.shape[-1]
    if size == 1:
        return lowering.constant(np.ones(tensor.shape))
    check_elements(moved.size * size)
    rows = moved.reshape(-1, size)
    others = np.array([[j for j in range(size) if j != i] for i in range(size)])
    each = np.repeat(rows[:, :, None], size - 1, axis=2)
    differences = lowering.add(tensor.taken(rows[:, others]), tensor.taken(each).scaled(-1.0))
    powers = lowering.curved(Kind.EXP, differences)
    totals = lowering.add(powers.times(np.ones((size - 1, 1))), lowering.constant(1.0))
    return totals.taken(np.moveaxis(totals.positions.reshape(moved.shape), -1, axis))


def product(lowering: Lowering, first: Tensor, second: Tensor) -> Tensor:
    """`first * second`; what is x times a function of x alone is the curve that it is.

    x sigmoid(c x) is silu(c x) / c, and x (1 + erf(c x)) is sqrt(2) gelu(sqrt(2) c x) / c.
    """
    for one, other in ((first, second), (second, first)):
        found = _gated(lowering, one, other)
        if found is not None:
            return found
    return lowering.product(first, second)


def _gated(lowering: Lowering, tensor: Tensor, gate: Tensor) -> Tensor | None:
    """See `product`; None where the gate is no such function of the tensor."""
    made = lowering.origin(gate)
    factor = None if made is None else ratio(made.inner, tensor)
    if made is None or factor is None:
        return None
    if made.kind is Kind.SIGMOID and made.shift == 0:
        return lowering.curved(Kind.SILU, made.inner).scaled(made.gain / factor)
    if made.kind is Kind.ERF and made.gain == made.shift:
        curve = lowering.curved(Kind.GELU, made.inner.scaled(SQRT_TWO))
        return curve.scaled(SQRT_TWO * made.gain / factor)
    return None


def ratio(first: Tensor, second: Tensor) -> float | None:
    """c where `first` is c times `second`, not 0, both of the same units; else None.

    Up to what rounding does to products of weights, as where affine nodes become one map.
    """
    if first is second:
        return 1.0
    if first.depth != second.depth or first.shape != second.shape:
        return None
    one, other = first.matrix, second.matrix
    same = one.nnz == other.nnz and one.nnz > 0
    if not same or (one.indices != other.indices).any() or (one.indptr != other.indptr).any():
        return None
    if not (one.data.all() and other.data.all()):
        return None
    factor = float(one.data[0] / other.data[0])
    pairs = ((one.data, other.data), (first.constant, second.constant))
    close = all(np.allclose(a, factor * b, rtol=2.0**-50, atol=0) for a, b in pairs)
    return factor if close and np.isfinite(factor) else None


def power(lowering: Lowering, tensor: Tensor, exponent: float) -> Tensor:
    """`x ** exponent` for the exponents that are read.

    Raises:
        CertiflowError: another exponent.
    """
    kinds = {2.0: Kind.SQUARE, 3.0: Kind.CUBE, 0.5: Kind.SQRT, -1.0: Kind.RECIPROCAL}
    if exponent == 1.0:
        return tensor
    if exponent == 4.0:
        return lowering.curved(Kind.SQUARE, lowering.curved(Kind.SQUARE, tensor))
    if exponent not in kinds:
        raise CertiflowError(
            f"the exponent {exponent} cannot be verified; expected one of -1, 0.5, 1, 2, 3, 4"
        )
    return lowering.curved(kinds[exponent], tensor)


def matrix_product(lowering: Lowering, first: Tensor, second: Tensor) -> Tensor:
    """`first @ second` of tensors of two axes or more: every product, then the sums."""
    rows, columns = first.positions, np.swapaxes(second.positions, -1, -2)
    leading = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    shape = (*leading, rows.shape[-2], columns.shape[-2], rows.shape[-1])
    check_elements(prod(shape))
    left = np.broadcast_to(rows[..., :, None, :], shape)
    right = np.broadcast_to(columns[..., None, :, :], shape)
    products = lowering.product(first.taken(left), second, right)
    sums = products.times(np.ones((shape[-1], 1)))
    return sums.taken(sums.positions[..., 0])


def log_softmax(lowering: Lowering, tensor: Tensor, axis: int) -> Tensor:
    """The logarithm of the softmax, `-log(sum_j exp(x_j - x_i))`."""
    totals = _totals(lowering, tensor, axis)
    return lowering.curved(Kind.LOG, totals).scaled(-1.0)
