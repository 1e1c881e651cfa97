"""Small model files that tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.helper import make_graph, make_model, make_opsetid, make_tensor_value_info

Constants = dict[str, NDArray[Any]]
Shape = tuple[int | str, ...]


def saved_onnx(
    folder: Path,
    nodes: list[onnx.NodeProto],
    constants: Constants | None = None,
    *,
    shape: Shape = (1, 4),
    opset: int = 13,
    ir_version: int = 8,
    listed: bool = False,
) -> Path:
    """A model from `x` of `shape` to `y`; its initializers are `listed` as inputs or not."""
    constants = constants or {}
    float32 = onnx.TensorProto.FLOAT
    inputs = [make_tensor_value_info("x", float32, shape)]
    if listed:
        inputs += [
            make_tensor_value_info(name, float32, array.shape) for name, array in constants.items()
        ]
    graph = make_graph(
        nodes,
        "graph",
        inputs,
        [make_tensor_value_info("y", float32, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [make_opsetid("", opset)]
    path = folder / "model.onnx"
    path.write_bytes(
        make_model(graph, opset_imports=opsets, ir_version=ir_version).SerializeToString()
    )
    return path


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def integers(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


NNET_LINES = [
    "// A comment,",
    "// and another.",
    "2,2,1,3,",
    "2,3,1,",
    "0,",
    "0.0,-1.0,",
    "10.0,1.0,",
    "5.0,0.0,7.5,",
    "10.0,2.0,4.0,",
    "1.0,2.0,",
    "-1.0,0.5,",
    "3.0,0.0,",
    "0.1,",
    "0.2,",
    "-0.3,",
    "1.0,-2.0,5e-1,",
    "0.25,",
]


def saved_nnet(folder: Path, lines: list[str]) -> Path:
    path = folder / "network.nnet"
    path.write_text("\n".join(lines) + "\n")
    return path
