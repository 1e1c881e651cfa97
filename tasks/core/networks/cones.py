"""What the units of a layer read, layer after layer, where that is little of each: their cones.

A convolution's filters at one place read one window, of the layer before that a larger one, and so
on down to the inputs. Rows of coefficients need no more than that, and windows that look alike, all
but those at the borders, share their weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.networks.block_matrix import alike_rows, stored
from tasks.core.networks.matrices import DenseMatrix, Matrix

MOST_READ = 0.5  # of the values of all layers before; cones of more are no faster


@dataclass(frozen=True, eq=False)
class Cone:
    """Units at places that look alike.

    Attributes:
        units: of the layer, (places, f).
        reads: for each layer up to it the inputs that matter, (places, s) each.
        rows: the units' weights over the last of `reads`, (f, s).
        matrices: for each layer before it, between what matters of its outputs and its inputs.
    """

    units: IntArray
    reads: list[IntArray]
    rows: FloatArray
    matrices: list[Matrix]

    @property
    def width(self) -> int:
        """The most values that matter of one layer."""
        return max(read.shape[1] for read in self.reads)


def cones(matrices: Sequence[Matrix]) -> list[Cone] | None:
    """Of the outputs of the last of some layers; None where they read too much to be worth it.

    Units that read nothing are in no cone.
    """
    if len(matrices) < 2 or isinstance(matrices[-1], DenseMatrix):
        return None
    layers = [matrix.sparse() for matrix in matrices]
    alike: dict[tuple[bytes, ...], list[tuple[IntArray, list[IntArray]]]] = {}
    parts: dict[tuple[bytes, ...], list[sparse.csr_array]] = {}
    most = MOST_READ * sum(layer.shape[1] for layer in layers)
    for units, columns in alike_rows(layers[-1]):
        reads, blocks = [columns], [layers[-1][units][:, columns]]
        for layer in layers[-2::-1]:
            some = layer[reads[0]]
            reads.insert(0, np.unique(some.indices).astype(np.int64))
            blocks.insert(0, some[:, reads[0]])
        if sum(map(len, reads)) > most:
            return None
        key = tuple(_content(block) for block in blocks)
        alike.setdefault(key, []).append((units, reads))
        parts[key] = blocks
    return [_cone(places, parts[key]) for key, places in alike.items()]


def _content(block: sparse.csr_array) -> bytes:
    """What tells apart matrices of unlike shapes or weights."""
    block.sort_indices()
    arrays = (np.array(block.shape), block.indptr, block.indices, block.data)
    return b"".join(array.tobytes() for array in arrays)


def _cone(places: list[tuple[IntArray, list[IntArray]]], blocks: list[sparse.csr_array]) -> Cone:
    by_layer = zip(*(reads for _, reads in places), strict=True)
    *before, rows = blocks
    return Cone(
        np.stack([units for units, _ in places]),
        [np.stack(reads) for reads in by_layer],
        rows.toarray(),
        [stored(block) for block in before],
    )
