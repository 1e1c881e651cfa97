"""Models in files: the float64 network that proofs speak about, and the float32 one in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from scipy import special

from tasks.core.arrays import FloatArray
from tasks.core.errors import CertiflowError, first_line
from tasks.core.files import ArtifactRef, sha256_of
from tasks.core.models.agreement import check_agreement, seeded_points
from tasks.core.models.conversion import how_to_convert
from tasks.core.models.runtimes import NumpyRuntime, Runtime
from tasks.core.networks.network import ReluNetwork
from tasks.core.tensors.endings import Ending

if TYPE_CHECKING:
    import keras

MODELS_KEPT = 2  # models in a process: a promotion holds a challenger against the champion


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """One model twice: for proofs, and for the last word on counterexamples.

    Both give logits; `ending` says what the file makes of them, which decides the same labels.
    """

    network: ReluNetwork
    runtime: Runtime
    ending: Ending = "logits"

    @property
    def has_softmax(self) -> bool:
        """Whether the file's outputs are a softmax of its logits, or its logarithm."""
        return self.ending in {"softmax", "log_softmax"}

    def outputs(self, logits: FloatArray) -> FloatArray:
        """What the file makes of logits, (…, classes), in float64; the same where they are all."""
        match self.ending:
            case "softmax":
                found: FloatArray = special.softmax(logits, axis=-1)
                return found
            case "log_softmax":
                return logits - special.logsumexp(logits, axis=-1, keepdims=True)
            case _:
                return logits

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one point, without a batch axis."""
        return self.runtime.input_shape


def load(path: Path, *, whole: bool = False) -> LoadedModel:
    """The model of an ONNX, `.nnet` or Keras file, its runtime opened and held against its network.

    With `whole` its outputs are the file's own, a closing softmax or sigmoid among what is proved.
    Raises `CertiflowError` naming the file when it cannot be read, holds what cannot be verified,
    or when its runtime refuses it or computes something else than was read. The last few models
    are kept, with what their runtimes have traced: a file whose content is the same is not read
    again.
    """
    check_kind(path)
    return _read(path.absolute(), sha256_of(path.read_bytes()), whole)


def check_kind(path: Path) -> None:
    """Raises `CertiflowError` when there is no file, or one of a kind that is not read."""
    if path.suffix.lower() not in _LOADERS:
        raise CertiflowError(
            f"{path}: unknown kind of model '{path.suffix}'; expected {', '.join(_LOADERS)}"
            f"{how_to_convert(path)}"
        )
    if not path.is_file():
        raise CertiflowError(f"{path}: no such file; give the path of a model")


def load_artifact(artifact: ArtifactRef) -> LoadedModel:
    """`load` of a file that must be what was referred to."""
    return _read(artifact.verified_path().absolute(), artifact.sha256, False)


@lru_cache(maxsize=MODELS_KEPT)
def _read(path: Path, sha256: str, whole: bool) -> LoadedModel:
    model = _LOADERS[path.suffix.lower()](path, whole)
    try:
        check_agreement(model.network, model.runtime, seeded_points(model.network.num_inputs))
    except CertiflowError as error:
        raise CertiflowError(f"{path}: {error}") from error
    # Last, since the runtime reads the file by itself: the digest would stand for another model.
    if sha256_of(path.read_bytes()) != sha256:
        raise CertiflowError(f"{path}: the file changed while it was read; try again")
    return model


def _load_onnx(path: Path, whole: bool) -> LoadedModel:
    from tasks.core.models.runtimes import OnnxRuntime
    from tasks.core.readers.onnx_network import read_onnx

    read = read_onnx(path, whole=whole)
    return LoadedModel(read.network, OnnxRuntime(path, whole), read.ending)


def _load_nnet(path: Path, whole: bool) -> LoadedModel:
    from tasks.core.readers.nnet_network import read_nnet

    network = read_nnet(path).network
    return LoadedModel(network, NumpyRuntime(network))


def _load_keras(path: Path, whole: bool) -> LoadedModel:
    import keras

    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a broken archive, an unknown class and a lambda share no class
        reason = first_line(error)
        raise CertiflowError(f"{path}: Keras cannot load this model: {reason}") from error
    try:
        return of_keras(model, whole=whole)
    except CertiflowError as error:
        raise CertiflowError(f"{path}: {error}") from error


def of_keras(model: keras.Model, *, whole: bool = False) -> LoadedModel:
    """A Keras model in memory, not yet held against its network.

    Raises `CertiflowError` where it holds what cannot be verified.
    """
    from tasks.core.models.runtimes import Classifier
    from tasks.core.readers.keras_endings import deciding, logits_of
    from tasks.core.readers.keras_network import relu_network

    network = relu_network(model, whole=whole)
    if whole:
        return LoadedModel(network, Classifier(model))
    return LoadedModel(network, Classifier(deciding(model)), logits_of(model)[1])


_LOADERS: dict[str, Callable[[Path, bool], LoadedModel]] = {
    ".onnx": _load_onnx,
    ".nnet": _load_nnet,
    ".keras": _load_keras,
}
