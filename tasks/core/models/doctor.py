"""Looks at a model's file in a second: without Keras, and without any runtime."""

from __future__ import annotations

from pathlib import Path

from tasks.core.models.examination import Examination, Layer
from tasks.core.models.keras_archive import KERAS_SUFFIX
from tasks.core.models.keras_examination import examine_keras
from tasks.core.models.loading import check_kind
from tasks.core.models.onnx_examination import examine_onnx
from tasks.core.readers.nnet_network import read_nnet


def examine(path: Path) -> Examination:
    """Of an ONNX, `.nnet` or Keras file.

    Raises:
        CertiflowError: there is no such file, or it is none of these.
    """
    check_kind(path)
    match path.suffix.lower():
        case ".onnx":
            return examine_onnx(path)
        case suffix if suffix == KERAS_SUFFIX:
            return examine_keras(path)
    network = read_nnet(path).network
    return Examination(
        path.name,
        ".nnet",
        input_shape=(network.num_inputs,),
        outputs=network.num_outputs,
        parameters=sum(layer.weight.size + layer.bias.size for layer in network.layers),
        normalisation="the file's means and ranges",
        layers=tuple(
            Layer(number, f"layer {number}", f"Dense({len(layer.bias)})")
            for number, layer in enumerate(network.layers, start=1)
        ),
    )
