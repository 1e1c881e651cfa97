"""Models in files: the float64 network that proofs speak about, and the float32 one in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.core.agreement import check_agreement, seeded_points
from tasks.core.errors import CertiflowError
from tasks.core.matrices import Matrix
from tasks.core.network import ReluNetwork

Float32Array = NDArray[np.float32]


class Runtime(Protocol):
    """A model as deployed."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one point, without a batch axis."""

    def logits(self, points: Float32Array, /) -> Float32Array:
        """Outputs, shape (n, outputs), of points of shape (n, *input_shape)."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """One model twice: for proofs, and for the last word on counterexamples."""

    network: ReluNetwork
    runtime: Runtime

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one point, without a batch axis."""
        return self.runtime.input_shape


@dataclass(frozen=True, eq=False)
class NumpyRuntime:
    """A network evaluated in float32, for file formats that come without a runtime."""

    network: ReluNetwork

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The network's inputs are flat."""
        return (self.network.num_inputs,)

    def logits(self, points: Float32Array) -> Float32Array:
        """Outputs, shape (n, outputs), of points of shape (n, inputs)."""
        x = np.asarray(points, dtype=np.float32).reshape(len(points), -1)
        (matrix, bias), *others = self._layers
        x = matrix.forward(x) + bias
        for (matrix, bias), linear in zip(others, self.network.linear, strict=True):
            x = matrix.forward(np.where(linear, x, np.maximum(x, 0))) + bias
        return x

    @cached_property
    def _layers(self) -> list[tuple[Matrix, Float32Array]]:
        return [
            (layer.matrix.single(), layer.bias.astype(np.float32)) for layer in self.network.layers
        ]


def load(path: Path) -> LoadedModel:
    """The model of an ONNX, `.nnet` or Keras file, its runtime opened and held against its network.

    Raises `CertiflowError` naming the file when it cannot be read, holds what cannot be verified,
    or when its runtime refuses it or computes something else than was read.
    """
    loader = _LOADERS.get(path.suffix.lower())
    if loader is None:
        raise CertiflowError(
            f"{path}: unknown kind of model '{path.suffix}'; expected {', '.join(_LOADERS)}"
        )
    if not path.is_file():
        raise CertiflowError(f"{path}: no such file; give the path of a model")
    model = loader(path)
    try:
        check_agreement(model.network, model.runtime, seeded_points(model.network.num_inputs))
    except CertiflowError as error:
        raise CertiflowError(f"{path}: {error}") from error
    return model


def _load_onnx(path: Path) -> LoadedModel:
    from tasks.core.onnx_network import OnnxRuntime, read_onnx

    return LoadedModel(read_onnx(path).network, OnnxRuntime(path))


def _load_nnet(path: Path) -> LoadedModel:
    from tasks.core.nnet_network import read_nnet

    network = read_nnet(path).network
    return LoadedModel(network, NumpyRuntime(network))


def _load_keras(path: Path) -> LoadedModel:
    import keras

    from tasks.core.attacks import Classifier
    from tasks.core.keras_network import relu_network

    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a broken archive, an unknown class and a lambda share no class
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CertiflowError(f"{path}: Keras cannot load this model: {reason}") from error
    try:
        network = relu_network(model)
    except CertiflowError as error:
        raise CertiflowError(f"{path}: {error}") from error
    return LoadedModel(network, Classifier(model))


_LOADERS: dict[str, Callable[[Path], LoadedModel]] = {
    ".onnx": _load_onnx,
    ".nnet": _load_nnet,
    ".keras": _load_keras,
}
