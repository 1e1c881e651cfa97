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
from tasks.core.networks.matrices import check_size, stored
from tasks.core.networks.network import Affine, ReluNetwork, Roundings
from tasks.core.networks.windows import Shape, Window


@dataclass(frozen=True, eq=False)
class Tensor:
    """`matrix @ units + constant` in row-major order, over the units of hidden layer `depth`.

    `matrix` is sparse, (size, units); units that the layer gains later have weight zero. Depth 0
    are the network's inputs.

    What was one map in float64 may be several steps in the model. `absolute` and `offset` are the
    products and sums of the steps' absolute weights, at least |matrix| and |constant|: a model in
    float32 computes the tensor with an error of at most gamma(`roundings`) times
    `absolute @ |units| + offset` (Higham 2002, chapter 3). `gain` bounds what any step makes of 1.
    """

    matrix: sparse.csr_array
    constant: FloatArray
    shape: Shape
    depth: int
    absolute: sparse.csr_array
    offset: FloatArray
    roundings: int = 0
    gain: float = 1.0

    @property
    def positions(self) -> IntArray:
        """The number of every element, in the tensor's shape: what is done to it moves elements."""
        return np.arange(len(self.constant)).reshape(self.shape)

    def taken(self, positions: IntArray) -> Tensor:
        """The elements at `positions`, in the shape of `positions`."""
        rows = positions.ravel()
        return replace(
            self,
            matrix=self.matrix[rows],
            constant=self.constant[rows],
            shape=positions.shape,
            absolute=self.absolute[rows],
            offset=self.offset[rows],
        )

    def spread(self, shape: Shape) -> Tensor:
        """Broadcast to `shape`."""
        if shape == self.shape:
            return self
        return self.taken(np.broadcast_to(self.positions, shape))

    def mapped(self, matrix: sparse.csr_array, shape: Shape) -> Tensor:
        """`matrix @ self`, in `shape`: rounded once for each term of a row, and for its weights."""
        absolute = abs(matrix)
        terms = int(np.diff(matrix.indptr).max(initial=0))
        return Tensor(
            matrix @ self.matrix,
            matrix @ self.constant,
            shape,
            self.depth,
            absolute @ self.absolute,
            absolute @ self.offset,
            self.roundings + terms + 1,
            self.gain * max(1.0, float(absolute.sum(axis=1).max(initial=0))),
        )

    def rounded(self, count: int) -> Tensor:
        """The same values, which the model rounds so many times more."""
        return replace(self, roundings=self.roundings + count)

    def scaled(self, factor: ArrayLike) -> Tensor:
        """Every element times its factor, both broadcast to one shape."""
        factors = np.asarray(factor, dtype=np.float64)
        shape = np.broadcast_shapes(self.shape, factors.shape)
        diagonal = sparse.diags_array(np.broadcast_to(factors, shape).ravel(), format="csr")
        return self.spread(shape).mapped(diagonal, shape)

    def times(self, weight: FloatArray) -> Tensor:
        """`self @ weight` over the last axis, weight of shape (last axis, units)."""
        *leading, last = self.shape
        if last != len(weight):
            raise CertiflowError(f"expected {len(weight)} values on the last axis, found {last}")
        blocks = sparse.csr_array(weight.T)
        if prod(leading) > 1:
            blocks = sparse.kron(sparse.eye_array(prod(leading)), blocks, format="csr")
        return self.mapped(blocks, (*leading, weight.shape[1]))


def convolved(tensor: Tensor, kernel: FloatArray, window: Window, groups: int) -> Tensor:
    """The convolution of (1, channels, *sizes) by a kernel (filters, channels / groups, *extents).

    Bias excluded: add it afterwards.
    """
    _, channels, *spatial = tensor.shape
    sizes = tuple(spatial)
    filters, group_channels = kernel.shape[:2]
    if group_channels * groups != channels or filters % groups:
        raise CertiflowError(
            f"a kernel of shape {kernel.shape} in {groups} groups does not fit {channels} channels"
        )
    under = window.indices(sizes)  # (windows, window size)
    check_size(kernel.size * len(under))
    first_channel = np.arange(filters) // (filters // groups) * group_channels
    channel = first_channel[:, None] + np.arange(group_channels)
    rows = np.arange(filters)[:, None, None, None] * len(under) + np.arange(len(under))[:, None]
    columns = channel[:, :, None, None] * prod(sizes) + under
    weights = kernel.reshape(filters, group_channels, 1, -1)
    shape = np.broadcast_shapes(rows.shape, columns.shape)
    used = np.broadcast_to(under >= 0, shape)
    data, row, column = (np.broadcast_to(part, shape)[used] for part in (weights, rows, columns))
    matrix = sparse.csr_array(
        (data, (row, column)), shape=(filters * len(under), len(tensor.constant))
    )
    return tensor.mapped(matrix, (1, filters, *window.counts(sizes)))


def average_pooled(tensor: Tensor, window: Window, count_padding: bool) -> Tensor:
    """Means over the windows of (1, channels, *sizes); padding counts as zeros or not at all."""
    under, shape = _channel_windows(tensor, window)
    used = under >= 0
    counts = np.full(len(under), under.shape[1]) if count_padding else used.sum(axis=1)
    return averaged(tensor, under, 1 / counts).taken(np.arange(len(under)).reshape(shape))


