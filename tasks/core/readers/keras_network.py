"""Lowering of a Keras model to the float64 `ReluNetwork` that proofs speak about."""

from __future__ import annotations

from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.errors import CertiflowError
from tasks.core.networks.network import ReluNetwork
from tasks.core.readers.keras_activations import activated, of_layer
from tasks.core.readers.keras_endings import ends_of
from tasks.core.readers.keras_graph import Walk, check_layer, only_input, unsupported
from tasks.core.readers.keras_images import (
    average_pool,
    convolution,
    global_average_pool,
    is_channels_last,
    is_plain_transposed,
    max_pool,
    transposed_convolution,
    upsampled,
)
from tasks.core.tensors import composed
from tasks.core.tensors.endings import decided
from tasks.core.tensors.lowering import ROOT_ROUNDINGS, Lowering
from tasks.core.tensors.tensor import Tensor
from tasks.core.tensors.windows import Shape

if TYPE_CHECKING:
    import keras


def relu_network(model: keras.Model, *, whole: bool = False) -> ReluNetwork:
    """The same function as a Sequential or functional `model` in float64, over flattened inputs.

    Of a closing softmax the logits, of a single sigmoid the logits (0, z); see `endings`. With
    `whole` the outputs are the model's own, whatever it ends with.

    The weights are the model's float32 weights; where batch normalisation or consecutive affine
    layers become one map, the float64 numbers nearest to their products. Raises `CertiflowError`
    naming the layer when one cannot be expressed with affine maps, ReLUs, curves and products.
    """
    if whole:
        walk = _Lowered(model, only_input(model))
        return walk.lowering.network(walk.value(model.outputs[0]))
    source, logits, ending = ends_of(model)
    walk = _Lowered(model, source)
    result = walk.value(logits)
    return walk.lowering.network(decided(walk.lowering, result, ending))


class _Lowered(Walk[Tensor]):
    """Every tensor has a batch of 1."""

    def __init__(self, model: keras.Model, source: Any) -> None:
        self.lowering = Lowering((1, *source.shape[1:]))
        super().__init__(model, source, self.lowering.input)

    def result(self, layer: keras.layers.Layer, inputs: list[Tensor], shape: Shape) -> Tensor:
        import keras

        first = inputs[0]
        match layer:
            case keras.layers.Dense():
                result = self._activated(
                    layer, self._biased(layer, first.times(_array(layer.kernel)))
                )
            case keras.layers.DepthwiseConv2D() | keras.layers.Conv2D() if is_channels_last(layer):
                result = self._activated(layer, self._biased(layer, convolution(layer, first)))
            case keras.layers.Conv2DTranspose() if is_plain_transposed(layer):
                product = transposed_convolution(layer, first)
                result = self._activated(layer, self._biased(layer, product))
            case keras.layers.BatchNormalization():
                result = self._batch_normalised(layer, first)
            case keras.layers.Normalization():
                result = self._normalised(layer, first)
            case keras.layers.Rescaling() if _is_rescaled_as_it_is(layer):
                scaled = first.scaled(_single(layer.scale))
                result = self.lowering.add(scaled, self.lowering.constant(_single(layer.offset)))
            case keras.layers.Add() if len({len(tensor.shape) for tensor in inputs}) == 1:
                result = reduce(self.lowering.add, inputs)
            case keras.layers.Multiply() if len({len(tensor.shape) for tensor in inputs}) == 1:
                result = reduce(partial(composed.product, self.lowering), inputs)
            case keras.layers.Activation():
                result = self._activated(layer, first)
            case keras.layers.ReLU() | keras.layers.LeakyReLU():
                result = self._rectified(layer, first)
            case keras.layers.MaxPooling2D() if is_channels_last(layer):
                result = max_pool(layer, first, self.lowering)
            case _:
                bent = of_layer(self.lowering, layer, first)
                result = _moved_or_averaged(layer, first, shape) if bent is None else bent
        return result

    def _activated(self, layer: keras.layers.Layer, tensor: Tensor) -> Tensor:
        """By the function itself: another one may bear its name."""
        import keras

        found = activated(self.lowering, layer.activation, tensor)
        if found is not None:
            return found
        match layer.activation:
            case keras.layers.ReLU() | keras.layers.LeakyReLU() as activation:
                check_layer(activation)
                return self._rectified(activation, tensor)
            case keras.layers.Layer() as activation:
                check_layer(activation)
                found = of_layer(self.lowering, activation, tensor)
                if found is not None:
                    return found
        unknown = layer.activation
        raise unsupported(getattr(unknown, "__name__", type(unknown).__name__))

    def _rectified(self, layer: keras.layers.Layer, tensor: Tensor) -> Tensor:
        """A ReLU or LeakyReLU; its numbers are float32 in the model."""
        if getattr(layer, "threshold", 0):
            raise unsupported(f"{type(layer).__name__} with threshold = {layer.threshold}")
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

    def _normalised(self, layer: keras.layers.Normalization, tensor: Tensor) -> Tensor:
        """`(x - mean) / max(sqrt(variance), epsilon)`, or its inverse.

        The model subtracts first: so its error is relative to |x| + |mean|, whatever it divides by.
        """
        import keras

        mean, variance = _array(layer.mean), _array(layer.variance)
        if not (variance >= 0).all():
            raise CertiflowError(
                f"({type(layer).__name__}) has the variance {variance.min()}: expected none below "
                "0; adapt it again"
            )
        deviation = np.maximum(np.sqrt(variance), float(np.float32(keras.config.epsilon())))
        if layer.invert:
            scaled = tensor.scaled(deviation).rounded(ROOT_ROUNDINGS)
            return self.lowering.add(scaled, self.lowering.constant(mean))
        centred = self.lowering.add(tensor, self.lowering.constant(-mean))
        return centred.scaled(1 / deviation).rounded(ROOT_ROUNDINGS)


def _moved_or_averaged(layer: keras.layers.Layer, tensor: Tensor, shape: Shape) -> Tensor:
    """By a layer that has no numbers of its own."""
    import keras

    match layer:
        case keras.layers.Flatten() | keras.layers.Reshape() | keras.layers.Dropout() if (
            is_channels_last(layer)
        ):
            return tensor.taken(tensor.positions.reshape(1, *shape[1:]))
        case keras.layers.Permute():
            return tensor.taken(tensor.positions.transpose(0, *layer.dims))
        case keras.layers.UpSampling2D() if (
            is_channels_last(layer) and layer.interpolation == "nearest"
        ):
            return upsampled(layer, tensor)
        case keras.layers.AveragePooling2D() if is_channels_last(layer):
            return average_pool(layer, tensor)
        case keras.layers.GlobalAveragePooling2D() if is_channels_last(layer):
            return global_average_pool(layer, tensor)
    raise unsupported(type(layer).__name__)


def _is_rescaled_as_it_is(layer: keras.layers.Rescaling) -> bool:
    """With one scale, or one along the last axis: Keras reshapes others by a setting of its own."""
    import keras

    return np.ndim(layer.scale) == 0 or keras.config.image_data_format() == "channels_last"


def _single(values: Any) -> FloatArray:
    """Numbers that the model casts to float32."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def _array(weight: Any) -> FloatArray:
    return np.asarray(weight, dtype=np.float64)
