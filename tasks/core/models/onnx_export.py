"""Keras classifiers as ONNX graphs of few operators, with the very numbers of the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from tasks.core.arrays import IntArray
from tasks.core.errors import CertiflowError
from tasks.core.models.onnx_graph import Graph
from tasks.core.readers.keras_endings import ends_of
from tasks.core.readers.keras_graph import Walk, check_layer
from tasks.core.readers.keras_images import is_channels_last, kernel_of, window_of
from tasks.core.tensors.windows import Shape

if TYPE_CHECKING:
    import keras

INPUT, LOGITS, BATCH = "input", "logits", "N"

EXPORTED = (
    "Dense of rows, Conv2D, DepthwiseConv2D, BatchNormalization of the last axis, Normalization, "
    "AveragePooling2D, MaxPooling2D, plain ReLUs, Flatten, Reshape, Permute and Dropout"
)


def exported(model: keras.Model) -> onnx.ModelProto:
    """A float32 graph from `input`, (N, …) of the Keras model's shape, to `logits`, (N, classes).

    Of a closing softmax the logits, of a single sigmoid the logits (0, z); see `endings`.

    Every number is a float32 number of the model, at most at another place; nothing is computed.
    The operators are Gemm, Relu, Flatten, Reshape, Transpose, Conv, MaxPool and AveragePool, and of
    a model that normalises also Sub and BatchNormalization. Flattening, reshaping and permuting
    become the order of the next layer's weights.

    Raises:
        CertiflowError: `relu_network` would refuse the model, or a layer cannot be written so.
    """
    source, logits, ending = ends_of(model)
    shape = source.shape[1:]
    places = np.arange(prod(shape)).reshape(shape)
    walk = _Exported(model, source, _Value(INPUT, shape, places))
    end = walk.flat(walk.value(logits))
    if end.places.ndim != 1 or (np.diff(end.places) != 1).any() or end.name == INPUT:
        raise CertiflowError(
            f"the model ends with values of shape {end.places.shape} that no Dense layer gives: "
            "they cannot be exported as logits; end it with a Dense layer"
        )
    if ending == "sigmoid":
        both = walk.graph.constant(np.array([[0.0, 1.0]])), walk.graph.constant(np.zeros(2))
        end = _Value(walk.graph.node("Gemm", end.name, *both), (2,), np.arange(2))
    walk.graph.renamed(end.name, LOGITS)
    return walk.graph.model(
        {INPUT: [BATCH, *shape]}, {LOGITS: (TensorProto.FLOAT, [BATCH, end.places.size])}
    )


@dataclass(frozen=True, eq=False)
class _Value:
    """A value of the graph, (N, *shape), for a tensor of Keras.

    `places`, of the tensor's shape without its batch, has each element's place among the value's.
    """

    name: str
    shape: Shape
    places: IntArray


class _Exported(Walk[_Value]):
    def __init__(self, model: keras.Model, source: Any, value: _Value) -> None:
        super().__init__(model, source, value)
        self.graph = Graph("classifier")

    def result(self, layer: keras.layers.Layer, inputs: list[_Value], shape: Shape) -> _Value:
        import keras

        if not all(np.isfinite(np.asarray(weight)).all() for weight in layer.weights):
            raise CertiflowError(
                f"({type(layer).__name__}) has a weight that is NaN or infinite: train the model "
                "again"
            )
        first = inputs[0]
        match layer:
            case keras.layers.Dense() if first.places.ndim == 1:
                result = self._activated(layer, self._dense(layer, first))
            case keras.layers.DepthwiseConv2D() | keras.layers.Conv2D() if is_channels_last(layer):
                result = self._activated(layer, self._convolved(layer, first))
            case keras.layers.MaxPooling2D() if is_channels_last(layer):
                result = self._windowed("MaxPool", layer, self._channels_first(first))
            case keras.layers.AveragePooling2D() if is_channels_last(layer):
                # Both leave padding out of the mean.
                result = self._windowed("AveragePool", layer, self._channels_first(first))
            case keras.layers.BatchNormalization():
                result = self._batch_normalised(layer, first)
            case keras.layers.Normalization() if not layer.invert:
                result = self._normalised(layer, first)
            case keras.layers.Activation():
                result = self._activated(layer, first)
            case keras.layers.ReLU():
                result = self._rectified(layer, first)
            case _:
                result = replace(first, places=_moved(layer, first.places, shape[1:]))
        return result

    def _activated(self, layer: keras.layers.Layer, value: _Value) -> _Value:
        """By the function itself: another one may bear its name."""
        import keras

        match layer.activation:
            case keras.activations.linear:
                return value
            case keras.activations.relu:
                return self._elementwise("Relu", value)
            case keras.layers.ReLU() as activation:
                check_layer(activation)
                return self._rectified(activation, value)
            case unknown:
                raise _not_exported(getattr(unknown, "__name__", type(unknown).__name__))

    def _rectified(self, layer: keras.layers.ReLU, value: _Value) -> _Value:
        if layer.threshold or layer.negative_slope or layer.max_value is not None:
            raise _not_exported("ReLU with a threshold, a slope or a greatest value")
        return self._elementwise("Relu", value)

    def _elementwise(self, kind: str, value: _Value, *constants: str, **attributes: Any) -> _Value:
        name = self.graph.node(kind, value.name, *constants, **attributes)
        return _Value(name, value.shape, value.places)

    def _dense(self, layer: keras.layers.Dense, value: _Value) -> _Value:
        kernel = np.asarray(layer.kernel)
        rows = np.empty_like(kernel)
        rows[value.places] = kernel
        flat, outputs = self.flat(value), kernel.shape[1]
        weights = self.graph.constant(rows), self._bias(layer, outputs)
        name = self.graph.node("Gemm", flat.name, *weights)
        return _Value(name, (outputs,), np.arange(outputs))

    def _bias(self, layer: keras.layers.Layer, size: int) -> str:
        return self.graph.constant(np.asarray(layer.bias) if layer.use_bias else np.zeros(size))

    def _convolved(self, layer: keras.layers.Layer, value: _Value) -> _Value:
        kernel, groups = kernel_of(layer)
        weights = self.graph.constant(kernel), self._bias(layer, len(kernel))
        attributes = {"dilations": layer.dilation_rate, "group": groups}
        image = self._channels_first(value)
        return self._windowed("Conv", layer, image, *weights, filters=len(kernel), **attributes)

    def _windowed(
        self,
        kind: str,
        layer: keras.layers.Layer,
        image: _Value,
        *weights: str,
        filters: int | None = None,
        **attributes: Any,
    ) -> _Value:
        """A convolution or pooling; without filters, of each channel."""
        channels, *sizes = image.shape
        window = window_of(layer, tuple(sizes))
        attributes |= {"kernel_shape": window.extents, "strides": window.strides}
        pads = [*window.before, *window.after]
        name = self.graph.node(kind, image.name, *weights, pads=pads, **attributes)
        return _image(name, (filters or channels, *window.counts(tuple(sizes))))

    def _batch_normalised(self, layer: keras.layers.BatchNormalization, value: _Value) -> _Value:
        rank = value.places.ndim
        if layer.axis % (rank + 1) != rank or rank not in {1, 3}:
            raise _not_exported(f"BatchNormalization along axis {layer.axis} of {rank}")
        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        scale = np.asarray(layer.gamma) if layer.scale else np.ones_like(mean)
        shift = np.asarray(layer.beta) if layer.center else np.zeros_like(mean)
        numbers = [scale, shift, mean, variance]
        if rank == 1:
            numbers = [_placed(each, value) for each in numbers]
        read = self.flat(value) if rank == 1 else self._channels_first(value)
        constants = [self.graph.constant(each) for each in numbers]
        return self._elementwise(
            "BatchNormalization", read, *constants, epsilon=float(np.float32(layer.epsilon))
        )

    def _normalised(self, layer: keras.layers.Normalization, value: _Value) -> _Value:
        """`(x - mean) / sqrt(variance)`, subtracted first as Keras does: means may be large."""
        import keras

        mean, variance = (
            _placed(np.broadcast_to(np.asarray(each)[0], value.places.shape), value)
            for each in (layer.mean, layer.variance)
        )
        least = float(np.float32(keras.config.epsilon())) ** 2
        if not (variance >= least).all():
            raise CertiflowError(
                f"(Normalization) has the variance {variance.min()}: Keras divides by no less "
                f"than the root of {least:.3g}, which cannot be exported; give constant columns "
                "the variance 1"
            )
        centred = self._elementwise("Sub", self.flat(value), self.graph.constant(mean))
        numbers = (np.ones_like(mean), np.zeros_like(mean), np.zeros_like(mean), variance)
        constants = map(self.graph.constant, numbers)
        return self._elementwise("BatchNormalization", centred, *constants, epsilon=0.0)

    def flat(self, value: _Value) -> _Value:
        """The same elements in the same order, (N, size)."""
        if len(value.shape) == 1:
            return value
        name = self.graph.node("Flatten", value.name, axis=1)
        return _Value(name, (value.places.size,), value.places)

    def _channels_first(self, value: _Value) -> _Value:
        """The image that Keras has as (height, width, channels), (N, channels, height, width)."""
        height, width, channels = value.places.shape
        shape, name = (channels, height, width), value.name
        if _counts_on(value.places.transpose(2, 0, 1)):
            name = name if value.shape == shape else self.graph.reshaped(name, -1, *shape)
        elif _counts_on(value.places):
            rows = (height, width, channels)
            name = name if value.shape == rows else self.graph.reshaped(name, -1, *rows)
            name = self.graph.node("Transpose", name, perm=[0, 3, 1, 2])
        else:
            raise CertiflowError("takes an image whose axes were permuted: it cannot be exported")
        return _image(name, shape)


def _moved(layer: keras.layers.Layer, places: IntArray, shape: Shape) -> IntArray:
    """By a layer that only moves elements, to a tensor of this shape."""
    import keras

    match layer:
        case keras.layers.Flatten() | keras.layers.Reshape() | keras.layers.Dropout() if (
            is_channels_last(layer)
        ):
            return places.reshape(shape)
        case keras.layers.Permute():
            return places.transpose([axis - 1 for axis in layer.dims])
    raise _not_exported(type(layer).__name__)


def _image(name: str, shape: Shape) -> _Value:
    """Of a value (N, channels, height, width)."""
    return _Value(name, shape, np.arange(prod(shape)).reshape(shape).transpose(1, 2, 0))


def _placed(numbers: NDArray[Any], value: _Value) -> NDArray[Any]:
    """Numbers of a tensor's elements where the value has these elements."""
    placed = np.empty(value.places.size, dtype=numbers.dtype)
    placed[value.places] = numbers
    return placed


def _counts_on(places: IntArray) -> bool:
    return np.array_equal(places.ravel(), np.arange(places.size))


def _not_exported(what: str) -> CertiflowError:
    return CertiflowError(f"({what}) cannot be exported as ONNX: exported are {EXPORTED}")
