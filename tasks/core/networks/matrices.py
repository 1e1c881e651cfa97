"""The matrices of affine layers: dense, or in blocks where convolutions left most of them zero.

Rows of a sparse matrix that read the same inputs, as all filters of a convolution do at one place,
are one small dense block. A product gathers each block's inputs, multiplies block by block, and
scatters the results: a convolution costs its own products and no more, in any layout, with batch
normalisation folded in, and without weights that must be shared.

Each number in a product is a plain sum of entries times values: over at most `inputs` of them
forwards and `outputs` backwards, in some order. What is not stored is exactly zero, and so are the
values that pad the blocks: their products and sums are exact. So the bound gamma(n) on a dot
product's rounding (see `bounds.rounding`) holds with n from the matrix's shape, however it is
stored.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from itertools import pairwise
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import ThreadpoolController

from tasks.core.arrays import BoolArray, IntArray
from tasks.core.errors import CertiflowError

MAX_WEIGHTS = 2**28  # stored of one layer in float64: 2 GiB
BLOCK_SHARE = 0.25  # of a dense product's work; with more, blocks are no faster
MOVING = 4  # gathering or scattering a value is so much work as a weight in a dense product
LEAST_DENSE = 2**16  # weights; below, a dense product takes no time to speak of
GATHERED = 2**17  # values at once forwards: a megabyte, which caches hold
PRODUCTS = 2**22  # at once backwards: 32 MB


class Matrix(Protocol):
    """What a layer needs of its W, shape (outputs, inputs), float64 or float32 throughout."""

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""

    @property
    def num_stored(self) -> int:
        """How many weights are held."""

    def forward(self, x: NDArray[Any], /) -> NDArray[Any]:
        """`x @ W.T`: (batch, inputs) to (batch, outputs)."""

    def backward(self, rows: NDArray[Any], /) -> NDArray[Any]:
        """`rows @ W`: (n, outputs) to (n, inputs)."""

    def absolute(self) -> Matrix:
        """|W|."""

    def single(self) -> Matrix:
        """W rounded to float32."""

    def restricted(self, rows: BoolArray, columns: BoolArray) -> Matrix:
        """The marked rows and columns alone."""

    def dense(self) -> NDArray[Any]:
        """W as an array."""

    def sparse(self) -> sparse.csr_array:
        """W, with no more zeros stored than here."""

    def arrays(self) -> list[NDArray[Any]]:
        """What holds the weights and says where they belong."""


@dataclass(frozen=True, eq=False)
class DenseMatrix:
    """See `Matrix`."""

    weight: NDArray[Any]

    @property
    def shape(self) -> tuple[int, int]:
        outputs, inputs = self.weight.shape
        return outputs, inputs

    @property
    def num_stored(self) -> int:
        return self.weight.size

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        return x @ self.weight.T

    def backward(self, rows: NDArray[Any]) -> NDArray[Any]:
        return rows @ self.weight

    def absolute(self) -> DenseMatrix:
        return DenseMatrix(np.abs(self.weight))

    def single(self) -> DenseMatrix:
        return DenseMatrix(self.weight.astype(np.float32))

    def restricted(self, rows: BoolArray, columns: BoolArray) -> DenseMatrix:
        return DenseMatrix(self.weight[np.ix_(rows, columns)])

    def dense(self) -> NDArray[Any]:
        return self.weight

    def sparse(self) -> sparse.csr_array:
        return sparse.csr_array(self.weight)

    def arrays(self) -> list[NDArray[Any]]:
        return [self.weight]


@dataclass(frozen=True, eq=False)
class _Blocks:
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

    def restricted(self, rows: BoolArray, columns: BoolArray) -> _Blocks:
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
        return _Blocks(weights, new_rows[kept], new_columns[kept], (outputs, inputs))

    def entries(self) -> tuple[NDArray[Any], IntArray, IntArray]:
        """Weights, their rows and their columns, without the padding."""
        outputs, inputs = self.shape
        rows, columns = np.broadcast_arrays(self.rows[:, :, None], self.columns[:, None, :])
        used = (rows < outputs) & (columns < inputs)
        return self.weights[used], rows[used], columns[used]


@dataclass(frozen=True, eq=False)
class BlockMatrix:
    """See `Matrix`; blocks of unlike shapes are kept apart, so that padding stays small."""

    parts: tuple[_Blocks, ...]
    shape: tuple[int, int]

    @property
    def num_stored(self) -> int:
        return sum(part.weights.size for part in self.parts)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        values = _with_zero(x)
        result = np.zeros((self.shape[0] + 1, len(x)), dtype=values.dtype)
        with _one_thread():
            for part in self.parts:
                part.set_forward(values, result)
        return np.ascontiguousarray(result[:-1].T)

    def backward(self, rows: NDArray[Any]) -> NDArray[Any]:
        values = _with_zero(rows)
        result = np.zeros((self.shape[1] + 1, len(rows)), dtype=values.dtype)
        with _one_thread():
            for part in self.parts:
                part.add_backward(values, result)
        return np.ascontiguousarray(result[:-1].T)

    def absolute(self) -> BlockMatrix:
        return self._with_weights(np.abs)

    def single(self) -> BlockMatrix:
        return self._with_weights(lambda weights: weights.astype(np.float32))

    def _with_weights(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> BlockMatrix:
        parts = (replace(part, weights=change(part.weights)) for part in self.parts)
        return BlockMatrix(tuple(parts), self.shape)

    def restricted(self, rows: BoolArray, columns: BoolArray) -> Matrix:
        shape = (int(rows.sum()), int(columns.sum()))
        found = BlockMatrix(tuple(part.restricted(rows, columns) for part in self.parts), shape)
        work = sum(_work(*part.weights.shape) for part in found.parts)
        return found if _pays(work, shape) else DenseMatrix(found.dense())

    def dense(self) -> NDArray[Any]:
        """Made anew at every call."""
        return self.sparse().toarray()

    def sparse(self) -> sparse.csr_array:
        nothing = (np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
        entries = [nothing, *(part.entries() for part in self.parts)]
        weights, rows, columns = (np.concatenate(parts) for parts in zip(*entries, strict=True))
        return sparse.csr_array((weights, (rows, columns)), shape=self.shape)

    def arrays(self) -> list[NDArray[Any]]:
        return [array for part in self.parts for array in (part.weights, part.rows, part.columns)]


def stored(matrix: sparse.csr_array) -> Matrix:
    """In blocks where that pays, else dense.

    Raises `CertiflowError` where that would hold more than `MAX_WEIGHTS`.
    """
    shape = (int(matrix.shape[0]), int(matrix.shape[1]))
    matrix = matrix.copy()
    matrix.sum_duplicates()  # and in order, so that rows with the same columns have equal indices
    alike = _alike_blocks(matrix)
    sizes = [(len(blocks), *_padded(blocks)) for blocks in alike]
    in_blocks = _pays(sum(_work(*size) for size in sizes), shape)
    check_size(sum(prod(size) for size in sizes) if in_blocks else prod(shape))
    if not in_blocks:
        return DenseMatrix(matrix.toarray())
    return BlockMatrix(tuple(_padded_blocks(matrix, blocks) for blocks in alike), shape)


def check_size(weights: int) -> None:
    """Refuses what would not fit into memory."""
    if weights > MAX_WEIGHTS:
        raise CertiflowError(
            f"a layer needs a matrix of {weights:,} weights: at most {MAX_WEIGHTS:,} can be "
            "verified; choose a smaller network"
        )


def _work(groups: int, f: int, k: int) -> int:
    """Of a product with blocks, in weights of a dense one."""
    return groups * (f * k + MOVING * (f + k))


def _pays(work: int, shape: tuple[int, int]) -> bool:
    """Whether blocks are better than a dense matrix."""
    return prod(shape) >= LEAST_DENSE and work <= BLOCK_SHARE * prod(shape)


def _alike_blocks(matrix: sparse.csr_array) -> list[list[tuple[IntArray, IntArray]]]:
    """Rows with the same columns, and these; in lists whose sizes differ by less than twice.

    Rows of zeros are in none.
    """
    rows_of: dict[bytes, list[int]] = {}
    for row, (start, end) in enumerate(pairwise(matrix.indptr.tolist())):
        if start < end:
            rows_of.setdefault(matrix.indices[start:end].tobytes(), []).append(row)
    alike: dict[tuple[int, int], list[tuple[IntArray, IntArray]]] = {}
    for key, rows in rows_of.items():
        columns = np.frombuffer(key, dtype=matrix.indices.dtype).astype(np.int64)
        sizes = ((len(rows) - 1).bit_length(), (len(columns) - 1).bit_length())
        alike.setdefault(sizes, []).append((np.array(rows, dtype=np.int64), columns))
    return list(alike.values())


def _padded(blocks: list[tuple[IntArray, IntArray]]) -> tuple[int, int]:
    """The shape that holds each of the blocks."""
    return max(len(rows) for rows, _ in blocks), max(len(columns) for _, columns in blocks)


def _padded_blocks(matrix: sparse.csr_array, blocks: list[tuple[IntArray, IntArray]]) -> _Blocks:
    outputs, inputs = matrix.shape
    f, k = _padded(blocks)
    weights = np.zeros((len(blocks), f, k))
    all_rows = np.full((len(blocks), f), outputs, dtype=np.int64)
    all_columns = np.full((len(blocks), k), inputs, dtype=np.int64)
    for place, (rows, columns) in enumerate(blocks):
        all_rows[place, : len(rows)], all_columns[place, : len(columns)] = rows, columns
        entries = matrix.indptr[rows][:, None] + np.arange(len(columns))
        weights[place, : len(rows), : len(columns)] = matrix.data[entries]
    return _Blocks(weights, all_rows, all_columns, (int(outputs), int(inputs)))


def _one_thread() -> AbstractContextManager[Any]:
    """For many products, each too short for a second thread.

    OpenBLAS shares out each with more than some 2^18 multiplications and waits for its threads: on
    a busy machine for a scheduler's slice each time, so that a layer took 770 ms instead of 6.
    """
    return _linear_algebra().limit(limits=1)


@cache
def _linear_algebra() -> Any:
    """NumPy's library among those that are loaded by now: to look for them takes a moment."""
    return ThreadpoolController().select(user_api="blas")


def _with_zero(values: NDArray[Any]) -> NDArray[Any]:
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
