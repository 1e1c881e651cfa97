"""The float64 network that proofs speak about."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise, repeat
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from tasks.core.arrays import BoolArray, FloatArray
from tasks.core.errors import CertiflowError
from tasks.core.networks.block_matrix import stored
from tasks.core.networks.cones import Cone, cones
from tasks.core.networks.matrices import DenseMatrix, Matrix


@dataclass(frozen=True, eq=False, init=False)
class Affine:
    """`x -> W x + bias` with W of shape (outputs, inputs), float64."""

    matrix: Matrix
    bias: FloatArray

    def __init__(self, weight: FloatArray | Matrix, bias: FloatArray) -> None:
        matrix = DenseMatrix(weight) if isinstance(weight, np.ndarray) else weight
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "bias", bias)

    @property
    def weight(self) -> FloatArray:
        """W as an array, made anew at every call where it is stored in blocks."""
        return self.matrix.dense()

    @cached_property
    def magnitude(self) -> float:
        """The greatest absolute weight or bias."""
        parts = (*self.matrix.arrays(), self.bias)  # places in blocks are small numbers
        return max(float(np.abs(part).max(initial=0)) for part in parts)

    @cached_property
    def absolute(self) -> Affine:
        """`x -> |W| x + |bias|`."""
        return Affine(self.matrix.absolute(), np.abs(self.bias))

    def restricted(self, rows: BoolArray, columns: BoolArray) -> Affine:
        """The marked outputs and inputs alone."""
        if rows.all() and columns.all():
            return self
        return Affine(self.matrix.restricted(rows, columns), self.bias[rows])

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to other processes is without what was computed from it."""
        return {"matrix": self.matrix, "bias": self.bias}

    def __call__(self, x: FloatArray) -> FloatArray:
        """Rows of `x`, shape (batch, inputs), through the map."""
        return self.matrix.forward(x) + self.bias

    def after(self, first: Affine) -> Affine:
        """The one map that applies `first` and then this, dense."""
        return Affine(self.matrix.forward(first.weight.T).T, self(first.bias[None])[0])


@dataclass(frozen=True, eq=False)
class Roundings:
    """How a model in float32 computes an affine layer, which may be several steps there.

    Attributes:
        count: roundings on the way of any term to the layer's outputs, those of weights included.
        gain: what any step makes of inputs of at most 1 in magnitude is at most so great.
        absolute: |W| and |b|, multiplied step by step; None where they are the layer's own.
    """

    count: int
    gain: float
    absolute: Affine | None = None

    @classmethod
    def of(cls, layer: Affine) -> Roundings:
        """One step: a product for each input and the bias, from weights rounded to float32."""
        reach = layer.absolute(np.ones((1, layer.matrix.shape[1])))
        return cls(layer.matrix.shape[1] + 3, max(1.0, float(reach.max(initial=0))))

    def absolute_of(self, layer: Affine) -> Affine:
        """|W| and |b|, at least those of the layer."""
        return layer.absolute if self.absolute is None else self.absolute


