"""The float64 network that proofs speak about."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise, repeat
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from tasks.core.arrays import BoolArray, FloatArray
from tasks.core.errors import CertiflowError
from tasks.core.networks.activation import Activation
from tasks.core.networks.block_matrix import stored
from tasks.core.networks.cones import Cone, cones
from tasks.core.networks.matrices import DenseMatrix, Matrix

LARGE = 4096  # hidden units


@dataclass(frozen=True, eq=False, init=False)
class Affine:
    """`x -> W x + bias` with W of shape (outputs, inputs), float64.

    `sizes`, at least |bias|: for rounding to count, where the bias is a sum itself.
    """

    matrix: Matrix
    bias: FloatArray
    sizes: FloatArray

    def __init__(
        self, weight: FloatArray | Matrix, bias: FloatArray, sizes: FloatArray | None = None
    ) -> None:
        matrix = DenseMatrix(weight) if isinstance(weight, np.ndarray) else weight
        object.__setattr__(self, "matrix", matrix)
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "sizes", np.abs(bias) if sizes is None else sizes)

    @property
    def weight(self) -> FloatArray:
        """W as an array, made anew at every call where it is stored in blocks."""
        return self.matrix.dense()

    @cached_property
    def magnitude(self) -> float:
        """The greatest absolute weight or bias."""
        parts = (*self.matrix.arrays(), self.bias, self.sizes)  # places in blocks are small numbers
        return max(float(np.abs(part).max(initial=0)) for part in parts)

    @cached_property
    def absolute(self) -> Affine:
        """`x -> |W| x + sizes`, which is |bias| unless that is a sum."""
        return Affine(self.matrix.absolute(), self.sizes)

    @cached_property
    def single(self) -> Affine:
        """In float32."""
        with np.errstate(over="ignore"):
            return Affine(self.matrix.single(), self.bias.astype(np.float32))

    def restricted(self, rows: BoolArray, columns: BoolArray) -> Affine:
        """The marked outputs and inputs alone."""
        if rows.all() and columns.all():
            return self
        return Affine(self.matrix.restricted(rows, columns), self.bias[rows], self.sizes[rows])

    def fixed(self, free: BoolArray, values: FloatArray) -> Affine:
        """Of the free inputs alone, the others at `values`, (inputs,).

        What is rounded in the new bias is in its `sizes`: gamma of as few terms as are left, times
        them, is gamma of all terms times their magnitudes.
        """
        every = np.ones(len(self.bias), dtype=bool)
        rest = Affine(self.matrix.restricted(every, ~free), self.bias, self.sizes)
        more = (len(free) + 8) / (int(free.sum()) + 8)
        sizes = more * rest.absolute(np.abs(values[~free])[None])[0] * (1 + 2.0**-20)
        return Affine(self.matrix.restricted(every, free), rest(values[~free][None])[0], sizes)

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to other processes is without what was computed from it."""
        return {"matrix": self.matrix, "bias": self.bias, "sizes": self.sizes}

    def __call__(self, x: FloatArray) -> FloatArray:
        """Rows of `x`, shape (batch, inputs), through the map."""
        return self.matrix.forward(x) + self.bias

    def after(self, first: Affine) -> Affine:
        """The one map that applies `first` and then this, dense."""
        return Affine(self.matrix.forward(first.weight.T).T, self(first.bias[None])[0])


