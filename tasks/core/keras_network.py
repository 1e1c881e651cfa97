"""Lowering of a Keras model to the float64 `ReluNetwork` that proofs speak about."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.errors import CertiflowError
from tasks.core.lowering import Lowering, Tensor, average_pooled, averaged, convolved
from tasks.core.network import ReluNetwork
from tasks.core.specification import FloatArray
from tasks.core.windows import Shape, Window

if TYPE_CHECKING:
    import keras

SUPPORTED = (
    "Dense, Conv2D, DepthwiseConv2D, BatchNormalization, AveragePooling2D, MaxPooling2D, "
    "GlobalAveragePooling2D, Add, ReLU, Flatten, Reshape, Dropout, and linear or ReLU activations"
)


def relu_network(model: keras.Model) -> ReluNetwork:
    """The same function as a Sequential or functional `model` in float64, over flattened inputs.

    The weights are the model's float32 weights, exactly. Raises `CertiflowError` naming the layer
    when one cannot be expressed with affine maps and ReLUs.
    """
    source, output = _ends(model)
    walk = _Walk(model, source)
    result = walk.tensor(output)
    if _is_rectified(output):
        raise CertiflowError(
            "the model ends with a ReLU: robustness is proved on logits; end it with a Dense layer"
        )
    if not any(layer.weights for layer in model.layers):
        raise CertiflowError("the model has no layer with weights: there is nothing to verify")
    return walk.lowering.network(result)


def _ends(model: keras.Model) -> tuple[Any, Any]:
    """The model's one symbolic input and its one output."""
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not (inputs and outputs and len(inputs) == len(outputs) == 1):
        raise CertiflowError(
            f"model '{model.name}' is a {type(model).__name__}: only a keras.Sequential or a "
            "functional keras.Model of known input shape, with one input and one output, can be "
            "verified"
        )
    if None in inputs[0].shape[1:]:
        raise CertiflowError(
            f"model '{model.name}' takes inputs of shape {inputs[0].shape}: give it a fixed one"
        )
    return inputs[0], outputs[0]


def _made_by(tensor: Any) -> tuple[keras.layers.Layer, list[Any]]:
    """The layer that gives a symbolic tensor, and the tensors it takes."""
    operation, node_index, _ = tensor._keras_history
    return operation, operation._inbound_nodes[node_index].input_tensors


def _is_rectified(tensor: Any) -> bool:
    """Whether nothing but moves of elements follows a ReLU."""
    import keras

    layer, taken = _made_by(tensor)
    if isinstance(layer, keras.layers.Flatten | keras.layers.Reshape | keras.layers.Dropout):
        return _is_rectified(taken[0])
    activation = getattr(layer, "activation", None)
    return isinstance(layer, keras.layers.ReLU) or getattr(activation, "__name__", "") == "relu"