@dataclass(frozen=True, eq=False)
class ReluNetwork:
    """Affine maps with a ReLU between each two, none after the last, over flattened inputs.

    `linear[k]`, shape (units,), marks the units of hidden layer k that pass unchanged instead of
    through the ReLU, as residual connections and max pooling need; by default there are none.
    `roundings[k]` tells how the model in float32 computes layer k; by default in one step.
    Raises `CertiflowError` when shapes do not chain or a weight is not finite.
    """

    layers: tuple[Affine, ...]
    linear: tuple[BoolArray, ...] = ()
    roundings: tuple[Roundings, ...] = ()

    def __post_init__(self) -> None:
        if not self.roundings:
            object.__setattr__(self, "roundings", tuple(map(Roundings.of, self.layers)))
        assert len(self.roundings) == len(self.layers)
        if not self.linear:
            none = tuple(np.zeros(len(layer.bias), dtype=bool) for layer in self.layers[:-1])
            object.__setattr__(self, "linear", none)
        assert [len(mask) for mask in self.linear] == [len(a.bias) for a in self.layers[:-1]]
        for number, layer in enumerate(self.layers, start=1):
            if not all(np.isfinite(part).all() for part in (*layer.matrix.arrays(), layer.bias)):
                raise CertiflowError(
                    f"affine layer {number} has a weight that is NaN or infinite: "
                    "nothing can be proved about it; train the model again"
                )
        for number, (first, second) in enumerate(pairwise(self.layers), start=1):
            if first.matrix.shape[0] != second.matrix.shape[1]:
                raise CertiflowError(
                    f"affine layer {number} gives {first.matrix.shape[0]} values, "
                    f"layer {number + 1} expects {second.matrix.shape[1]}"
                )

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to other processes is without what was computed from it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @property
    def num_inputs(self) -> int:
        return self.layers[0].matrix.shape[1]

    @property
    def num_outputs(self) -> int:
        return self.layers[-1].matrix.shape[0]

    def __call__(self, inputs: ArrayLike) -> FloatArray:
        """Logits, shape (batch, outputs), of inputs of shape (batch, …)."""
        return self.preactivations(inputs)[-1]

    def preactivations(self, inputs: ArrayLike) -> list[FloatArray]:
        """Every affine layer's output, shape (batch, units) each; the last are the logits."""
        x = np.asarray(inputs, dtype=np.float64)
        x = x.reshape(len(x), self.num_inputs)
        outputs = [self.layers[0](x)]
        for layer, linear in zip(self.layers[1:], self._passing, strict=True):
            activations = np.maximum(outputs[-1], 0)
            if linear is not None:
                activations = np.where(linear, outputs[-1], activations)
            outputs.append(layer(activations))
        return outputs

    def gradient(self, preactivations: Sequence[FloatArray], direction: FloatArray) -> FloatArray:
        """Gradient of `direction @ logits` by the inputs: (batch, outputs) to (batch, inputs).

        Where the inputs are is what `preactivations` gave there.
        """
        gradient = self.layers[-1].matrix.backward(direction)
        for layer, linear, preactivation in zip(
            self.layers[-2::-1], self._passing[::-1], preactivations[-2::-1], strict=True
        ):
            slope = preactivation > 0
            if linear is not None:
                slope |= linear
            gradient = layer.matrix.backward(gradient * slope)
        return gradient

    @cached_property
    def _passing(self) -> tuple[BoolArray | None, ...]:
        """`linear`, with None for a layer of ReLUs alone: it is evaluated by the thousand."""
        return tuple(mask if mask.any() else None for mask in self.linear)

    def cones(self, depth: int) -> list[Cone] | None:
        """Of the units of affine layer `depth`; None where they read too much of those before."""
        if depth not in self._cones:
            layers = self.layers[: depth + 1]
            matrices, biases = [each.matrix for each in layers], [each.bias for each in layers]
            self._cones[depth] = cones(matrices, biases, self.linear[:depth])
        return self._cones[depth]

    @classmethod
    def of_cone(cls, cone: Cone) -> ReluNetwork:
        """From what matters of the inputs at one of the places to its units."""
        layers = map(Affine, cone.matrices, cone.biases)
        return cls(tuple(layers), tuple(cone.linear))

    @cached_property
    def _cones(self) -> dict[int, list[Cone] | None]:
        return {}

    def up_to(self, depth: int) -> ReluNetwork:
        """The network whose outputs are those of affine layer `depth`, counted from 0."""
        end = depth + 1
        return ReluNetwork(self.layers[:end], self.linear[:depth], self.roundings[:end])

    def restricted(self, kept: Sequence[BoolArray]) -> ReluNetwork:
        """Without the hidden units that `kept`, a mask (units,) for each hidden layer, leaves out.

        The same function wherever the units left out are zero after their activation.
        """
        inputs = (np.ones(self.num_inputs, dtype=bool), *kept)
        outputs = (*kept, np.ones(self.num_outputs, dtype=bool))
        layers = tuple(
            layer.restricted(rows, columns)
            for layer, rows, columns in zip(self.layers, outputs, inputs, strict=True)
        )
        linear = tuple(mask[rows] for mask, rows in zip(self.linear, kept, strict=True))
        roundings = tuple(
            each if each.absolute is None else replace(each, absolute=each.absolute.restricted(*at))
            for each, *at in zip(self.roundings, outputs, inputs, strict=True)
        )
        part = ReluNetwork(layers, linear, roundings)
        first = next((k for k, mask in enumerate(kept) if not mask.all()), len(self.layers))
        part._cones.update({depth: each for depth, each in self._cones.items() if depth < first})
        return part

    def with_inputs(self) -> ReluNetwork:
        """The network that gives its inputs after its outputs, for constraints on both."""
        return self._carrying(self.num_inputs, sparse.vstack)

    def beside(self, count: int) -> ReluNetwork:
        """The network `(x, y) -> (network(x), y)`: so many inputs more, which pass unchanged."""
        return self._carrying(count, sparse.block_diag)

    def _carrying(self, count: int, first: Callable[..., sparse.csr_array]) -> ReluNetwork:
        """With as many values beside the units, that join its first layer by `first`."""
        identity = sparse.eye_array(count, format="csr")
        joins = [first, *[sparse.block_diag] * (len(self.layers) - 1)]
        layers = tuple(map(_joined, joins, self.layers, repeat(identity)))
        absolute = map(Roundings.absolute_of, self.roundings, self.layers)
        return ReluNetwork(
            layers,
            tuple(np.append(mask, np.ones(count, dtype=bool)) for mask in self.linear),
            tuple(
                replace(each, absolute=_joined(join, layer, identity))
                for each, join, layer in zip(self.roundings, joins, absolute, strict=True)
            ),
        )

    @cached_property
    def sha256(self) -> str:
        """Digest of all weights and where they belong: two different functions never share it.

        The same function may have two, when its matrices are stored in unlike ways.
        """
        digest = hashlib.sha256()
        for layer in self.layers:
            parts = [*layer.matrix.arrays(), layer.bias]
            shapes = [(part.shape, part.dtype.str) for part in parts]
            digest.update(repr((layer.matrix.shape, shapes)).encode())
            for part in parts:
                digest.update(np.ascontiguousarray(part).tobytes())
        for mask in self.linear:
            digest.update(mask.tobytes())
        for roundings in self.roundings:
            digest.update(repr((roundings.count, roundings.gain)).encode())
            if roundings.absolute is not None:
                for part in (*roundings.absolute.matrix.arrays(), roundings.absolute.bias):
                    digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def _joined(
    join: Callable[..., sparse.csr_array], layer: Affine, identity: sparse.csr_array
) -> Affine:
    """`x -> (layer(x), x)` by `sparse.vstack`, `(x, y) -> (layer(x), y)` by `sparse.block_diag`."""
    matrix = join([layer.matrix.sparse(), identity], format="csr")
    return Affine(stored(matrix), np.append(layer.bias, np.zeros(identity.shape[0])))
