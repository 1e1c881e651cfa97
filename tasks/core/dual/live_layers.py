"""A network's affine layers in float32 between the units that a box leaves alive.

Arrays are (units, batch): what is next to each other in memory is the same unit of different
subproblems, so that every product and every step over units runs along the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
from scipy import sparse

from tasks.core.arrays import BoolArray, Float32Array
from tasks.core.networks.matrices import DenseMatrix, Matrix
from tasks.core.networks.network import ReluNetwork

# Sums of choices that prove nothing, in any order; NaN and infinity stay what they are.
compiled = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})


@dataclass(frozen=True, eq=False)
class LiveLayer:
    """Between units that are alive: W and b of these; W by rows and by columns if it is sparse."""

    weight: Float32Array | sparse.csr_array
    transposed: Float32Array | sparse.csr_array
    bias: Float32Array

    @classmethod
    def of(
        cls, matrix: Matrix, bias: Float32Array, rows: BoolArray, columns: BoolArray
    ) -> LiveLayer:
        """The marked rows and columns."""
        if isinstance(matrix, DenseMatrix):
            dense = matrix.weight[np.ix_(rows, columns)].astype(np.float32)
            return cls(dense, dense.T, bias[rows])
        entries = matrix.sparse()[rows][:, columns].astype(np.float32)
        entries.eliminate_zeros()
        return cls(entries, entries.T.tocsr(), bias[rows])

    def forward(self, values: Float32Array) -> Float32Array:
        """W times values, (inputs, batch) to (units, batch), without the bias."""
        return _product(self.weight, values)

    def backward(self, rows: Float32Array) -> Float32Array:
        """W transposed times rows, (units, batch) to (inputs, batch)."""
        return _product(self.transposed, rows)


def live_layers(network: ReluNetwork, live: Sequence[BoolArray]) -> list[LiveLayer]:
    """Of all layers; `live`, (units,) of each hidden one, says which units are left."""
    ends = [np.ones(size, dtype=bool) for size in (network.num_inputs, network.num_outputs)]
    reads, gives = [ends[0], *live], [*live, ends[1]]
    return [
        LiveLayer.of(layer.matrix, layer.bias.astype(np.float32), rows, columns)
        for layer, rows, columns in zip(network.layers, gives, reads, strict=True)
    ]


def _product(weight: Float32Array | sparse.csr_array, values: Float32Array) -> Float32Array:
    if isinstance(weight, np.ndarray):
        return weight @ values
    result = np.empty((weight.shape[0], values.shape[1]), dtype=np.float32)
    _multiply(weight.indptr, weight.indices, weight.data, np.ascontiguousarray(values), result)
    return result


@compiled
def _multiply(starts, columns, weights, values, result):  # type: ignore[no-untyped-def]
    """Four rows of `values` at a time: each result is loaded and stored a quarter as often."""
    for row in range(len(starts) - 1):
        total, place, end = result[row], starts[row], starts[row + 1]
        total[:] = 0
        while place + 4 <= end:
            a, b, c, d = weights[place : place + 4]
            first, second = values[columns[place]], values[columns[place + 1]]
            third, fourth = values[columns[place + 2]], values[columns[place + 3]]
            for at in range(len(total)):
                total[at] += a * first[at] + b * second[at] + c * third[at] + d * fourth[at]
            place += 4
        while place < end:
            a, first = weights[place], values[columns[place]]
            for at in range(len(total)):
                total[at] += a * first[at]
            place += 1
