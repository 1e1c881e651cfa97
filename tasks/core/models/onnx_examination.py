"""What of an ONNX graph cannot be verified, node by node."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from math import prod
from pathlib import Path

import onnx

from tasks.core.errors import CertiflowError
from tasks.core.models.examination import Examination, Layer
from tasks.core.readers.onnx_endings import opened
from tasks.core.readers.onnx_network import input_shape, only_input, read_graph, read_onnx
from tasks.core.readers.onnx_operators import is_read

SCALING = {"Scaler", "Sub", "Add", "Mul", "Div", "BatchNormalization"}
HARMLESS = {"Cast", "Constant", "Identity", "Transpose", "Reshape", "Flatten", "Unsqueeze"}
OTHERWISE = (
    "cannot be verified: build the model of linear layers, convolutions, ReLU or smooth functions"
)


def examine_onnx(path: Path) -> Examination:
    """Raises `CertiflowError` when the file is no ONNX model."""
    model = read_graph(path)
    try:
        end = opened(model)
        shape = input_shape(only_input(end.logits))
    except CertiflowError as error:
        return Examination(path.name, "ONNX", blocks=(str(error),))
    nodes = end.logits.node
    layers = tuple(
        Layer(
            number,
            node.name or next(iter(node.output), node.op_type),
            node.op_type,
            "" if is_read(node) else f"{node.op_type} {OTHERWISE}",
        )
        for number, node in enumerate(nodes, start=1)
    )
    first = takewhile(lambda node: node.op_type in SCALING | HARMLESS, nodes)
    found = Examination(
        path.name,
        "ONNX",
        input_shape=shape[1:] if len(shape) > 1 and shape[0] == 1 else shape,
        parameters=sum(_size(tensor) for tensor in end.logits.initializer),
        normalisation=", ".join(node.op_type for node in first if node.op_type in SCALING),
        ending=end.ending,
        layers=layers,
    )
    return _read_whole(found, path) if found.is_verifiable else found


def _read_whole(found: Examination, path: Path) -> Examination:
    """With what only the reading of the whole graph can tell."""
    try:
        return replace(found, outputs=read_onnx(path).num_outputs)
    except CertiflowError as error:
        return replace(found, blocks=(str(error).removeprefix(f"{path}: "),))


def _size(tensor: onnx.TensorProto) -> int:
    return prod(tensor.dims) if tensor.data_type == onnx.TensorProto.FLOAT else 0
