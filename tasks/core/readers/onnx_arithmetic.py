"""Sums, products, and what is bent: ONNX operators that work on numbers."""

from __future__ import annotations

from functools import reduce
from math import prod

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.errors import CertiflowError
from tasks.core.readers.onnx_node import Node
from tasks.core.tensors import composed
from tasks.core.tensors.tensor import Tensor
from tasks.core.tensors.windows import Shape


def add(node: Node) -> Tensor:
    return node.lowering.add(node.tensor(0), node.tensor(1))


def total(node: Node) -> Tensor:
    """The sum of all inputs."""
    return reduce(node.lowering.add, _alike(node))


def maximum(node: Node) -> Tensor:
    """The greatest of all inputs, element by element."""
    return reduce(node.lowering.maximum, _alike(node))


def minimum(node: Node) -> Tensor:
    """max(a, b) = -min(-a, -b)."""
    return reduce(node.lowering.maximum, [each.scaled(-1.0) for each in _alike(node)]).scaled(-1.0)


def _alike(node: Node) -> list[Tensor]:
    """All inputs, those that depend on the network's first; broadcast only since opset 8."""
    places = sorted(range(len(node.inputs)), key=lambda place: _is_constant(node, place))
    tensors = [node.tensor(place) for place in places]
    if node.opset < 8 and len({tensor.shape for tensor in tensors}) > 1:
        shapes = ", ".join(str(tensor.shape) for tensor in tensors)
        raise CertiflowError(f"inputs of shapes {shapes}: expected one before opset 8")
    return tensors


def _is_constant(node: Node, place: int) -> bool:
    return not isinstance(node.inputs[place], Tensor)


def sub(node: Node) -> Tensor:
    return node.lowering.add(node.tensor(0), node.tensor(1).scaled(-1.0))


def neg(node: Node) -> Tensor:
    return node.tensor(0).scaled(-1.0)


def mul(node: Node) -> Tensor:
    if not (_is_constant(node, 0) or _is_constant(node, 1)):
        return composed.product(node.lowering, node.tensor(0), node.tensor(1))
    if isinstance(node.inputs[0], Tensor):
        return node.tensor(0).scaled(node.weights(1))
    return node.tensor(1).scaled(node.weights(0))


def div(node: Node) -> Tensor:
    if not _is_constant(node, 1):
        return composed.quotient(node.lowering, node.tensor(0), node.tensor(1))
    divisor = node.weights(1)
    if not divisor.all():
        raise CertiflowError("a division by zero cannot be verified")
    return node.tensor(0).scaled(1 / divisor)


def scaler(node: Node) -> Tensor:
    """scikit-learn's scaling: (x - offset) * scale."""
    offset, scale = (
        np.asarray(node.attribute(name, []), dtype=np.float32).astype(np.float64)
        for name in ("offset", "scale")
    )
    centred = node.lowering.add(node.tensor(0), node.lowering.constant(-offset))
    scaled = centred.scaled(scale)
    if scaled.shape != node.tensor(0).shape:
        raise CertiflowError(
            f"{offset.size} offsets and {scale.size} scales do not fit the shape "
            f"{node.tensor(0).shape}"
        )
    return scaled


def matmul(node: Node) -> Tensor:
    """As NumPy's: a vector is a row on the left and a column on the right, for as long."""
    if not (_is_constant(node, 0) or _is_constant(node, 1)):
        return _of_tensors(node)
    if isinstance(node.inputs[0], Tensor):
        tensor, weights = node.tensor(0), node.weights(1)
        shape = _product_shape(tensor.shape, weights.shape)
        result = tensor.times(_matrix(weights if weights.ndim > 1 else weights[:, None]))
    else:
        weights, tensor = node.weights(0), node.tensor(1)
        shape = _product_shape(weights.shape, tensor.shape)
        if len(tensor.shape) == 1:
            tensor = tensor.taken(tensor.positions[:, None])
        weights = _matrix(weights if weights.ndim > 1 else weights[None])
        result = _transposed(_transposed(tensor).times(weights.T))
    return result.taken(result.positions.reshape(shape))


def _of_tensors(node: Node) -> Tensor:
    """Of two that depend on the input, every product of which is a unit."""
    first, second = node.tensor(0), node.tensor(1)
    shape = _product_shape(first.shape, second.shape)
    if len(first.shape) == 1:
        first = first.taken(first.positions[None])
    if len(second.shape) == 1:
        second = second.taken(second.positions[:, None])
    result = composed.matrix_product(node.lowering, first, second)
    return result.taken(result.positions.reshape(shape))


def _product_shape(first: Shape, second: Shape) -> Shape:
    """Without a product of that size."""
    rows = second[-2:][:1]  # of a vector its length
    if not first or not second or first[-1:] != rows:
        raise CertiflowError(f"the shapes {first} and {second} have no product")
    leading = np.broadcast_shapes(first[:-2], second[:-2])
    return (*leading, *first[-2:-1], *(second[-1:] if len(second) > 1 else ()))


def _matrix(weights: FloatArray) -> FloatArray:
    """Of its last two axes, where it has one matrix only."""
    if prod(weights.shape[:-2]) != 1:
        raise CertiflowError(f"a product with {weights.shape}, many matrices, cannot be verified")
    return weights.reshape(weights.shape[-2:])


def gemm(node: Node) -> Tensor:
    tensor, weights = node.tensor(0), node.matrix(1)
    if node.attribute("transA", 0):
        tensor = _transposed(tensor)
    if node.attribute("transB", 0):
        weights = weights.T
    product = tensor.times(node.attribute("alpha", 1.0) * weights)
    beta = node.attribute("beta", 1.0)
    if node.is_left_out(2):
        return product
    result = node.lowering.add(product, node.tensor(2).scaled(beta))
    if result.shape != product.shape:
        raise CertiflowError(
            f"input 3 of shape {node.tensor(2).shape} does not broadcast to {product.shape}"
        )
    return result


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.taken(tensor.positions.swapaxes(-1, -2))


def relu(node: Node) -> Tensor:
    return node.lowering.relu(node.tensor(0))


def leaky_relu(node: Node) -> Tensor:
    slope = np.float32(node.attribute("alpha", 0.01))
    return node.lowering.bent(node.tensor(0), slope)


def prelu(node: Node) -> Tensor:
    return node.lowering.bent(node.tensor(0), node.weights(1))


def clip(node: Node) -> Tensor:
    lower = _limit(node, 1, "min", -np.inf)
    upper = _limit(node, 2, "max", np.inf)
    if not lower <= upper:
        raise CertiflowError(f"min = {lower}, max = {upper}: expected min <= max")
    return node.lowering.clipped(node.tensor(0), lower, upper)


def _limit(node: Node, index: int, name: str, default: float) -> float:
    """An attribute until opset 10, an input since."""
    if node.opset < 11:
        return float(node.attribute(name, default))
    given = node.optional(index)
    return default if given is None else float(given.item())
