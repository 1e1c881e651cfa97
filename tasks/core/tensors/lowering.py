"""Lowering of a graph of tensors to the float64 `ReluNetwork`, whatever file it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.errors import CertiflowError
from tasks.core.networks.activation import Activation
from tasks.core.networks.block_matrix import stored
from tasks.core.networks.curves import CURVES, Kind
from tasks.core.networks.network import Affine, ReluNetwork, Roundings
from tasks.core.tensors.convolutions import channel_windows
from tasks.core.tensors.tensor import Tensor, along
from tasks.core.tensors.windows import Shape, Window

BEYOND_FLOAT32 = 2**24  # roundings, with which nothing is known
MOST_UNITS = 250_000  # inputs and hidden ones: far more than bounds can be had of in any time
ROOT_ROUNDINGS = 16  # of one divided by a square root, with the fewest instructions


@dataclass(frozen=True, eq=False)
class _Block:
    """Units of a hidden layer: their values, and one activation for all.

    `partners` are those of products, places in the layer.
    """

    tensor: Tensor
    kind: Kind = Kind.RELU
    linear: bool = False
    partners: IntArray | None = None


@dataclass(frozen=True, eq=False)
class Bent:
    """`gain * f(inner) + shift`, f the curve of a kind."""

    kind: Kind
    inner: Tensor
    gain: float
    shift: float


class Lowering:
    """Collects the hidden units of one network while its graph is walked in order.

    Every method returns a new tensor. A tensor that is combined with one of a deeper hidden layer
    passes through the layers between as linear units, so residual connections need no lookahead.
    """

    def __init__(self, shape: Shape) -> None:
        size = prod(shape)
        _check_units(size)
        each, none = sparse.eye_array(size, format="csr"), np.zeros(size)
        self.input = Tensor(each, none, shape, 0, each, none)
        self._widths = [size]
        self._units: list[list[_Block]] = []
        self._lifted: dict[Tensor, Tensor] = {}
        self._factors: dict[tuple[Tensor, int], Tensor] = {}
        self._least_roundings = 0

    def distrust_constants(self) -> None:
        """Some are results that the model may compute otherwise: no error bound covers that."""
        self._least_roundings = BEYOND_FLOAT32

    def constant(self, values: ArrayLike) -> Tensor:
        """A tensor that depends on nothing."""
        array = np.asarray(values, dtype=np.float64)
        nothing, offset = sparse.csr_array((array.size, 0)), np.abs(array.ravel())
        gain = max(1.0, float(offset.max(initial=0)))
        return Tensor(nothing, array.ravel(), array.shape, 0, nothing, offset, gain=gain)

    def add(self, first: Tensor, second: Tensor) -> Tensor:
        """Elementwise sum, broadcast to one shape."""
        shape = np.broadcast_shapes(first.shape, second.shape)
        one, other = (tensor.spread(shape) for tensor in self._aligned([first, second]))
        return Tensor(
            one.matrix + other.matrix,
            one.constant + other.constant,
            shape,
            one.depth,
            one.absolute + other.absolute,
            one.offset + other.offset,
            max(one.roundings, other.roundings) + 1,
            one.gain + other.gain,
        )

    def batch_normalised(
        self,
        tensor: Tensor,
        axis: int,
        *,
        mean: FloatArray,
        variance: FloatArray,
        epsilon: float,
        scale: FloatArray,
        shift: FloatArray,
    ) -> Tensor:
        """`scale * (x - mean) / sqrt(variance + epsilon) + shift`, per index of `axis`.

        Runtimes compute it in various ways, some folded into the layer before.
        """
        if not (variance + epsilon > 0).all():
            raise CertiflowError(
                f"the variance {variance.min()} + {epsilon} is not positive: nothing can be "
                "divided by its root; train the model again"
            )
        factor = scale / np.sqrt(variance + epsilon)
        rank = len(tensor.shape)
        scaled = tensor.scaled(along(factor, axis, rank)).rounded(ROOT_ROUNDINGS)
        centred = self.add(scaled, self.constant(along(-factor * mean, axis, rank)))
        return self.add(centred, self.constant(along(shift, axis, rank)))

    def stacked(self, tensors: Sequence[Tensor]) -> Tensor:
        """All elements of all tensors, one after another, in one axis."""
        aligned = self._aligned(tensors)
        constant = np.concatenate([tensor.constant for tensor in aligned])
        return Tensor(
            sparse.vstack([tensor.matrix for tensor in aligned], format="csr"),
            constant,
            constant.shape,
            aligned[0].depth,
            sparse.vstack([tensor.absolute for tensor in aligned], format="csr"),
            np.concatenate([tensor.offset for tensor in aligned]),
            max(tensor.roundings for tensor in aligned),
            max(tensor.gain for tensor in aligned),
        )

    def relu(self, tensor: Tensor) -> Tensor:
        """`max(x, 0)`, as units of the next hidden layer."""
        return self._through(_Block(tensor))

    def curved(self, kind: Kind, tensor: Tensor) -> Tensor:
        """A curve of every element, as units of the next hidden layer; see `curves`."""
        return self._through(_Block(tensor, kind))

    def origin(self, tensor: Tensor) -> Bent | None:
        """What a tensor is, where each element is made alike of a unit of one curve; else None."""
        if tensor.depth == 0:
            return None
        entries, blocks = tensor.matrix, self._units[tensor.depth - 1]
        is_single = entries.nnz == len(tensor.constant) > 0 and (np.diff(entries.indptr) == 1).all()
        if not is_single or np.ptp(entries.data) or np.ptp(tensor.constant):
            return None
        starts = np.cumsum([0, *(len(block.tensor.constant) for block in blocks)])
        place = int(np.searchsorted(starts, entries.indices[0], side="right")) - 1
        places = entries.indices - starts[place]
        block = blocks[place]
        if (
            block.kind not in CURVES
            or places.min() < 0
            or entries.indices.max() >= starts[place + 1]
        ):
            return None
        inner = block.tensor.taken(places.reshape(tensor.shape).astype(np.int64))
        return Bent(block.kind, inner, float(entries.data[0]), float(tensor.constant[0]))

    def product(self, first: Tensor, second: Tensor, places: IntArray | None = None) -> Tensor:
        """Elementwise `first * second`, broadcast to one shape; of one tensor its square.

        As units of the next hidden layer: those of `second` pass, those of `first` multiply. With
        `places` these are the elements of `second` that those of `first` are multiplied with.
        """
        if first is second and places is None:
            return self.curved(Kind.SQUARE, first)
        one, other = self._aligned([first, second])
        places = second.positions if places is None else places
        shape = np.broadcast_shapes(first.shape, places.shape)
        key = second, one.depth
        if key not in self._factors:
            self._factors[key] = self._through(_Block(other, linear=True))
        units = self._factors[key].matrix.indices[places]
        partners = np.broadcast_to(units, shape).ravel().astype(np.int64)
        return self._through(_Block(one.spread(shape), Kind.PRODUCT, partners=partners))

    def clipped(self, tensor: Tensor, lower: float, upper: float) -> Tensor:
        """`x + relu(lower - x) - relu(x - upper)`, which is x clipped to [lower, upper].

        `lower + relu(x - lower)` would lose x in rounding where lower stands for minus infinity.
        """
        clipped = self.relu(tensor) if lower == 0 else tensor
        if lower != 0 and lower > -np.inf:
            below = self.add(self.constant(lower), tensor.scaled(-1.0))
            clipped = self.add(tensor, self.relu(below))
        if upper < np.inf:
            beyond = self.relu(self.add(tensor, self.constant(-upper)))
            clipped = self.add(clipped, beyond.scaled(-1.0))
        return clipped

    def maximum(self, first: Tensor, second: Tensor) -> Tensor:
        """`max(a, b) = a + relu(b - a)`; where `second` is nothing but 0, `relu(a)`.

        What only cancels out to 0 in float64 need not be 0 in the model.
        """
        is_zero = not (second.absolute.nnz or second.offset.any() or second.constant.any())
        if is_zero and np.broadcast_shapes(first.shape, second.shape) == first.shape:
            return self.relu(first)
        return self.add(first, self.relu(self.add(second, first.scaled(-1.0))))

    def max_pooled(self, tensor: Tensor, window: Window) -> Tensor:
        """Greatest elements over the windows of (1, channels, *sizes); padding never wins."""
        under, shape = channel_windows(tensor, window)
        anyone = under.max(axis=1, keepdims=True)  # max(a, a) = a stands in for the padding
        columns = [tensor.taken(column) for column in np.where(under < 0, anyone, under).T]
        while len(columns) > 1:
            pairs = zip(columns[::2], columns[1::2], strict=False)
            columns = [self.maximum(a, b) for a, b in pairs] + columns[len(columns) // 2 * 2 :]
        return columns[0].taken(np.arange(len(under)).reshape(shape))

    def network(self, output: Tensor) -> ReluNetwork:
        """The network whose outputs are this tensor's elements; consecutive affine maps are one."""
        layers_of_blocks = [*self._units[: output.depth], [_Block(output)]]
        layers = [
            _layer([block.tensor for block in blocks], width)
            for blocks, width in zip(layers_of_blocks, self._widths, strict=False)
        ]
        return ReluNetwork(
            tuple(layer for layer, _ in layers),
            roundings=tuple(
                replace(roundings, count=max(roundings.count, self._least_roundings))
                for _, roundings in layers
            ),
            activations=tuple(map(_activation, layers_of_blocks[:-1])),
        )

    def _aligned(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors over the units of the deepest one's layer."""
        depth = max(tensor.depth for tensor in tensors)
        lifted = [self._lift(tensor, depth) for tensor in tensors]
        width = self._widths[depth]
        return [
            replace(
                tensor,
                matrix=_widened(tensor.matrix, width),
                absolute=_widened(tensor.absolute, width),
                depth=depth,
            )
            for tensor in lifted
        ]

    def _lift(self, tensor: Tensor, depth: int) -> Tensor:
        # what cancels out in float64 need not do so in the model
        varying = np.flatnonzero(np.diff(tensor.matrix.indptr) | np.diff(tensor.absolute.indptr))
        if not len(varying):
            return replace(tensor, depth=depth)
        while tensor.depth < depth:
            if tensor not in self._lifted:
                self._lifted[tensor] = self._through(_Block(tensor, linear=True), varying)
            tensor = self._lifted[tensor]
        return tensor

    def _through(self, block: _Block, rows: IntArray | None = None) -> Tensor:
        """The tensor with `rows`, by default all, made units of the next hidden layer.

        The others are constant.
        """
        tensor = block.tensor
        depth = tensor.depth + 1
        rows = np.arange(len(tensor.constant)) if rows is None else rows
        _check_units(sum(self._widths) + len(rows))
        if depth == len(self._widths):
            self._widths.append(0)
            self._units.append([])
        every = len(rows) == len(tensor.constant)
        self._units[depth - 1].append(block if every else replace(block, tensor=tensor.taken(rows)))
        units = self._widths[depth] + np.arange(len(rows))
        self._widths[depth] += len(rows)
        constant, offset = tensor.constant.copy(), tensor.offset.copy()
        constant[rows] = offset[rows] = 0
        left = bool(offset.any())  # constants keep the roundings of their way here, zeros as well
        matrix = sparse.csr_array(
            (np.ones(len(rows)), (rows, units)), shape=(len(constant), self._widths[depth])
        )
        return Tensor(
            matrix,
            constant,
            tensor.shape,
            depth,
            matrix,
            offset,
            tensor.roundings if left else 0,
            tensor.gain if left else 1.0,
        )

    def bent(self, tensor: Tensor, slopes: ArrayLike) -> Tensor:
        """x where it is positive, else `slopes * x`; the slopes broadcast to the tensor's shape.

        `slopes * x - slopes * relu(x) + relu(x)` has no coefficient that must be rounded first.
        """
        factors = np.asarray(slopes, dtype=np.float64)
        positive = self.relu(tensor)
        below = self.add(tensor.scaled(factors), positive.scaled(-factors))
        if below.shape != tensor.shape:
            raise CertiflowError(
                f"slopes of shape {factors.shape} do not broadcast to the shape {tensor.shape}"
            )
        return self.add(below, positive)


def _activation(blocks: Sequence[_Block]) -> Activation:
    """Of a layer of blocks."""
    sizes = [len(block.tensor.constant) for block in blocks]
    none = np.int64(-1)
    partners = [none if block.partners is None else block.partners for block in blocks]
    return Activation(
        np.repeat([block.linear for block in blocks], sizes),
        np.repeat([np.int8(block.kind) for block in blocks], sizes),
        np.concatenate(
            [np.broadcast_to(each, size) for each, size in zip(partners, sizes, strict=True)]
        ),
    )


def _check_units(count: int) -> None:
    if count > MOST_UNITS:
        raise CertiflowError(
            f"the network has {count:,} inputs and units or more: at most {MOST_UNITS:,} can be "
            "verified; choose a smaller network, or smaller inputs"
        )


def _layer(tensors: Sequence[Tensor], width: int) -> tuple[Affine, Roundings]:
    """The elements of all the tensors as one affine layer over `width` units."""
    constant = np.concatenate([tensor.constant for tensor in tensors])
    matrix, absolute = (
        sparse.vstack([_widened(part, width) for part in parts], format="csr")
        for parts in (
            [tensor.matrix for tensor in tensors],
            [tensor.absolute for tensor in tensors],
        )
    )
    offset = np.concatenate([tensor.offset for tensor in tensors])
    layer, folded = Affine(stored(matrix), constant), None
    if (offset != np.abs(constant)).any() or (absolute != abs(matrix)).nnz:
        folded = Affine(stored(absolute), offset)
    count = max(tensor.roundings for tensor in tensors)
    return layer, Roundings(count, max(tensor.gain for tensor in tensors), folded)


def _widened(matrix: sparse.csr_array, columns: int) -> sparse.csr_array:
    if matrix.shape[1] == columns:
        return matrix
    return sparse.csr_array(
        (matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], columns)
    )