@dataclass(frozen=True, eq=False)
class Roundings:
    """How a model computes an affine layer, which may be several steps there.

    In float32 each step is rounded; in float64 what made one layer of them was, no more often. What
    steps add may cancel: both errors are relative to what it was before.

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

    def cancellation(self, layer: Affine) -> float:
        """How many times |W| the weights of `absolute_of` are at most; infinite where |W| is 0."""
        if self.absolute is None:
            return 1.0
        whole, left = self.absolute.matrix.sparse(), abs(layer.matrix.sparse())
        left.eliminate_zeros()
        if (whole - whole.multiply(left != 0)).max() > 0:
            return np.inf
        times = float(whole.multiply(left.power(-1.0)).max())
        return max(times, 1.0) if times < np.inf else np.inf  # also of NaN


@dataclass(frozen=True, eq=False, init=False)
class ReluNetwork:
    """Affine maps with an activation between each two, none after the last, over flattened inputs.

    `activations[k]` says what hidden layer k does: ReLUs, of which `linear[k]` may mark units that
    pass unchanged instead, as residual connections and max pooling need; or, in a curved network,
    other functions and products. What only knows ReLUs reads `linear`, which a curved network
    refuses. `roundings[k]` tells how the model in float32 computes layer k; by default in one step.
    Raises `CertiflowError` when shapes do not chain or a weight is not finite.
    """

    layers: tuple[Affine, ...]
    activations: tuple[Activation, ...]
    roundings: tuple[Roundings, ...]

    def __init__(
        self,
        layers: tuple[Affine, ...],
        linear: tuple[BoolArray, ...] = (),
        roundings: tuple[Roundings, ...] = (),
        activations: tuple[Activation, ...] = (),
    ) -> None:
        """By default all units are ReLUs but those that `linear` marks."""
        if not activations:
            masks = linear or tuple(np.zeros(len(a.bias), dtype=bool) for a in layers[:-1])
            activations = tuple(map(Activation.of_relus, masks))
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "activations", activations)
        object.__setattr__(self, "roundings", roundings or tuple(map(Roundings.of, layers)))
        self._check()

    def _check(self) -> None:
        assert len(self.roundings) == len(self.layers)
        assert [len(each) for each in self.activations] == [len(a.bias) for a in self.layers[:-1]]
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

    @cached_property
    def is_curved(self) -> bool:
        """Whether any unit is neither a ReLU nor linear."""
        return any(each.is_curved for each in self.activations)

    @cached_property
    def linear(self) -> tuple[BoolArray, ...]:
        """For each hidden layer the units, (units,), that pass; the others are ReLUs.

        Raises `CertiflowError` when that is not so.
        """
        if self.is_curved:
            names = ", ".join(sorted({name for each in self.activations for name in each.names}))
            raise CertiflowError(
                f"the network has units of {names}: this can be asked of networks of ReLUs alone; "
                "verify, radius and evaluate read the others"
            )
        return tuple(each.linear for each in self.activations)

    @cached_property
    def is_large(self) -> bool:
        """Whether hidden bounds of CROWN take much longer than an attack, or a pass of points."""
        return sum(map(len, self.activations)) > LARGE

    @cached_property
    def has_blocks(self) -> bool:
        """Whether any matrix is in blocks, as those of convolutions are."""
        return not all(isinstance(layer.matrix, DenseMatrix) for layer in self.layers)

    @property
    def num_inputs(self) -> int:
        return self.layers[0].matrix.shape[1]

    @property
    def num_outputs(self) -> int:
        return self.layers[-1].matrix.shape[0]

    def __call__(self, inputs: ArrayLike) -> FloatArray:
        """Logits, shape (batch, outputs), of inputs of shape (batch, …)."""
        return self.preactivations(inputs)[-1]

    def preactivations(
        self, inputs: ArrayLike, dtype: type[np.floating] = np.float64
    ) -> list[FloatArray]:
        """Every affine layer's output, shape (batch, units) each; the last are the logits.

        `dtype` is that of the weights: float64 but of what `single` gave.
        """
        x = np.asarray(inputs, dtype=dtype)
        x = x.reshape(len(x), self.num_inputs)
        outputs = [self.layers[0](x)]
        for layer, activation in zip(self.layers[1:], self.activations, strict=True):
            outputs.append(layer(activation(outputs[-1])))
        return outputs

    def single(self) -> ReluNetwork:
        """In float32, for attacks on large networks: nothing is proved of it."""
        layers = tuple(layer.single for layer in self.layers)
        return ReluNetwork(layers, roundings=self.roundings, activations=self.activations)

    def gradient(self, preactivations: Sequence[FloatArray], direction: FloatArray) -> FloatArray:
        """Gradient of `direction @ logits` by the inputs: (batch, outputs) to (batch, inputs).

        Where the inputs are is what `preactivations` gave there.
        """
        gradient = self.layers[-1].matrix.backward(direction)
        for layer, activation, values in zip(
            self.layers[-2::-1], self.activations[::-1], preactivations[-2::-1], strict=True
        ):
            gradient = layer.matrix.backward(activation.backward(values, gradient))
        return gradient

    def sums(self, depth: int) -> tuple[Affine, int]:
        """What float64's errors in affine layer `depth` are relative to, and roundings before it.

        The layer's |W| and |b| before what was folded into them cancelled, and at most how often
        folding rounded: so `layer(x)` is off what the model's steps make of x, in exact arithmetic.
        """
        roundings = self.roundings[depth]
        return roundings.absolute_of(self.layers[depth]), roundings.count

    def cones(self, depth: int) -> list[Cone] | None:
        """Of the units of affine layer `depth`; None where they read too much of those before.

        Of a curved network there are none.
        """
        if self.is_curved:
            return None
        if depth not in self._cones:
            parts = list(zip(self.layers, self.roundings, strict=True))[: depth + 1]
            shifts = [(each.bias, own.absolute_of(each).bias) for each, own in parts]
            self._cones[depth] = cones(
                [each.matrix for each, _ in parts], shifts, self.linear[:depth]
            )
        return self._cones[depth]

    def of_cone(self, cone: Cone) -> ReluNetwork:
        """From what matters of the inputs at one of the places to its units, if all is shared.

        For bounds in float64 alone: nothing is said of the model in float32. Where weights have
        cancelled, as many more roundings are counted as what they were before is greater; that must
        be finite (see `cancellations`).
        """
        assert cone.first is None
        parts = zip(cone.matrices, cone.shifts, strict=True)
        layers = tuple(Affine(matrix, *shift) for matrix, shift in parts)
        terms = 8 + sum(3 * sum(layer.matrix.shape) for layer in layers)  # of any sum, at most
        roundings = []
        for own, times in zip(self.roundings, self.cancellations[: len(layers)], strict=False):
            count = own.count if times == 1 else ceil(times * (terms + own.count))
            roundings.append(Roundings(count, own.gain))
        return ReluNetwork(layers, tuple(cone.linear), tuple(roundings))

    @cached_property
    def cancellations(self) -> tuple[float, ...]:
        """Of each layer, how many times |W| its weights were before what was folded cancelled.

        Infinite where something cancelled wholly.
        """
        parts = zip(self.roundings, self.layers, strict=True)
        return tuple(own.cancellation(layer) for own, layer in parts)

    @cached_property
    def _cones(self) -> dict[int, list[Cone] | None]:
        return {}

    def up_to(self, depth: int) -> ReluNetwork:
        """The network whose outputs are those of affine layer `depth`, counted from 0."""
        end = depth + 1
        return ReluNetwork(
            self.layers[:end],
            roundings=self.roundings[:end],
            activations=self.activations[:depth],
        )

    def restricted(self, kept: Sequence[BoolArray]) -> ReluNetwork:
        """Without the hidden units that `kept`, a mask (units,) for each hidden layer, leaves out.

        The same function wherever the units left out are zero after their activation. A product
        keeps its partner.
        """
        inputs = (np.ones(self.num_inputs, dtype=bool), *kept)
        outputs = (*kept, np.ones(self.num_outputs, dtype=bool))
        layers = tuple(
            layer.restricted(rows, columns)
            for layer, rows, columns in zip(self.layers, outputs, inputs, strict=True)
        )
        activations = tuple(
            each.restricted(units) for each, units in zip(self.activations, kept, strict=True)
        )
        roundings = tuple(
            each if each.absolute is None else replace(each, absolute=each.absolute.restricted(*at))
            for each, *at in zip(self.roundings, outputs, inputs, strict=True)
        )
        part = ReluNetwork(layers, roundings=roundings, activations=activations)
        first = next((k for k, mask in enumerate(kept) if not mask.all()), len(self.layers))
        part._cones.update({depth: each for depth, each in self._cones.items() if depth < first})
        return part

    def fixed(self, free: BoolArray, values: FloatArray) -> ReluNetwork:
        """The network of the free inputs alone, the others at `values`, (inputs,).

        For bounds in float64 alone: nothing is said of the model in float32.
        """
        first, (own, *others) = self.layers[0].fixed(free, values), self.roundings
        if own.absolute is not None:
            own = replace(own, absolute=own.absolute.fixed(free, np.abs(values)).absolute)
        part = ReluNetwork(
            (first, *self.layers[1:]), roundings=(own, *others), activations=self.activations
        )
        matrices = self.layers[0].matrix, first.matrix
        if isinstance(matrices[0], DenseMatrix) and isinstance(matrices[1], DenseMatrix):
            for depth, found in self._cones.items():
                part._cones[depth] = found and [cone.with_first(matrices[1]) for cone in found]
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
        passing = Activation.of_relus(np.ones(count, dtype=bool))
        return ReluNetwork(
            layers,
            roundings=tuple(
                replace(each, absolute=_joined(join, layer, identity))
                for each, join, layer in zip(self.roundings, joins, absolute, strict=True)
            ),
            activations=tuple(Activation.joined([each, passing]) for each in self.activations),
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
        for each in self.activations:
            digest.update(each.linear.tobytes())
            if each.is_curved:
                digest.update(b"curved" + each.codes.tobytes() + each.partners.tobytes())
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
