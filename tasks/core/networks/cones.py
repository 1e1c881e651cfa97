"""What the units of a layer read, layer after layer, where that is little of each: their cones.

A convolution's filters at one place read one window, of the layer before that a larger one, and so
on down to the inputs. Rows of coefficients need no more than that, and windows that look alike, all
but those at the borders, share their weights. A first layer that is dense, as where few inputs make
an image, has other weights at every place; what lies behind it is shared all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tasks.core.arrays import BoolArray, FloatArray, IntArray
from tasks.core.networks.block_matrix import alike_rows, columns_read
from tasks.core.networks.matrices import Backward, DenseMatrix, Matrix

Shift = tuple[FloatArray, FloatArray]

MOST_READ = 0.5  # of the values of all layers before; cones of more are no faster


@dataclass(frozen=True, eq=False)
class Cone:
    """Units at places that look alike: of each layer up to theirs, what matters to them.

    Attributes:
        units: their numbers, (places, f).
        reads: for each layer the inputs that matter, (places, s) each.
        first: the first layer's matrix if it is dense; then the rest is of the layers behind it.
        matrices: for each layer the weights between what matters of its outputs and its inputs.
        shifts: of what matters of each layer's outputs the bias, and its `sizes`.
        linear: for each layer before theirs, which of these pass unchanged.
    """

    units: IntArray
    reads: list[IntArray]
    first: DenseMatrix | None
    matrices: list[Matrix]
    shifts: list[Shift]
    linear: list[BoolArray]

    def with_first(self, first: DenseMatrix) -> Cone:
        """Behind another first layer, as many inputs as that may have."""
        return replace(
            self, first=first, reads=[_everything(first, len(self.units)), *self.reads[1:]]
        )

    @property
    def every_matrix(self) -> list[Matrix]:
        """Of every layer."""
        return self.matrices if self.first is None else [self.first, *self.matrices]

    @cached_property
    def single(self) -> list[Matrix]:
        """`matrices` in float32."""
        return [matrix.single() for matrix in self.matrices]

    def backwards(
        self, places: IntArray, owners: IntArray, matrices: Sequence[Matrix]
    ) -> Sequence[Backward]:
        """Of every layer, for rows at these places, (owners,); whose each row is, (rows,).

        `matrices` are the cone's, or those in float32; the first layer's stay in float64.
        """
        if self.first is None:
            return matrices
        return [_FirstRows(self.first.weight, self.reads[1][places], owners), *matrices]

    @property
    def width(self) -> int:
        """The most values that matter of one layer."""
        return max(read.shape[1] for read in self.reads)


@dataclass(frozen=True, eq=False)
class _FirstRows:
    """Those of a dense matrix that owners read, (owners, s), for rows of owners, (rows,)."""

    weight: NDArray[Any]
    reads: IntArray
    owners: IntArray

    def backward(self, rows: NDArray[Any]) -> NDArray[Any]:
        result = np.empty((len(rows), self.weight.shape[1]))
        for owner, read in enumerate(self.reads):
            mine = self.owners == owner
            result[mine] = rows[mine] @ self.weight[read]
        return result


def cones(
    matrices: Sequence[Matrix], shifts: Sequence[Shift], linear: Sequence[BoolArray]
) -> list[Cone] | None:
    """Of the last of some layers; None where its units read too much for that to be worth it.

    `linear` is of the layers before it. Units that read nothing are in no cone.
    """
    if len(matrices) < 2 or isinstance(matrices[-1], DenseMatrix):
        return None
    first, begin = (matrices[0], 1) if isinstance(matrices[0], DenseMatrix) else (None, 0)
    layers = [matrix.sparse() for matrix in matrices[begin:]]
    alike: dict[bytes, list[_Place]] = {}
    most = MOST_READ * sum(layer.shape[1] for layer in layers)
    for units, columns in alike_rows(layers[-1]):
        reads, blocks = [units, columns], [layers[-1][units][:, columns]]
        for layer in layers[-2::-1]:
            some = layer[reads[-1]]
            reads.append(columns_read(some))
            blocks.append(some[:, reads[-1]])
        if sum(map(len, reads)) > most:
            return None
        reads, blocks = reads[::-1], blocks[::-1]
        mine = [
            (bias[read], size[read])
            for (bias, size), read in zip(shifts[begin:], reads[1:], strict=True)
        ]
        passing = [mask[read] for mask, read in zip(linear[begin:], reads[1:-1], strict=True)]
        place = _Place(reads, blocks, mine, passing)
        alike.setdefault(place.content, []).append(place)
    return [_cone(places, first, matrices[begin:]) for places in alike.values()]


@dataclass(frozen=True, eq=False)
class _Place:
    """Of a cone with one place only; `reads` ends with its units."""

    reads: list[IntArray]
    blocks: list[sparse.csr_array]
    shifts: list[Shift]
    linear: list[BoolArray]

    @property
    def content(self) -> bytes:
        """What tells apart two that are not the same function of what they read."""
        digest = hashlib.sha256()
        for block in self.blocks:
            block.sort_indices()
            digest.update(repr((block.shape, block.nnz)).encode())
            for array in (block.indptr, block.indices, block.data):
                digest.update(array.tobytes())
        for array in (*chain.from_iterable(self.shifts), *self.linear):
            digest.update(array.tobytes())
        return digest.digest()


def _cone(places: Sequence[_Place], first: DenseMatrix | None, matrices: Sequence[Matrix]) -> Cone:
    *reads, units = (np.stack(each) for each in zip(*(p.reads for p in places), strict=True))
    if first is not None:
        reads.insert(0, _everything(first, len(units)))
    one = places[0]
    parts = [
        matrix.restricted(_marked(after, matrix.shape[0]), _marked(before, matrix.shape[1]))
        for matrix, before, after in zip(matrices, one.reads, one.reads[1:], strict=False)
    ]
    return Cone(units, reads, first, parts, one.shifts, one.linear)


def _marked(places: IntArray, count: int) -> BoolArray:
    """The ascending `places` of so many as a mask."""
    marked = np.zeros(count, dtype=bool)
    marked[places] = True
    return marked


def _everything(first: DenseMatrix, count: int) -> IntArray:
    """What each of so many places reads of the inputs."""
    return np.broadcast_to(np.arange(first.shape[1]), (count, first.shape[1]))
