"""Lowering of a Keras model to the float64 `ReluNetwork` that proofs speak about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.errors import CertiflowError
from tasks.core.network import Affine, ReluNetwork
from tasks.core.specification import FloatArray

if TYPE_CHECKING:
    import keras

SUPPORTED = "Dense, Conv2D, ReLU, Flatten, Reshape, Dropout, and linear or ReLU activations"


def relu_network(model: keras.Sequential) -> ReluNetwork:
    """The same function as `model` in float64, over flattened inputs.

    The weights are the model's float32 weights, exactly. Raises `CertiflowError` naming the layer
    when one cannot be expressed with affine maps and ReLUs.
    """
    affines: list[Affine] = []
    after_relu = True
    for step in _steps(model):
        if step is None:
            after_relu = True
        elif after_relu:
            affines.append(step)
            after_relu = False
        else:
            affines[-1] = step.after(affines[-1])
    if after_relu and affines:
        raise CertiflowError(
            "the model ends with a ReLU: robustness is proved on logits; end it with a Dense layer"
        )
    if not affines:
        raise CertiflowError("the model has no layer with weights: there is nothing to verify")
    return ReluNetwork(tuple(affines))


def _steps(model: keras.Sequential) -> Iterator[Affine | None]:
    """The layers in order: an affine map, or None for a ReLU."""
    import keras

    if not isinstance(model, keras.Sequential):
        raise CertiflowError(
            f"model '{model.name}' is a {type(model).__name__}: only a keras.Sequential "
            "can be verified"
        )
    for number, layer in enumerate(model.layers, start=1):
        match layer:
            case keras.layers.Dense():
                yield _dense(layer)
                yield from _activation(layer, number)
            case keras.layers.Conv2D() if _is_plain(layer):
                yield _conv2d(layer)
                yield from _activation(layer, number)
            case keras.layers.Activation():
                yield from _activation(layer, number)
            case keras.layers.ReLU() if not (
                layer.negative_slope or layer.threshold or layer.max_value is not None
            ):
                yield None
            case keras.layers.Flatten() | keras.layers.Reshape() | keras.layers.Dropout():
                pass
            case _:
                raise _unsupported(number, layer, type(layer).__name__)


def _is_plain(layer: keras.layers.Conv2D) -> bool:
    return bool(
        layer.groups == 1 and layer.dilation_rate == (1, 1) and layer.data_format == "channels_last"
    )


def _activation(layer: keras.layers.Layer, number: int) -> Iterator[None]:
    name = layer.activation.__name__
    if name == "relu":
        yield None
    elif name != "linear":
        raise _unsupported(number, layer, name)


def _unsupported(number: int, layer: keras.layers.Layer, what: str) -> CertiflowError:
    return CertiflowError(
        f"layer {number} '{layer.name}' ({what}) cannot be verified: supported are {SUPPORTED}; "
        "choose another architecture"
    )


def _weights(layer: keras.layers.Layer) -> tuple[FloatArray, FloatArray]:
    kernel = np.asarray(layer.kernel, dtype=np.float64)
    bias = (
        np.asarray(layer.bias, dtype=np.float64) if layer.use_bias else np.zeros(kernel.shape[-1])
    )
    return kernel, bias


def _dense(layer: keras.layers.Dense) -> Affine:
    kernel, bias = _weights(layer)
    positions = int(np.prod(layer.input.shape[1:-1]))  # Dense acts on the last axis alone
    return Affine(np.kron(np.eye(positions), kernel.T).astype(np.float64), np.tile(bias, positions))


def _conv2d(layer: keras.layers.Conv2D) -> Affine:
    """The convolution as a matrix; row-major (height, width, channel) order on both sides."""
    kernel, bias = _weights(layer)
    kernel_height, kernel_width, channels_in, channels_out = kernel.shape
    _, height, width, _ = layer.input.shape
    _, height_out, width_out, _ = layer.output.shape
    top, left = (
        _padding_before(layer.padding, size, size_out, extent, stride)
        for size, size_out, extent, stride in zip(
            (height, width),
            (height_out, width_out),
            (kernel_height, kernel_width),
            layer.strides,
            strict=True,
        )
    )
    weight = np.zeros((height_out, width_out, channels_out, height, width, channels_in))
    for row_out in range(height_out):
        for column_out in range(width_out):
            for kernel_row in range(kernel_height):
                for kernel_column in range(kernel_width):
                    row = row_out * layer.strides[0] + kernel_row - top
                    column = column_out * layer.strides[1] + kernel_column - left
                    if 0 <= row < height and 0 <= column < width:
                        weight[row_out, column_out, :, row, column] = kernel[
                            kernel_row, kernel_column
                        ].T
    return Affine(
        weight.reshape(height_out * width_out * channels_out, -1),
        np.tile(bias, height_out * width_out),
    )


def _padding_before(padding: str, size: int, size_out: int, extent: int, stride: int) -> int:
    """Rows of zeros before the first; TensorFlow's 'same' puts the odd one behind."""
    if padding == "valid":
        return 0
    return max((size_out - 1) * stride + extent - size, 0) // 2
