"""Networks and properties as files that the product reads to the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx.helper import make_node

from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import Property
from tasks.core.properties.vnnlib_export import vnnlib_text
from tests.model_files import Constants, saved_onnx


def written_onnx(folder: Path, network: ReluNetwork) -> Path:
    """`m.onnx`, the network of float32 weights and without linear units as Gemm and Relu nodes."""
    constants: Constants = {}
    nodes, value = [], "x"
    for number, layer in enumerate(network.layers):
        last = number == len(network.layers) - 1
        constants |= {
            f"w{number}": layer.weight.astype(np.float32),
            f"b{number}": layer.bias.astype(np.float32),
        }
        after = "y" if last else f"z{number}"
        nodes.append(make_node("Gemm", [value, f"w{number}", f"b{number}"], [after], transB=1))
        if not last:
            value = f"h{number}"
            nodes.append(make_node("Relu", [after], [value]))
    saved = saved_onnx(folder, nodes, constants, shape=(1, network.num_inputs))
    return saved.rename(folder / "m.onnx")


def written_vnnlib(folder: Path, prop: Property, network: ReluNetwork) -> Path:
    """`p.vnnlib`, as the product writes it."""
    path = folder / "p.vnnlib"
    path.write_text(vnnlib_text(prop, network.num_outputs))
    return path