class _Walk:
    """The model's graph, from the output back; every tensor has a batch of 1 and is made once."""

    def __init__(self, model: keras.Model, source: Any) -> None:
        self.lowering = Lowering((1, *source.shape[1:]))
        self._numbers = {layer.name: number for number, layer in enumerate(model.layers, start=1)}
        self._made = {id(source): self.lowering.input}

    def tensor(self, symbol: Any) -> Tensor:
        """The lowering's tensor of a symbolic one."""
        if id(symbol) not in self._made:
            layer, taken = _made_by(symbol)
            inputs = [self.tensor(tensor) for tensor in taken]
            try:
                _check_precision(layer)
                self._made[id(symbol)] = self._result(layer, inputs, symbol.shape)
            except CertiflowError as error:
                number = self._numbers.get(layer.name, "outside of layers")
                raise CertiflowError(f"layer {number} '{layer.name}' {error}") from error
        return self._made[id(symbol)]

    def _result(self, layer: keras.layers.Layer, inputs: list[Tensor], shape: Shape) -> Tensor:
        import keras

        first = inputs[0]
        match layer:
            case keras.layers.Dense():
                result = self._activated(layer, self._biased(layer, first.times(_kernel(layer))))
            case keras.layers.DepthwiseConv2D() if _is_channels_last(layer):
                result = self._activated(layer, self._biased(layer, _depthwise(layer, first)))
            case keras.layers.Conv2D() if _is_channels_last(layer):
                result = self._activated(layer, self._biased(layer, _conv2d(layer, first)))
            case keras.layers.BatchNormalization():
                result = self._batch_normalised(layer, first)
            case keras.layers.AveragePooling2D() if _is_channels_last(layer):
                image = _channels_first(first)
                window = _window(layer, image, layer.pool_size, (1, 1))
                result = _channels_last(average_pooled(image, window, count_padding=False))
            case keras.layers.MaxPooling2D() if _is_channels_last(layer):
                image = _channels_first(first)
                window = _window(layer, image, layer.pool_size, (1, 1))
                result = _channels_last(self.lowering.max_pooled(image, window))
            case keras.layers.GlobalAveragePooling2D() if _is_channels_last(layer):
                result = _global_average(first, keep=layer.keepdims)
            case keras.layers.Add() if len({len(tensor.shape) for tensor in inputs}) == 1:
                result = reduce(self.lowering.add, inputs)
            case keras.layers.Activation():
                result = self._activated(layer, first)
            case keras.layers.ReLU() if not (
                layer.negative_slope or layer.threshold or layer.max_value is not None
            ):
                result = self.lowering.relu(first)
            case keras.layers.Flatten() | keras.layers.Reshape() | keras.layers.Dropout() if (
                _is_channels_last(layer)
            ):
                result = first.taken(first.positions.reshape(1, *shape[1:]))
            case _:
                raise _unsupported(type(layer).__name__)
        return result

    def _activated(self, layer: keras.layers.Layer, tensor: Tensor) -> Tensor:
        name = layer.activation.__name__
        if name not in {"relu", "linear"}:
            raise _unsupported(name)
        return self.lowering.relu(tensor) if name == "relu" else tensor

    def _biased(self, layer: keras.layers.Layer, tensor: Tensor) -> Tensor:
        if not layer.use_bias:
            return tensor
        return self.lowering.add(tensor, self.lowering.constant(_array(layer.bias)))

    def _batch_normalised(self, layer: keras.layers.BatchNormalization, tensor: Tensor) -> Tensor:
        mean, variance = _array(layer.moving_mean), _array(layer.moving_variance)
        return self.lowering.batch_normalised(
            tensor,
            layer.axis,
            mean=mean,
            variance=variance,
            epsilon=layer.epsilon,
            scale=_array(layer.gamma) if layer.scale else np.ones_like(mean),
            shift=_array(layer.beta) if layer.center else np.zeros_like(mean),
        )


def _unsupported(what: str) -> CertiflowError:
    return CertiflowError(
        f"({what}) cannot be verified: supported are {SUPPORTED}; choose another architecture"
    )


def _is_channels_last(layer: keras.layers.Layer) -> bool:
    return bool(getattr(layer, "data_format", "channels_last") == "channels_last")


def _check_precision(layer: keras.layers.Layer) -> None:
    """Quantised layers and those of mixed precision compute other functions than float32 ones."""
    mode = getattr(layer, "quantization_mode", None) or getattr(layer, "compute_dtype", "float32")
    if mode != "float32":
        raise _unsupported(f"{type(layer).__name__} in {mode}")


def _array(weight: Any) -> FloatArray:
    return np.asarray(weight, dtype=np.float64)


def _kernel(layer: keras.layers.Layer) -> FloatArray:
    return _array(layer.kernel)


def _conv2d(layer: keras.layers.Conv2D, tensor: Tensor) -> Tensor:
    kernel = _kernel(layer).transpose(3, 2, 0, 1)  # (filters, channels / groups, height, width)
    return _convolved(layer, tensor, kernel, layer.groups)


def _depthwise(layer: keras.layers.DepthwiseConv2D, tensor: Tensor) -> Tensor:
    height, width, channels, multiplier = layer.kernel.shape
    kernel = _kernel(layer).transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    return _convolved(layer, tensor, kernel, channels)


def _convolved(
    layer: keras.layers.Layer, tensor: Tensor, kernel: FloatArray, groups: int
) -> Tensor:
    image = _channels_first(tensor)
    window = _window(layer, image, kernel.shape[2:], layer.dilation_rate)
    return _channels_last(convolved(image, kernel, window, groups))


def _window(layer: keras.layers.Layer, image: Tensor, extents: Shape, dilations: Shape) -> Window:
    if layer.padding == "same":
        return Window.same(image.shape[2:], extents, layer.strides, dilations)
    return Window(extents, layer.strides, dilations, (0, 0), (0, 0))


def _global_average(tensor: Tensor, *, keep: bool) -> Tensor:
    _, height, width, channels = tensor.shape
    rows = tensor.positions.reshape(height * width, channels).T
    means = averaged(tensor, rows, np.full(channels, 1 / (height * width)))
    return means.taken(means.positions.reshape((1, 1, 1, -1) if keep else (1, -1)))


def _channels_first(tensor: Tensor) -> Tensor:
    return tensor.taken(tensor.positions.transpose(0, 3, 1, 2))


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.taken(tensor.positions.transpose(0, 2, 3, 1))
