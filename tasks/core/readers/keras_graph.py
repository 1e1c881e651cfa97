"""Keras's graph of layers: what made a tensor, and whether that is a layer as Keras wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.core.errors import CertiflowError

if TYPE_CHECKING:
    import keras

SUPPORTED = (
    "Dense, Conv2D, DepthwiseConv2D, BatchNormalization, Normalization, Rescaling, "
    "AveragePooling2D, MaxPooling2D, GlobalAveragePooling2D, Add, ReLU, LeakyReLU, Flatten, "
    "Reshape, Permute, Dropout, linear or ReLU activations, and a softmax or a single sigmoid at "
    "the end"
)


def is_of_keras(thing: Any) -> bool:
    """Whether a layer or model computes what Keras's own code says, which a subclass can change."""
    return type(thing).__module__.startswith("keras.src.")


def made_by(tensor: Any) -> tuple[keras.layers.Layer, Any]:
    """The layer that gives a symbolic tensor, and the call that did: its tensors and arguments."""
    operation, node_index, _ = tensor._keras_history
    return operation, operation._inbound_nodes[node_index]


def unsupported(what: str) -> CertiflowError:
    """Names what cannot be verified, and what can."""
    return CertiflowError(
        f"({what}) cannot be verified: supported are {SUPPORTED}; choose another architecture"
    )


def check_layer(layer: keras.layers.Layer) -> None:
    """Refuses what computes another function than Keras's float32 layer of the same parameters."""
    kind = type(layer)
    if not is_of_keras(layer):
        raise unsupported(f"{kind.__name__} of {kind.__module__}")
    mode = getattr(layer, "quantization_mode", None) or getattr(layer, "compute_dtype", "float32")
    if mode != "float32":
        raise unsupported(f"{kind.__name__} in {mode}")


def check_arguments(layer: keras.layers.Layer, arguments: dict[str, Any]) -> None:
    """Refuses what a call gives besides tensors: by training=True a layer sees the whole batch."""
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise CertiflowError(
                f"({type(layer).__name__}) is called with {name} = {value}, which cannot be "
                "verified; build the model without it"
            )
