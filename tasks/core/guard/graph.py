"""ONNX graphs written node by node, and affine maps in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tasks.core.networks.block_matrix import BlockMatrix
from tasks.core.networks.blocks import Blocks
from tasks.core.networks.matrices import Matrix
from tasks.core.networks.network import Affine

OPSET, IR_VERSION = 17, 8  # of 2022: any server reads them


class Graph:
    """Nodes in the order in which they are added; a value is known by its name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """The name of the node's one output."""
        name = output or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, value: NDArray[Any] | Sequence[int] | float) -> str:
        """Floats become float32; whole numbers, int64; flags stay."""
        array = np.asarray(value)
        kinds = {"f": np.float32, "b": np.bool_}
        array = array.astype(kinds.get(array.dtype.kind, np.int64))
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def reshaped(self, value: str, *shape: int) -> str:
        """-1 for what follows from the rest."""
        return self.node("Reshape", value, self.constant(shape))

    def model(
        self, inputs: dict[str, list[str | int]], outputs: dict[str, tuple[int, list[str | int]]]
    ) -> onnx.ModelProto:
        """With float32 inputs of these shapes, and outputs of these types and shapes."""
        graph = helper.make_graph(
            self._nodes,
            "certificate",
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in inputs.items()],
            [helper.make_tensor_value_info(k, *v) for k, v in outputs.items()],
            self._constants,
        )
        imports = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model


def affine(graph: Graph, values: str, layer: Affine, factor: float = 1.0) -> str:
    """`layer` of `values`, (rows, inputs), with its matrix times a factor: (rows, outputs).

    A sum has at most `most_terms(layer.matrix)` products, and the bias.
    """
    matrix, bias = layer.matrix, graph.constant(layer.bias)
    if not isinstance(matrix, BlockMatrix):
        return graph.node("Gemm", values, graph.constant(factor * matrix.dense().T), bias)
    parts = [_blocks(graph, values, part, factor) for part in matrix.parts]
    products = parts[0] if len(parts) == 1 else graph.node("Concat", *parts, axis=1)
    places, held = _places(matrix)
    ordered = graph.node("Gather", products, graph.constant(places), axis=1)
    if not held.all():
        ordered = graph.node("Mul", ordered, graph.constant(held.astype(np.float32)))
    return graph.node("Add", ordered, bias)


def most_terms(matrix: Matrix) -> int:
    """The most products in a sum: what pads blocks is exactly zero."""
    if isinstance(matrix, BlockMatrix):
        return max((part.weights.shape[2] for part in matrix.parts), default=0)
    return matrix.shape[1]


def _blocks(graph: Graph, values: str, part: Blocks, factor: float) -> str:
    """The products of each block after another: (rows, groups * f)."""
    groups, f, k = part.weights.shape
    columns = np.where(part.columns < part.shape[1], part.columns, 0)  # padding: times zero
    gathered = graph.node("Gather", values, graph.constant(columns.ravel()), axis=1)
    by_group = graph.reshaped(gathered, -1, groups, k)
    weights = factor * part.weights.swapaxes(1, 2)
    if (weights == weights[:1]).all():  # a convolution's, away from the border
        products = graph.node("MatMul", by_group, graph.constant(weights[0]))
    else:
        first = graph.node("Transpose", by_group, perm=[1, 0, 2])
        each = graph.node("MatMul", first, graph.constant(weights))
        products = graph.node("Transpose", each, perm=[1, 0, 2])
    return graph.reshaped(products, -1, groups * f)


def _places(matrix: BlockMatrix) -> tuple[NDArray[Any], NDArray[Any]]:
    """Where each output is among the blocks' products, and whether it is in a block at all."""
    places, start = np.full(matrix.shape[0] + 1, -1, dtype=np.int64), 0
    for part in matrix.parts:
        places[part.rows.ravel()] = start + np.arange(part.rows.size)
        start += part.rows.size
    return np.maximum(places[:-1], 0), places[:-1] >= 0
