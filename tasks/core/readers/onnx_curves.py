"""ONNX operators that bend numbers otherwise than a ReLU, one by one or against each other."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from tasks.core.errors import CertiflowError
from tasks.core.networks.curves import Kind
from tasks.core.readers.onnx_node import Node
from tasks.core.tensors import composed
from tasks.core.tensors.lowering import Lowering
from tasks.core.tensors.tensor import Tensor


def curve(kind: Kind) -> Callable[[Node], Tensor]:
    """The operator that is a curve, element by element, and has no attribute."""

    def operator(node: Node) -> Tensor:
        return node.lowering.curved(kind, node.tensor(0))

    return operator


def elu(node: Node) -> Tensor:
    return composed.elu(node.lowering, node.tensor(0), _single(node, "alpha", 1.0))


def selu(node: Node) -> Tensor:
    alpha = _single(node, "alpha", 1.67326319217681884765625)
    gamma = _single(node, "gamma", 1.05070102214813232421875)
    return composed.elu(node.lowering, node.tensor(0), alpha, gamma)


def celu(node: Node) -> Tensor:
    """`alpha * elu(x / alpha)`."""
    alpha = _single(node, "alpha", 1.0)
    if not alpha > 0:
        raise CertiflowError(f"alpha = {alpha} cannot be verified; expected one above 0")
    return node.lowering.curved(Kind.ELU, node.tensor(0).scaled(1 / alpha)).scaled(alpha)


def gelu(node: Node) -> Tensor:
    approximate = node.attribute("approximate", b"none")
    if approximate not in {b"none", b"tanh"}:
        raise CertiflowError(f"approximate = {approximate} is none of ONNX's ways")
    kind = Kind.GELU if approximate == b"none" else Kind.GELU_TANH
    return node.lowering.curved(kind, node.tensor(0))


def hard_sigmoid(node: Node) -> Tensor:
    slope, shift = _single(node, "alpha", 0.2), _single(node, "beta", 0.5)
    return composed.hard_sigmoid(node.lowering, node.tensor(0), slope, shift)


def absolute(node: Node) -> Tensor:
    """|x| is x where it is positive, else -x."""
    return node.lowering.bent(node.tensor(0), -1.0)


def power(node: Node) -> Tensor:
    exponent = node.weights(1)
    if np.ptp(exponent) or exponent.size == 0:
        raise CertiflowError("exponents that differ cannot be verified; expected one number")
    tensor = node.tensor(0)
    shape = np.broadcast_shapes(tensor.shape, exponent.shape)
    return composed.power(node.lowering, tensor.spread(shape), float(exponent.flat[0]))


def softmax(node: Node) -> Tensor:
    return _along_axis(node, composed.softmax)


def log_softmax(node: Node) -> Tensor:
    return _along_axis(node, composed.log_softmax)


def _along_axis(node: Node, function: Callable[[Lowering, Tensor, int], Tensor]) -> Tensor:
    """Before opset 13 all axes from the given one on are one."""
    tensor = node.tensor(0)
    default = -1 if node.opset >= 13 else 1
    axis = normalize_axis_index(node.attribute("axis", default), len(tensor.shape))
    if node.opset >= 13:
        return function(node.lowering, tensor, axis)
    flat = tensor.positions.reshape(prod(tensor.shape[:axis]), -1)
    result = function(node.lowering, tensor.taken(flat), 1)
    return result.taken(result.positions.reshape(tensor.shape))


def where(node: Node) -> Tensor:
    """A choice that is known: the condition is a constant."""
    condition = node.array(0)
    first, second = node.tensor(1), node.tensor(2)
    shape = np.broadcast_shapes(condition.shape, first.shape, second.shape)
    both = node.lowering.stacked([first, second])
    places = np.where(
        condition,
        np.broadcast_to(first.positions, shape),
        np.broadcast_to(second.positions + first.positions.size, shape),
    )
    return both.taken(places)


def _single(node: Node, name: str, default: float) -> float:
    """An attribute, which is a float32."""
    return float(np.float32(node.attribute(name, default)))
