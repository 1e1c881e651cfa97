"""Keras's activation functions, and its layers that are nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.networks.curves import Kind
from tasks.core.tensors import composed
from tasks.core.tensors.lowering import Lowering
from tasks.core.tensors.tensor import Tensor

if TYPE_CHECKING:
    import keras

CURVES: Mapping[str, Kind] = {
    "exponential": Kind.EXP,
    "gelu": Kind.GELU,
    "hard_silu": Kind.HARD_SWISH,
    "sigmoid": Kind.SIGMOID,
    "silu": Kind.SILU,
    "softplus": Kind.SOFTPLUS,
    "tanh": Kind.TANH,
}
# As TensorFlow has them, in float32.
SELU_SCALE = float(np.float32(1.0507009873554804934193349852946))
SELU_ALPHA = float(np.float32(1.6732632423543772848170429916717))
LEAKY_SLOPE = float(np.float32(0.2))

Function = Callable[[Lowering, Tensor], Tensor]
OTHERS: Mapping[str, Function] = {
    "celu": lambda lowering, x: lowering.curved(Kind.ELU, x),
    "elu": lambda lowering, x: composed.elu(lowering, x, 1.0),
    "hard_sigmoid": lambda lowering, x: composed.hard_sigmoid(lowering, x, 1 / 6, 0.5),
    "hard_tanh": lambda lowering, x: lowering.clipped(x, -1.0, 1.0),
    "leaky_relu": lambda lowering, x: lowering.bent(x, LEAKY_SLOPE),
    "linear": lambda lowering, x: x,
    "log_softmax": lambda lowering, x: composed.log_softmax(lowering, x, len(x.shape) - 1),
    "relu": lambda lowering, x: lowering.relu(x),
    "relu6": lambda lowering, x: lowering.clipped(x, 0.0, 6.0),
    "selu": lambda lowering, x: composed.elu(lowering, x, SELU_ALPHA, SELU_SCALE),
    "softmax": lambda lowering, x: composed.softmax(lowering, x, len(x.shape) - 1),
}
NAMES = sorted({*CURVES, *OTHERS})  # those that are read


def activated(lowering: Lowering, function: Any, tensor: Tensor) -> Tensor | None:
    """What one of Keras's own functions makes of a tensor; None where it is none that is read.

    By the function itself: another one may bear its name.
    """
    import keras

    for name in NAMES:
        if function is getattr(keras.activations, name, None):
            if name in CURVES:
                return lowering.curved(CURVES[name], tensor)
            return OTHERS[name](lowering, tensor)
    return None


def of_layer(lowering: Lowering, layer: keras.layers.Layer, tensor: Tensor) -> Tensor | None:
    """What a layer that only bends makes of a tensor; None where it is none that is read.

    Its numbers are float32 in the model.
    """
    import keras

    match layer:
        case keras.layers.ELU():
            return composed.elu(lowering, tensor, float(np.float32(layer.alpha)))
        case keras.layers.PReLU():
            return lowering.bent(tensor, np.asarray(layer.alpha, dtype=np.float64)[None])
        case keras.layers.Softmax() if isinstance(layer.axis, int):
            return composed.softmax(lowering, tensor, layer.axis)
    return None
