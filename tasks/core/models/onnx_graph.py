"""ONNX graphs written node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8  # of 2022: any server reads them


class Graph:
    """Nodes in the order in which they are added; a value is known by its name."""

    def __init__(self, name: str) -> None:
        self._name = name
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

    def renamed(self, value: str, name: str) -> str:
        """The same value by another name."""
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [name if each == value else each for each in names]
        return name

    def model(
        self, inputs: dict[str, list[str | int]], outputs: dict[str, tuple[int, list[str | int]]]
    ) -> onnx.ModelProto:
        """With float32 inputs of these shapes, and outputs of these types and shapes."""
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in inputs.items()],
            [helper.make_tensor_value_info(k, *v) for k, v in outputs.items()],
            self._constants,
        )
        imports = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
        onnx.checker.check_model(model)
        return model
