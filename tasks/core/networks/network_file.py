"""The float64 network in one `.npz` file, so that proofs need no reader of the model's format."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import CertiflowError
from tasks.core.files import written_atomically
from tasks.core.networks.activation import Activation
from tasks.core.networks.block_matrix import BlockMatrix
from tasks.core.networks.blocks import Blocks
from tasks.core.networks.network import Affine, ReluNetwork, Roundings

Arrays = Mapping[str, NDArray[Any]]
PARTS = ("weights", "rows", "columns")


def write_network(network: ReluNetwork, path: Path) -> None:
    """All that `ReluNetwork.sha256` is of."""
    arrays: dict[str, NDArray[Any]] = {"layers": np.array(len(network.layers))}
    for place, (layer, roundings) in enumerate(zip(network.layers, network.roundings, strict=True)):
        arrays |= _affine_arrays(f"{place}", layer)
        arrays[f"{place}/roundings"] = np.array([roundings.count, roundings.gain])
        if roundings.absolute is not None:
            arrays |= _affine_arrays(f"{place}/absolute", roundings.absolute)
    for place, each in enumerate(network.activations):
        arrays[f"{place}/linear"] = each.linear
        if each.is_curved:
            arrays |= {f"{place}/codes": each.codes, f"{place}/partners": each.partners}
    with written_atomically(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def read_network(path: Path, sha256: str) -> ReluNetwork:
    """Raises `CertiflowError` where the file is damaged, or holds another network than this one."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            network = _network(arrays)
    except (OSError, ValueError, KeyError, EOFError, AssertionError, zipfile.BadZipFile) as error:
        raise CertiflowError(
            f"{path}: cannot be read as a network ({error}): fetch it again"
        ) from error
    if network.sha256 != sha256:
        raise CertiflowError(
            f"{path}: expected the network {sha256}, found {network.sha256}: fetch it again"
        )
    return network


def _network(arrays: Arrays) -> ReluNetwork:
    count = int(arrays["layers"])
    layers = tuple(_affine(arrays, f"{place}") for place in range(count))
    roundings = []
    for place in range(count):
        roundings_count, gain = arrays[f"{place}/roundings"].tolist()
        has_own = f"{place}/absolute/bias" in arrays
        absolute = _affine(arrays, f"{place}/absolute") if has_own else None
        roundings.append(Roundings(int(roundings_count), gain, absolute))
    activations = tuple(_activation(arrays, f"{place}") for place in range(count - 1))
    return ReluNetwork(layers, roundings=tuple(roundings), activations=activations)


def _activation(arrays: Arrays, name: str) -> Activation:
    linear = arrays[f"{name}/linear"]
    if f"{name}/codes" not in arrays:
        return Activation.of_relus(linear)
    return Activation(linear, arrays[f"{name}/codes"], arrays[f"{name}/partners"])


def _affine_arrays(name: str, layer: Affine) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {f"{name}/bias": layer.bias}
    if not isinstance(layer.matrix, BlockMatrix):
        return arrays | {f"{name}/weight": layer.weight}
    arrays[f"{name}/shape"] = np.array(layer.matrix.shape)
    for number, blocks in enumerate(layer.matrix.parts):
        arrays |= {f"{name}/{number}/{part}": getattr(blocks, part) for part in PARTS}
    return arrays


def _affine(arrays: Arrays, name: str) -> Affine:
    bias = arrays[f"{name}/bias"]
    if f"{name}/weight" in arrays:
        return Affine(arrays[f"{name}/weight"], bias)
    outputs, inputs = arrays[f"{name}/shape"].tolist()
    parts: list[Blocks] = []
    while f"{name}/{len(parts)}/weights" in arrays:
        weights, rows, columns = (arrays[f"{name}/{len(parts)}/{part}"] for part in PARTS)
        parts.append(Blocks(weights, rows, columns, (outputs, inputs)))
    return Affine(BlockMatrix(tuple(parts), (outputs, inputs)), bias)
