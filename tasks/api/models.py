"""Models however they come: files, Keras models in memory, networks of arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from tasks.core.errors import CertiflowError
from tasks.core.models import loading
from tasks.core.models.agreement import check_agreement, seeded_points
from tasks.core.models.loading import LoadedModel
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.networks.network import ReluNetwork

if TYPE_CHECKING:
    import keras

Model: TypeAlias = Union[str, Path, LoadedModel, ReluNetwork, "keras.Model"]


def load(model: Model) -> LoadedModel:
    """The float64 network that proofs speak about, with the float32 model that is deployed.

    `model` is the path of an ONNX, Keras or `.nnet` file, a Keras model, a `ReluNetwork` (deployed
    in float32 by NumPy), or a `LoadedModel`, which is returned as it is.

    Raises:
        CertiflowError: it is none of these, cannot be read or holds what cannot be verified; its
            runtime computes something else than was read.
    """
    match model:
        case LoadedModel():
            return model
        case str() | Path():
            return loading.load(Path(model))
        case ReluNetwork():
            loaded = LoadedModel(model, NumpyRuntime(model))
        case _:
            loaded = _of_keras(model)
    check_agreement(loaded.network, loaded.runtime, seeded_points(loaded.network.num_inputs))
    return loaded


def _of_keras(model: keras.Model) -> LoadedModel:
    # Keras takes seconds to import; who has a model of it has imported it
    if not any(each.__module__.startswith("keras.") for each in type(model).__mro__):
        raise CertiflowError(
            f"the model is of type {type(model).__name__}: expected the path of a file, a Keras "
            "model, a ReluNetwork or a LoadedModel"
        )
    return loading.of_keras(model)