def averaged(tensor: Tensor, positions: IntArray, weights: FloatArray) -> Tensor:
    """Row sums over `positions`, (rows, k), each times its weight; -1 stands for a zero."""
    rows, places = np.nonzero(positions >= 0)
    matrix = sparse.csr_array(
        (weights[rows], (rows, positions[rows, places])),
        shape=(len(positions), len(tensor.constant)),
    )
    return tensor.mapped(matrix, (len(positions),))


def along(values: FloatArray, axis: int, rank: int) -> FloatArray:
    """A vector that broadcasts along one axis of a tensor of `rank` axes."""
    shape = [1] * rank
    shape[axis] = len(values)
    return values.reshape(shape)


BEYOND_FLOAT32 = 2**24  # roundings, with which nothing is known
ROOT_ROUNDINGS = 16  # of one divided by a square root, with the fewest instructions


class Lowering:
    """Collects the hidden units of one network while its graph is walked in order.

    Every method returns a new tensor. A tensor that is combined with one of a deeper hidden layer
    passes through the layers between as linear units, so residual connections need no lookahead.
    """

    def __init__(self, shape: Shape) -> None:
        size = prod(shape)
        each, none = sparse.eye_array(size, format="csr"), np.zeros(size)
        self.input = Tensor(each, none, shape, 0, each, none)
        self._widths = [size]
        self._hidden: list[list[tuple[Tensor, bool]]] = []
        self._lifted: dict[Tensor, Tensor] = {}
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
        return self._through(tensor, np.arange(len(tensor.constant)), linear=False)

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

    def max_pooled(self, tensor: Tensor, window: Window) -> Tensor:
        """Greatest elements over the windows of (1, channels, *sizes); padding never wins."""
        under, shape = _channel_windows(tensor, window)
        anyone = under.max(axis=1, keepdims=True)  # max(a, a) = a stands in for the padding
        columns = [tensor.taken(column) for column in np.where(under < 0, anyone, under).T]
        while len(columns) > 1:
            pairs = zip(columns[::2], columns[1::2], strict=False)
            columns = [self._maximum(a, b) for a, b in pairs] + columns[len(columns) // 2 * 2 :]
        return columns[0].taken(np.arange(len(under)).reshape(shape))

    def network(self, output: Tensor) -> ReluNetwork:
        """The network whose outputs are this tensor's elements; consecutive affine maps are one."""
        blocks = [*self._hidden[: output.depth], [(output, True)]]
        layers = [
            _layer([tensor for tensor, _ in block], width)
            for block, width in zip(blocks, self._widths, strict=False)
        ]
        return ReluNetwork(
            tuple(layer for layer, _ in layers),
            tuple(
                np.concatenate([np.full(len(tensor.constant), linear) for tensor, linear in block])
                for block in blocks[:-1]
            ),
            tuple(
                replace(roundings, count=max(roundings.count, self._least_roundings))
                for _, roundings in layers
            ),
        )

    def _maximum(self, first: Tensor, second: Tensor) -> Tensor:
        """`max(a, b) = a + relu(b - a)`."""
        return self.add(first, self.relu(self.add(second, first.scaled(-1.0))))

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
                self._lifted[tensor] = self._through(tensor, varying, linear=True)
            tensor = self._lifted[tensor]
        return tensor

    def _through(self, tensor: Tensor, rows: IntArray, *, linear: bool) -> Tensor:
        """The tensor with `rows` made units of the next hidden layer; the others are constant."""
        depth = tensor.depth + 1
        if depth == len(self._widths):
            self._widths.append(0)
            self._hidden.append([])
        every = len(rows) == len(tensor.constant)
        self._hidden[depth - 1].append((tensor if every else tensor.taken(rows), linear))
        units = self._widths[depth] + np.arange(len(rows))
        self._widths[depth] += len(rows)
        constant = tensor.constant.copy()
        constant[rows] = 0
        left = bool(constant.any())  # which keep the roundings of their way here
        matrix = sparse.csr_array(
            (np.ones(len(rows)), (rows, units)), shape=(len(constant), self._widths[depth])
        )
        offset = np.where(constant != 0, tensor.offset, 0)
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


def _channel_windows(tensor: Tensor, window: Window) -> tuple[IntArray, Shape]:
    """Positions under each channel's windows, (channels * windows, k), and the result's shape."""
    _, channels, *sizes = tensor.shape
    under = window.indices(tuple(sizes))
    if (under < 0).all(axis=1).any():
        raise CertiflowError(f"a pooling window of {window.extents} lies in the padding alone")
    offsets = np.arange(channels)[:, None, None] * prod(sizes)
    positions = np.where(under < 0, -1, under + offsets).reshape(-1, under.shape[1])
    return positions, (1, channels, *window.counts(tuple(sizes)))


def _widened(matrix: sparse.csr_array, columns: int) -> sparse.csr_array:
    if matrix.shape[1] == columns:
        return matrix
    return sparse.csr_array(
        (matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], columns)
    )
