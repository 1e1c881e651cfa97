"""Networks and properties as files that the product reads to the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx.helper import make_node

from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import Property, UnsafeRegion
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
    """`p.vnnlib`, its numbers in the shortest form that reads as the same float64."""
    inputs = [f"X_{i}" for i in range(network.num_inputs)]
    outputs = [f"Y_{j}" for j in range(network.num_outputs)]
    lines = [f"(declare-const {name} Real)" for name in (*inputs, *outputs)]
    regions = [_region(region, inputs, outputs) for region in prop.unsafe]
    lines.append(f"(assert (or {' '.join(regions)}))")
    path = folder / "p.vnnlib"
    path.write_text("\n".join(lines) + "\n")
    return path


def _region(region: UnsafeRegion, inputs: list[str], outputs: list[str]) -> str:
    parts = []
    bounds = zip(inputs, region.box.lower[0].tolist(), region.box.upper[0].tolist(), strict=True)
    for name, lower, upper in bounds:
        parts.append(f"(>= {name} {lower!r}) (<= {name} {upper!r})")
    names = [*outputs, *inputs][: region.rows.shape[1]]
    for row, offset in zip(region.rows.tolist(), region.offsets.tolist(), strict=True):
        products = [f"(* {w!r} {name})" for w, name in zip(row, names, strict=True) if w]
        parts.append(f"(<= (+ {' '.join([*products, repr(offset)])}) 0)")
    return f"(and {' '.join(parts)})"
