"""How many elements a node makes, before it does: a few numbers in a file can ask for terabytes."""

from __future__ import annotations

from math import prod

import numpy as np

from tasks.core.readers.onnx_node import Node
from tasks.core.tensors.windows import Shape, check_elements


def check_result(node: Node) -> None:
    """Raises `CertiflowError` where the node would make too many elements."""
    match node.proto.op_type:
        case "ConstantOfShape":
            check_elements(prod(node.array(0).ravel().tolist()))
        case "Expand":
            target = tuple(node.array(1).ravel().tolist())
            check_elements(prod(np.broadcast_shapes(_shape(node, 0), target)))
        case "Gather":
            shape, axis = _shape(node, 0), node.attribute("axis", 0)
            check_elements(prod(shape) // max(shape[axis], 1) * prod(_shape(node, 1)))
        case "Pad":
            pads = np.asarray(node.attribute("pads", ()) if node.opset < 11 else node.array(1))
            most = sum(max(pad, 0) for pad in pads.ravel().tolist())
            check_elements(prod(size + most for size in _shape(node, 0)))
        case "Range":
            start, limit, delta = (float(node.array(place).item()) for place in range(3))
            check_elements(int(abs((limit - start) / delta)))


def _shape(node: Node, place: int) -> Shape:
    """Of a tensor or of a constant."""
    value = node.inputs[place]
    return () if value is None else value.shape
