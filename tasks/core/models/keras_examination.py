"""What of a `.keras` archive cannot be verified, layer by layer, as its configuration says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.core.models.examination import Examination, Layer
from tasks.core.models.keras_archive import Archive, Config, kind, read_archive
from tasks.core.readers.keras_activations import NAMES
from tasks.core.tensors.endings import Ending

RECTIFIERS = {"ReLU", "LeakyReLU"}
BENDING = {"ELU", "PReLU", "Softmax"}
FUNCTIONS = {*NAMES, "swish", "hard_swish"}
IMAGES = {
    "Conv2D",
    "DepthwiseConv2D",
    "Conv2DTranspose",
    "UpSampling2D",
    "AveragePooling2D",
    "MaxPooling2D",
    "GlobalAveragePooling2D",
}
ACTIVATED = {"Dense", "Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "Activation"}
NORMALISING = {"Normalization", "Rescaling"}
MOVING = {"Flatten", "Reshape", "Permute", "Dropout", "SpatialDropout1D", "SpatialDropout2D"}
READ = {
    *RECTIFIERS,
    *BENDING,
    *IMAGES,
    *ACTIVATED,
    *NORMALISING,
    *MOVING,
    "Add",
    "BatchNormalization",
    "Multiply",
}
ENDINGS: dict[str, Ending] = {
    "Softmax": "softmax",
    "softmax": "softmax",
    "log_softmax": "log_softmax",
    "sigmoid": "sigmoid",
}
OTHERWISE = "build the model of Dense or Conv2D layers with ReLU, which can be verified"


def examine_keras(path: Path) -> Examination:
    """Raises `CertiflowError` when the file is no archive of Keras 3."""
    archive = read_archive(path)
    if kind(archive.model) not in {"Sequential", "Functional"}:
        return Examination(
            path.name,
            f"Keras, {kind(archive.model)}",
            parameters=archive.parameters,
            blocks=(
                f"the model is a {kind(archive.model)}: save a keras.Sequential or a functional "
                "keras.Model",
            ),
        )
    last = archive.last
    ending = _ending(last)
    layers = tuple(
        Layer(
            number,
            str(each["config"]["name"]),
            _described(each),
            _obstacle(each, is_last=each is last, ending=ending),
        )
        for number, each in archive.numbered.items()
    )
    first = archive.layers[0] if archive.layers else None
    return Examination(
        path.name,
        f"Keras, {kind(archive.model)}",
        input_shape=_input_shape(archive),
        outputs=_outputs(archive, ending),
        parameters=archive.parameters,
        normalisation=kind(first) if first and kind(first) in NORMALISING else "",
        ending=ending,
        layers=layers,
        blocks=_of_ends(archive, last, ending),
    )


def _input_shape(archive: Archive) -> tuple[int | None, ...] | None:
    return tuple(archive.inputs[0]["batch_shape"][1:]) if archive.inputs else None


def _outputs(archive: Archive, ending: Ending) -> int | None:
    """How many classes a last Dense layer decides between; None where another one is the last."""
    found = [each for each in archive.layers if kind(each) not in {"Softmax", "Activation"}]
    if archive.last is None or not found or kind(found[-1]) != "Dense":
        return None
    units = int(found[-1]["config"]["units"])
    return 2 if (units, ending) == (1, "sigmoid") else units


def _activation(entry: Config) -> str:
    """The name of the layer's activation, or its class where that is a layer."""
    activation = entry["config"].get("activation", "linear")
    if isinstance(activation, dict):
        inner = activation["config"]
        return inner if isinstance(inner, str) else str(activation["class_name"])
    return str(activation or "linear")


def _ending(last: Config | None) -> Ending:
    if last is None:
        return "logits"
    return ENDINGS.get(kind(last) if kind(last) == "Softmax" else _activation(last), "logits")


def _described(entry: Config) -> str:
    config: dict[str, Any] = entry["config"]
    size = config.get("units", config.get("filters"))
    activation = _activation(entry)
    parts = [str(size)] if size is not None else []
    parts += [activation] if activation != "linear" else []
    return f"{kind(entry)}({', '.join(parts)})" if parts else kind(entry)


def _obstacle(entry: Config, *, is_last: bool, ending: Ending) -> str:
    """Why the layer cannot be verified and what to do; nothing where it can."""
    config, activation = entry["config"], _activation(entry)
    closes = is_last and ending != "logits"
    policy = config.get("dtype", "float32")
    kept = policy["config"]["name"] if isinstance(policy, dict) else policy
    obstacles = {
        f"{kind(entry)} cannot be verified: {OTHERWISE}": (
            kind(entry) not in READ or not str(entry["module"]).startswith("keras.layers")
        ),
        f"it computes in {kept}: save the model with the dtype float32": kept != "float32",
        "it takes channels first: put Permute((2, 3, 1)) before it, and set channels_last": (
            config.get("data_format") == "channels_first"
        ),
        f"a ReLU with threshold = {config.get('threshold')} cannot be verified: leave it out": (
            kind(entry) == "ReLU" and bool(config.get("threshold"))
        ),
        "an output padding or a dilation cannot be verified: leave it out": (
            kind(entry) == "Conv2DTranspose"
            and (bool(config.get("output_padding")) or set(config["dilation_rate"]) != {1})
        ),
        f"interpolation {config.get('interpolation')} cannot be verified: use nearest": (
            kind(entry) == "UpSampling2D" and config.get("interpolation") != "nearest"
        ),
        f"activation {activation} cannot be verified: use relu, and train again": (
            activation not in {"linear", *FUNCTIONS, *RECTIFIERS, *BENDING} and not closes
        ),
    }
    return next((words for words, holds in obstacles.items() if holds), "")


def _of_ends(archive: Archive, last: Config | None, ending: Ending) -> tuple[str, ...]:
    """What is wrong with the model's input and output."""
    found = []
    if len(archive.inputs) != 1:
        found.append(
            f"the model has {len(archive.inputs)} inputs: build it with one keras.Input of fixed "
            "shape"
        )
    for config in archive.inputs:
        if None in config["batch_shape"][1:]:
            found.append(f"the input's shape is {config['batch_shape'][1:]}: give it a fixed one")
        if config["dtype"] != "float32" or config["sparse"]:
            what = "sparse" if config["sparse"] else config["dtype"]
            found.append(f"the input is {what}: build the model with a float32 input")
    if last is None:
        return (*found, "the model has several outputs: save one with the logits alone")
    activation = kind(last) if kind(last) in RECTIFIERS else _activation(last)
    if activation in {"relu", "ReLU"}:
        found.append("the model ends with a ReLU: end it with a linear Dense layer")
    units = last["config"].get("units")
    if ending == "sigmoid" and units not in {None, 1}:
        found.append(
            f"the model ends with a sigmoid of {units} outputs, a decision for each by itself: end "
            "it with a softmax"
        )
    if ending in {"softmax", "log_softmax"} and units == 1:
        found.append("the model ends with a softmax of one output, always 1: use a sigmoid")
    if archive.parameters == 0:
        found.append("the model has no layer with weights: there is nothing to verify")
    return tuple(found)
