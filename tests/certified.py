"""Networks, balls and certificates that tests of the checker share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.helper import make_node

from tasks.core.arrays import FloatArray
from tasks.core.certificates.certify import Balls, certify_balls
from tasks.core.execution.asking import Resources
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tests.model_files import saved_onnx

RESOURCES = Resources(num_workers=1, memory_limit_bytes=4 * 2**30)
Arrays = dict[str, NDArray[Any]]


def float32_network(generator: np.random.Generator, widths: tuple[int, ...]) -> ReluNetwork:
    """Gaussian weights that float32 holds."""
    layers = []
    for before, after in pairwise(widths):
        weight = (generator.normal(size=(after, before)) / np.sqrt(before)).astype(np.float32)
        bias = (0.2 * generator.normal(size=after)).astype(np.float32)
        layers.append(Affine(weight.astype(np.float64), bias.astype(np.float64)))
    return ReluNetwork(tuple(layers))


def saved(folder: Path, network: ReluNetwork) -> Path:
    """As an ONNX file of Gemm and Relu."""
    nodes, constants, value = [], dict[str, NDArray[Any]](), "x"
    for place, layer in enumerate(network.layers):
        constants[f"w{place}"] = layer.weight.astype(np.float32)
        constants[f"b{place}"] = layer.bias.astype(np.float32)
        last = place == len(network.layers) - 1
        output = "y" if last else f"z{place}"
        given = [value, f"w{place}", f"b{place}"]
        nodes.append(make_node("Gemm", given, [output], transB=1))
        if not last:
            value = f"h{place}"
            nodes.append(make_node("Relu", [output], [value]))
    return saved_onnx(folder, nodes, constants, shape=(1, network.num_inputs))


def ball(network: ReluNetwork, center: FloatArray, radius: float) -> Balls:
    """That the label at a point wins around it."""
    label = int(network(center[None]).argmax())
    box = Box(center[None] - radius, center[None] + radius)
    return Balls(["0"], np.array([label]), box, np.array([0]))


def certified(folder: Path, network: ReluNetwork, balls: Balls) -> tuple[Path, Path]:
    """Its ONNX file, and the certificate of what is proved of the balls."""
    model, certificate = saved(folder, network), folder / "certificate.npz"
    certify_balls(model, balls, certificate, timeout_seconds=20, resources=RESOURCES)
    return model, certificate


def changed(certificate: Path, change: Callable[[Arrays], Mapping[str, NDArray[Any]]]) -> Path:
    """A copy beside it, some of its arrays replaced."""
    with np.load(certificate, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    path = certificate.with_name("changed.npz")
    np.savez(path, allow_pickle=False, **(arrays | dict(change(arrays))))
    return path
