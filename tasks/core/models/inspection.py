"""What a model file says of its ends, without Keras, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from tasks.core.data.datasets import Extent
from tasks.core.errors import CertiflowError
from tasks.core.models import loading
from tasks.core.models.keras_archive import KERAS_SUFFIX, kind, read_config


@dataclass(frozen=True)
class Ends:
    """Numbers of a model's inputs and outputs; None where its file does not say them."""

    inputs: int | None
    outputs: int | None


def ends(path: Path) -> Ends:
    """Of the model in a file: an ONNX or `.nnet` model is loaded, of a Keras archive a part read.

    Raises:
        CertiflowError: as `loading.load`, but for what only Keras can tell.
    """
    if path.suffix.lower() != KERAS_SUFFIX or not path.is_file():
        network = loading.load(path).network
        return Ends(network.num_inputs, network.num_outputs)
    config = read_config(path)
    try:
        layers = config["config"]["layers"]
        shape = layers[0]["config"]["batch_shape"] if kind(layers[0]) == "InputLayer" else [None]
        chain = config["class_name"] == "Sequential" and kind(layers[-1]) == "Dense"
        outputs = _decisions(layers[-1]["config"]) if chain else None
        return Ends(None if None in shape[1:] or len(shape) < 2 else prod(shape[1:]), outputs)
    except (LookupError, TypeError):  # another layout: Keras has the last word on it
        return Ends(None, None)


def _decisions(dense: Mapping[str, Any]) -> int:
    """How many labels a last Dense layer decides between: one sigmoid does so between two."""
    units: int = dense["units"]
    return 2 if (units, dense["activation"]) == (1, "sigmoid") else units


def check_fit(model: Ends, name: str, data: Extent) -> None:
    """Raises `CertiflowError` when the model's inputs or outputs are not as many as the data's.

    One output without a sigmoid is no classifier's: a number, which a tolerance is needed for.
    """
    inputs, outputs = prod(data.input_shape), data.num_outputs
    if model.outputs == 1 != outputs:
        raise CertiflowError(
            "the model has one output, a number and no decision between classes: end it with a "
            f"sigmoid, or with a logit for each of the {outputs} classes of {name}; where the "
            "target of a table is a number, give the schema a tolerance in the place of classes"
        )
    if outputs == 1 and model.outputs not in {None, 1}:
        raise CertiflowError(
            f"the model decides between {model.outputs} classes: the tolerance of {name} needs a "
            "model with one linear output, a number; or give the schema classes in its place"
        )
    if model.inputs not in {None, inputs} or model.outputs not in {None, outputs}:
        raise CertiflowError(
            f"the model has {model.inputs} inputs and {model.outputs} outputs: {name} needs "
            f"{inputs} and {outputs}; choose another model or --data"
        )
