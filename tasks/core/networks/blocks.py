"""Small dense blocks of a sparse matrix, and the products with them.

A product gathers each block's inputs, multiplies block by block, and scatters the results. What
pads the blocks is zero, so that their products and sums are exact.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import ThreadpoolController

from tasks.core.arrays import BoolArray, IntArray

GATHERED = 2**17  # values at once forwards: a megabyte, which caches hold
PRODUCTS = 2**22  # at once backwards: 32 MB


@dataclass(frozen=True, eq=False)
class Blocks:
    """Blocks padded to one shape.

    Attributes:
        weights: (groups, f, k); zero in the padding.
        rows, columns: (groups, f) and (groups, k): where each block belongs in the matrix. The
            number of outputs or inputs stands for padding: what is read there is zero, what is
            written there is left out. A row is in one block only.
        shape: of the matrix, (outputs, inputs).
    """

    weights: NDArray[Any]
    rows: IntArray
    columns: IntArray
    shape: tuple[int, int]

    def set_forward(self, values: NDArray[Any], result: NDArray[Any]) -> None:
        """In `result`, (outputs + 1, batch), the rows of W @ values; values (inputs + 1, batch)."""
        groups, _, k = self.weights.shape
        step = max(1, GATHERED // max(1, k * values.shape[1]))
        for start in range(0, groups, step):
            some = slice(start, start + step)
            result[self.rows[some]] = self.weights[some] @ values[self.columns[some]]

    def add_backward(self, values: NDArray[Any], result: NDArray[Any]) -> None:
        """To `result`, (inputs + 1, batch), W.T @ values; values (outputs + 1, batch)."""
        groups, _, k = self.weights.shape
        transposed = self.weights.swapaxes(1, 2)
        step = max(1, PRODUCTS // max(1, groups * k))
        for start in range(0, values.shape[1], step):
            some = slice(start, start + step)
            products = transposed @ values[:, some][self.rows]
            result[:, some] += self._summing @ products.reshape(groups * k, products.shape[2])

    @cached_property
    def _summing(self) -> sparse.csr_array:
        """0 and 1, (inputs + 1, groups * k): adds up each input's products over all blocks."""
        columns = self.columns.ravel()
        ones = np.ones(len(columns), dtype=self.weights.dtype)
        shape = (len(columns), self.shape[1] + 1)
        return sparse.csr_array((ones, columns, np.arange(len(columns) + 1)), shape=shape).T.tocsr()

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to other processes is without `_summing`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def restricted(self, rows: BoolArray, columns: BoolArray) -> Blocks:
        """The marked rows and columns of the matrix, in the same blocks, without empty ones."""
        outputs, inputs = int(rows.sum()), int(columns.sum())
        new_rows, row_places = _packed(_renumbered(rows)[self.rows], outputs)
        new_columns, column_places = _packed(_renumbered(columns)[self.columns], inputs)
        used_rows, used_columns = new_rows < outputs, new_columns < inputs
        kept = np.flatnonzero(used_rows.any(axis=1) & used_columns.any(axis=1))
        weights = self.weights[
            kept[:, None, None], row_places[kept][:, :, None], column_places[kept][:, None, :]
        ]
        weights *= used_rows[kept][:, :, None] & used_columns[kept][:, None, :]
        return Blocks(weights, new_rows[kept], new_columns[kept], (outputs, inputs))

    def entries(self) -> tuple[NDArray[Any], IntArray, IntArray]:
        """Weights, their rows and their columns, without the padding."""
        outputs, inputs = self.shape
        rows, columns = np.broadcast_arrays(self.rows[:, :, None], self.columns[:, None, :])
        used = (rows < outputs) & (columns < inputs)
        return self.weights[used], rows[used], columns[used]


def one_thread() -> AbstractContextManager[Any]:
    """For many products, each too short for a second thread.

    OpenBLAS shares out each with more than some 2^18 multiplications and waits for its threads: on
    a busy machine for a scheduler's slice each time, so that a layer took 770 ms instead of 6.
    """
    return _linear_algebra().limit(limits=1)


@cache
def _linear_algebra() -> Any:
    """NumPy's library among those that are loaded by now: to look for them takes a moment."""
    return ThreadpoolController().select(user_api="blas")


def with_zero(values: NDArray[Any]) -> NDArray[Any]:
    """(batch, n) to (n + 1, batch): contiguous for each unit, and a zero for padding to read."""
    result = np.empty((values.shape[1] + 1, len(values)), dtype=values.dtype)
    result[:-1], result[-1] = values.T, 0
    return result


def _renumbered(kept: BoolArray) -> IntArray:
    """The new number of each row or column; their new count for those left out and padding."""
    numbers = np.append(np.cumsum(kept) - 1, 0)
    numbers[np.append(~kept, True)] = kept.sum()
    return numbers


def _packed(numbers: IntArray, padding: int) -> tuple[IntArray, IntArray]:
    """In each row what is not padding first, cut to the longest row; and where it was."""
    used = numbers != padding
    places = np.argsort(~used, axis=1, kind="stable")[:, : used.sum(axis=1).max(initial=0)]
    return np.take_along_axis(numbers, places, axis=1), places
