"""What Keras's layers on images do, all with channels last: convolution and pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.tensors.convolutions import (
    average_pooled,
    averaged,
    convolved,
    transposed_convolved,
)
from tasks.core.tensors.lowering import Lowering
from tasks.core.tensors.tensor import Tensor
from tasks.core.tensors.windows import Shape, Window

if TYPE_CHECKING:
    import keras


def is_channels_last(layer: keras.layers.Layer) -> bool:
    """Whether it reads images as (height, width, channels), or does not care."""
    return bool(getattr(layer, "data_format", "channels_last") == "channels_last")


def convolution(layer: keras.layers.Layer, tensor: Tensor) -> Tensor:
    """Of a Conv2D or DepthwiseConv2D, without its bias."""
    kernel, groups = kernel_of(layer)
    image = _channels_first(tensor)
    window = window_of(layer, image.shape[2:])
    return _channels_last(convolved(image, kernel.astype(np.float64), window, groups))


def is_plain_transposed(layer: keras.layers.Conv2DTranspose) -> bool:
    """Whether its padding is what `padding` says, and nothing is dilated."""
    return is_channels_last(layer) and not layer.output_padding and layer.dilation_rate == (1, 1)


def transposed_convolution(layer: keras.layers.Conv2DTranspose, tensor: Tensor) -> Tensor:
    """Without its bias.

    "same" gives images `strides` times as great; "valid" leaves what the last windows reach beyond.
    """
    kernel = np.asarray(layer.kernel).transpose(3, 2, 0, 1).astype(np.float64)
    over = [k - stride for k, stride in zip(layer.kernel_size, layer.strides, strict=True)]
    cut = [max(more, 0) if layer.padding == "same" else 0 for more in over]
    before = tuple(more // 2 for more in cut)
    after = tuple(more - first for more, first in zip(cut, before, strict=True))
    window = Window(layer.kernel_size, layer.strides, (1, 1), before, after)
    added = tuple(max(-more, 0) for more in over)
    image = _channels_first(tensor)
    return _channels_last(transposed_convolved(image, kernel, window, added, 1))


def upsampled(layer: keras.layers.UpSampling2D, tensor: Tensor) -> Tensor:
    """Every pixel repeated."""
    height, width = layer.size
    return tensor.taken(np.repeat(np.repeat(tensor.positions, height, axis=1), width, axis=2))


def kernel_of(layer: keras.layers.Layer) -> tuple[NDArray[Any], int]:
    """Of a Conv2D or DepthwiseConv2D (filters, channels / groups, height, width), and the groups.

    The numbers are the layer's own.
    """
    import keras

    weights = np.asarray(layer.kernel)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        height, width, channels, multiplier = weights.shape
        kernel = weights.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
        return kernel, channels
    return weights.transpose(3, 2, 0, 1), layer.groups


def window_of(layer: keras.layers.Layer, sizes: Shape) -> Window:
    """Of a convolution or pooling over images of these (height, width)."""
    extents = getattr(layer, "pool_size", None) or layer.kernel_size
    dilations = getattr(layer, "dilation_rate", (1, 1))
    if layer.padding == "same":
        return Window.same(sizes, extents, layer.strides, dilations)
    return Window(extents, layer.strides, dilations, (0, 0), (0, 0))


def average_pool(layer: keras.layers.AveragePooling2D, tensor: Tensor) -> Tensor:
    image = _channels_first(tensor)
    window = window_of(layer, image.shape[2:])
    return _channels_last(average_pooled(image, window, count_padding=False))


def max_pool(layer: keras.layers.MaxPooling2D, tensor: Tensor, lowering: Lowering) -> Tensor:
    image = _channels_first(tensor)
    window = window_of(layer, image.shape[2:])
    return _channels_last(lowering.max_pooled(image, window))


def global_average_pool(layer: keras.layers.GlobalAveragePooling2D, tensor: Tensor) -> Tensor:
    _, height, width, channels = tensor.shape
    rows = tensor.positions.reshape(height * width, channels).T
    means = averaged(tensor, rows, np.full(channels, 1 / (height * width)))
    return means.taken(means.positions.reshape((1, 1, 1, -1) if layer.keepdims else (1, -1)))


def _channels_first(tensor: Tensor) -> Tensor:
    return tensor.taken(tensor.positions.transpose(0, 3, 1, 2))


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.taken(tensor.positions.transpose(0, 2, 3, 1))
