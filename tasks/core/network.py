"""The float64 network that proofs speak about."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from tasks.core.errors import CertiflowError
from tasks.core.specification import BoolArray, FloatArray


@dataclass(frozen=True, eq=False)
class Affine:
    """`x -> weight @ x + bias` with weight of shape (outputs, inputs), float64."""

    weight: FloatArray
    bias: FloatArray

    def __call__(self, x: FloatArray) -> FloatArray:
        """Rows of `x`, shape (batch, inputs), through the map."""
        return x @ self.weight.T + self.bias

    def after(self, first: Affine) -> Affine:
        """The one map that applies `first` and then this."""
        return Affine(self.weight @ first.weight, self(first.bias[None])[0])


@dataclass(frozen=True, eq=False)
class ReluNetwork:
    """Affine maps with a ReLU between each two, none after the last, over flattened inputs.

    `linear[k]`, shape (units,), marks the units of hidden layer k that pass unchanged instead of
    through the ReLU, as residual connections and max pooling need; by default there are none.
    Raises `CertiflowError` when shapes do not chain or a weight is not finite.
    """

    layers: tuple[Affine, ...]
    linear: tuple[BoolArray, ...] = ()

    def __post_init__(self) -> None:
        if not self.linear:
            none = tuple(np.zeros(len(layer.bias), dtype=bool) for layer in self.layers[:-1])
            object.__setattr__(self, "linear", none)
        assert [len(mask) for mask in self.linear] == [len(a.bias) for a in self.layers[:-1]]
        for number, layer in enumerate(self.layers, start=1):
            if not (np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all()):
                raise CertiflowError(
                    f"affine layer {number} has a weight that is NaN or infinite: "
                    "nothing can be proved about it; train the model again"
                )
        for number, (first, second) in enumerate(pairwise(self.layers), start=1):
            if first.weight.shape[0] != second.weight.shape[1]:
                raise CertiflowError(
                    f"affine layer {number} gives {first.weight.shape[0]} values, "
                    f"layer {number + 1} expects {second.weight.shape[1]}"
                )

    @property
    def num_inputs(self) -> int:
        return int(self.layers[0].weight.shape[1])

    @property
    def num_outputs(self) -> int:
        return int(self.layers[-1].weight.shape[0])

    def __call__(self, inputs: ArrayLike) -> FloatArray:
        """Logits, shape (batch, outputs), of inputs of shape (batch, …)."""
        return self.preactivations(inputs)[-1]

    def preactivations(self, inputs: ArrayLike) -> list[FloatArray]:
        """Every affine layer's output, shape (batch, units) each; the last are the logits."""
        x = np.asarray(inputs, dtype=np.float64)
        x = x.reshape(len(x), self.num_inputs)
        outputs = [self.layers[0](x)]
        for layer, linear in zip(self.layers[1:], self.linear, strict=True):
            outputs.append(layer(np.where(linear, outputs[-1], np.maximum(outputs[-1], 0))))
        return outputs

    def gradient(self, inputs: ArrayLike, direction: FloatArray) -> FloatArray:
        """Gradient of `direction @ logits` by the inputs: (batch, outputs) to (batch, inputs)."""
        hidden = self.preactivations(inputs)[:-1]
        gradient = direction @ self.layers[-1].weight
        for layer, linear, preactivation in zip(
            self.layers[-2::-1], self.linear[::-1], hidden[::-1], strict=True
        ):
            gradient = (gradient * (linear | (preactivation > 0))) @ layer.weight
        return gradient

    def restricted(self, kept: Sequence[BoolArray]) -> ReluNetwork:
        """Without the hidden units that `kept`, a mask (units,) for each hidden layer, leaves out.

        The same function wherever the units left out are zero after their activation.
        """
        inputs = (np.ones(self.num_inputs, dtype=bool), *kept)
        outputs = (*kept, np.ones(self.num_outputs, dtype=bool))
        layers = tuple(
            Affine(layer.weight[np.ix_(rows, columns)], layer.bias[rows])
            for layer, rows, columns in zip(self.layers, outputs, inputs, strict=True)
        )
        linear = tuple(mask[rows] for mask, rows in zip(self.linear, kept, strict=True))
        return ReluNetwork(layers, linear)

    def with_inputs(self) -> ReluNetwork:
        """The network that gives its inputs after its outputs, for constraints on both."""
        identity = np.eye(self.num_inputs)
        if len(self.layers) == 1:
            (only,) = self.layers
            return ReluNetwork((_stacked(only, identity),))
        first, *inner, last = self.layers
        return ReluNetwork(
            (
                _stacked(first, identity),
                *(_beside(layer, identity) for layer in inner),
                _beside(last, identity),
            ),
            tuple(np.append(mask, np.ones(self.num_inputs, dtype=bool)) for mask in self.linear),
        )

    @cached_property
    def sha256(self) -> str:
        """Digest of all weights and shapes: two networks share it only when they are the same."""
        digest = hashlib.sha256()
        for layer in self.layers:
            digest.update(repr(layer.weight.shape).encode())
            digest.update(np.ascontiguousarray(layer.weight).tobytes())
            digest.update(np.ascontiguousarray(layer.bias).tobytes())
        for mask in self.linear:
            digest.update(mask.tobytes())
        return digest.hexdigest()


def _stacked(layer: Affine, below: FloatArray) -> Affine:
    """`x -> (layer(x), below @ x)`."""
    return Affine(np.vstack([layer.weight, below]), np.append(layer.bias, np.zeros(len(below))))


def _beside(layer: Affine, block: FloatArray) -> Affine:
    """`(x, y) -> (layer(x), block @ y)`."""
    weight = np.zeros((len(layer.bias) + len(block), layer.weight.shape[1] + block.shape[1]))
    weight[: len(layer.bias), : layer.weight.shape[1]] = layer.weight
    weight[len(layer.bias) :, layer.weight.shape[1] :] = block
    return Affine(weight, np.append(layer.bias, np.zeros(len(block))))
