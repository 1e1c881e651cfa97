"""Lowering of a Keras model to the float64 `ReluNetwork` that proofs speak about."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.errors import CertiflowError
from tasks.core.networks.convolutions import average_pooled, averaged, convolved
from tasks.core.networks.lowering import Lowering
from tasks.core.networks.network import ReluNetwork
from tasks.core.networks.tensor import Tensor
from tasks.core.networks.windows import Shape, Window

if TYPE_CHECKING:
    import keras

SUPPORTED = (
    "Dense, Conv2D, DepthwiseConv2D, BatchNormalization, AveragePooling2D, MaxPooling2D, "
    "GlobalAveragePooling2D, Add, ReLU, LeakyReLU, Flatten, Reshape, Dropout, and linear or ReLU "
    "activations"
)


def relu_network(model: keras.Model) -> ReluNetwork:
    """The same function as a Sequential or functional `model` in float64, over flattened inputs.

    The weights are the model's float32 weights; where batch normalisation or consecutive affine
    layers become one map, the float64 numbers nearest to their products. Raises `CertiflowError`
    naming the layer when one cannot be expressed with affine maps and ReLUs.
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
    """The model's one symbolic input, float32 of fixed shape, and its one output."""
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not (_is_of_keras(model) and inputs and outputs and len(inputs) == len(outputs) == 1):
        raise CertiflowError(
            f"model '{model.name}' is a {type(model).__name__}: only a keras.Sequential or a "
            "functional keras.Model of known input shape, with one input and one output, can be "
            "verified"
        )
    if None in inputs[0].shape[1:]:
        raise CertiflowError(
            f"model '{model.name}' takes inputs of shape {inputs[0].shape}: give it a fixed one"
        )
    kind = "sparse" if inputs[0].sparse else inputs[0].dtype
    if kind != "float32":
        raise CertiflowError(
            f"input '{inputs[0].name}' is {kind}, to which Keras casts what it is fed; expected "
            "float32: build the model with such an input"
        )
    return inputs[0], outputs[0]


def _is_of_keras(thing: Any) -> bool:
    """Whether a layer or model computes what Keras's own code says, which a subclass can change."""
    return type(thing).__module__.startswith("keras.src.")


def _made_by(tensor: Any) -> tuple[keras.layers.Layer, Any]:
    """The layer that gives a symbolic tensor, and the call that did: its tensors and arguments."""
    operation, node_index, _ = tensor._keras_history
    return operation, operation._inbound_nodes[node_index]


def _is_rectified(tensor: Any) -> bool:
    """Whether nothing but moves of elements follows a ReLU."""
    import keras

    layer, call = _made_by(tensor)
    if isinstance(layer, keras.layers.Flatten | keras.layers.Reshape | keras.layers.Dropout):
        return _is_rectified(call.input_tensors[0])
    activation = getattr(layer, "activation", layer)
    return isinstance(activation, keras.layers.ReLU) or activation is keras.activations.relu


class _Walk:
    """The model's graph, from the output back; every tensor has a batch of 1 and is made once."""

    def __init__(self, model: keras.Model, source: Any) -> None:
        self.lowering = Lowering((1, *source.shape[1:]))
        self._numbers = {layer.name: number for number, layer in enumerate(model.layers, start=1)}
        self._made = {id(source): self.lowering.input}

    def tensor(self, symbol: Any) -> Tensor:
        """The lowering's tensor of a symbolic one."""
        if id(symbol) not in self._made:
            layer, call = _made_by(symbol)
            inputs = [self.tensor(tensor) for tensor in call.input_tensors]
            try:
                _check_layer(layer)
                self._made[id(symbol)] = self._result(layer, inputs, symbol.shape)
                _check_arguments(layer, call.arguments.kwargs)
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
            case keras.layers.ReLU() | keras.layers.LeakyReLU():
                result = self._rectified(layer, first)
            case keras.layers.Flatten() | keras.layers.Reshape() | keras.layers.Dropout() if (
                _is_channels_last(layer)
            ):
                result = first.taken(first.positions.reshape(1, *shape[1:]))
            case _:
                raise _unsupported(type(layer).__name__)
        return result

    def _activated(self, layer: keras.layers.Layer, tensor: Tensor) -> Tensor:
        """By the function itself: another one may bear its name."""
        import keras

        match layer.activation:
            case keras.activations.linear:
                return tensor
            case keras.activations.relu:
                return self.lowering.relu(tensor)
            case keras.layers.ReLU() | keras.layers.LeakyReLU() as activation:
                _check_layer(activation)
                return self._rectified(activation, tensor)
            case unknown:
                raise _unsupported(getattr(unknown, "__name__", type(unknown).__name__))

    def _rectified(self, layer: keras.layers.Layer, tensor: Tensor) -> Tensor:
        """A ReLU or LeakyReLU; its numbers are float32 in the model."""
        if getattr(layer, "threshold", 0):
            raise _unsupported(f"{type(layer).__name__} with threshold = {layer.threshold}")
        limit = getattr(layer, "max_value", None)
        upper = np.inf if limit is None else float(np.float32(limit))
        slope = np.float32(layer.negative_slope)
        if slope:
            return self.lowering.clipped(self.lowering.bent(tensor, slope), -np.inf, upper)
        return self.lowering.clipped(tensor, 0.0, upper)

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
            epsilon=float(np.float32(layer.epsilon)),
            scale=_array(layer.gamma) if layer.scale else np.ones_like(mean),
            shift=_array(layer.beta) if layer.center else np.zeros_like(mean),
        )


def _unsupported(what: str) -> CertiflowError:
    return CertiflowError(
        f"({what}) cannot be verified: supported are {SUPPORTED}; choose another architecture"
    )


def _is_channels_last(layer: keras.layers.Layer) -> bool:
    return bool(getattr(layer, "data_format", "channels_last") == "channels_last")


def _check_layer(layer: keras.layers.Layer) -> None:
    """Refuses what computes another function than Keras's float32 layer of the same parameters."""
    kind = type(layer)
    if not _is_of_keras(layer):
        raise _unsupported(f"{kind.__name__} of {kind.__module__}")
    mode = getattr(layer, "quantization_mode", None) or getattr(layer, "compute_dtype", "float32")
    if mode != "float32":
        raise _unsupported(f"{kind.__name__} in {mode}")


def _check_arguments(layer: keras.layers.Layer, arguments: dict[str, Any]) -> None:
    """Refuses what a call gives besides tensors: by training=True a layer sees the whole batch."""
    for name, value in arguments.items():
        if value is not None and value is not False:
            raise CertiflowError(
                f"({type(layer).__name__}) is called with {name} = {value}, which cannot be "
                "verified; build the model without it"
            )


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
