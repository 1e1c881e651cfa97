"""What the units of a layer read, layer after layer, where that is little of each: their cones.

A convolution's filters at one place read one window, of the layer before that a larger one, and so
on down to the inputs. Rows of coefficients need no more than that, and windows that look alike, all
but those at the borders, share their weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy import sparse

from tasks.core.arrays import BoolArray, FloatArray, IntArray
from tasks.core.networks.block_matrix import alike_rows, columns_read, stored
from tasks.core.networks.matrices import DenseMatrix, Matrix

Shift = tuple[FloatArray, FloatArray]

MOST_READ = 0.5  # of the values of all layers before; cones of more are no faster


@dataclass(frozen=True, eq=False)
class Cone:
    """Units at places that look alike: of each layer up to theirs, what matters to them.

    Attributes:
        units: their numbers, (places, f).
        reads: for each layer the inputs that matter, (places, s) each.
        matrices: for each layer the weights between what matters of its outputs and its inputs.
        shifts: of what matters of each layer's outputs the bias, and its `sizes`.
        linear: for each layer before theirs, which of these pass unchanged.
    """

    units: IntArray
    reads: list[IntArray]
    matrices: list[Matrix]
    shifts: list[Shift]
    linear: list[BoolArray]

    @property
    def width(self) -> int:
        """The most values that matter of one layer."""
        return max(read.shape[1] for read in self.reads)


def cones(
    matrices: Sequence[Matrix], shifts: Sequence[Shift], linear: Sequence[BoolArray]
) -> list[Cone] | None:
    """Of the last of some layers; None where its units read too much for that to be worth it.

    `linear` is of the layers before it. Units that read nothing are in no cone.
    """
    if len(matrices) < 2 or isinstance(matrices[-1], DenseMatrix):
        return None
    layers = [matrix.sparse() for matrix in matrices]
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
            (bias[read], size[read]) for (bias, size), read in zip(shifts, reads[1:], strict=True)
        ]
        passing = [mask[read] for mask, read in zip(linear, reads[1:-1], strict=True)]
        place = _Place(reads, blocks, mine, passing)
        alike.setdefault(place.content, []).append(place)
    return [_cone(places) for places in alike.values()]


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


def _cone(places: Sequence[_Place]) -> Cone:
    *reads, units = (np.stack(each) for each in zip(*(p.reads for p in places), strict=True))
    one = places[0]
    return Cone(units, reads, [stored(block) for block in one.blocks], one.shifts, one.linear)
