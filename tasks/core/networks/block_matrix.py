"""Matrices in blocks, where convolutions left most of them zero.

Rows of a sparse matrix that read the same inputs, as all filters of a convolution do at one place,
are one small dense block: a convolution costs its own products and no more, in any layout, with
batch normalisation folded in, and without weights that must be shared. Inputs that a row reads
alone, as behind a residual connection, keep it in no block of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tasks.core.arrays import BoolArray, IntArray
from tasks.core.networks.blocks import Blocks, one_thread, with_zero
from tasks.core.networks.matrices import DenseMatrix, Matrix, check_size

BLOCK_SHARE = 0.25  # of a dense product's work; with more, blocks are no faster
MOVING = 4  # gathering or scattering a value is so much work as a weight in a dense product
LEAST_DENSE = 2**16  # weights; below, a dense product takes no time to speak of


@dataclass(frozen=True, eq=False)
class BlockMatrix:
    """See `Matrix`; blocks of unlike shapes are kept apart, so that padding stays small."""

    parts: tuple[Blocks, ...]
    shape: tuple[int, int]

    @property
    def num_stored(self) -> int:
        return sum(part.weights.size for part in self.parts)

    @property
    def most_roundings(self) -> int:
        blocks = np.zeros(self.shape[1] + 1, dtype=np.int64)
        for part in self.parts:
            blocks += np.bincount(part.columns.ravel(), minlength=len(blocks))
        terms = max((part.weights.shape[1] for part in self.parts), default=0)
        return terms + int(blocks[:-1].max(initial=0)) + len(self.parts)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        values = with_zero(x)
        result = np.zeros((self.shape[0] + 1, len(x)), dtype=values.dtype)
        with one_thread():
            for part in self.parts:
                part.set_forward(values, result)
        return np.ascontiguousarray(result[:-1].T)

    def backward(self, rows: NDArray[Any]) -> NDArray[Any]:
        values = with_zero(rows)
        result = np.zeros((self.shape[1] + 1, len(rows)), dtype=values.dtype)
        with one_thread():
            for part in self.parts:
                part.add_backward(values, result)
        return np.ascontiguousarray(result[:-1].T)

    def absolute(self) -> BlockMatrix:
        return self._with_weights(np.abs)

    @np.errstate(over="ignore")
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

    def rows(self, places: IntArray) -> NDArray[Any]:
        return self._sparse[places].toarray()

    @cached_property
    def _sparse(self) -> sparse.csr_array:
        return self.sparse()

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to other processes is without `_sparse`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

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
    if not _pays(matrix.nnz, shape):  # which blocks hold at least
        check_size(prod(shape))
        return DenseMatrix(matrix.toarray())
    alike = _by_size(alike_rows(matrix))
    sizes = [(len(blocks), *_padded(blocks)) for blocks in alike]
    in_blocks = _pays(sum(_work(*size) for size in sizes), shape)
    check_size(sum(prod(size) for size in sizes) if in_blocks else prod(shape))
    if not in_blocks:
        return DenseMatrix(matrix.toarray())
    return BlockMatrix(tuple(_padded_blocks(matrix, blocks) for blocks in alike), shape)


def _work(groups: int, f: int, k: int) -> int:
    """Of a product with blocks, in weights of a dense one."""
    return groups * (f * k + MOVING * (f + k))


def _pays(work: int, shape: tuple[int, int]) -> bool:
    """Whether blocks are better than a dense matrix."""
    return prod(shape) >= LEAST_DENSE and work <= BLOCK_SHARE * prod(shape)


def alike_rows(matrix: sparse.csr_array) -> list[tuple[IntArray, IntArray]]:
    """Rows of a sorted matrix that read the same columns, beside some of their own, and these.

    Rows of zeros are in none.
    """
    shared = np.bincount(matrix.indices, minlength=matrix.shape[1]) > 1
    rows_of: dict[bytes, list[int]] = {}
    for row, (start, end) in enumerate(pairwise(matrix.indptr.tolist())):
        columns = matrix.indices[start:end]
        common = columns[shared[columns]]
        if len(columns):
            rows_of.setdefault((common if len(common) else columns).tobytes(), []).append(row)
    groups = (np.array(rows, dtype=np.int64) for rows in rows_of.values())
    return [(rows, columns_read(matrix[rows])) for rows in groups]


def columns_read(matrix: sparse.csr_array) -> IntArray:
    """The columns that hold anything, ascending."""
    is_read = np.zeros(matrix.shape[1], dtype=bool)
    is_read[matrix.indices] = True
    return np.flatnonzero(is_read)


def _by_size(
    blocks: list[tuple[IntArray, IntArray]],
) -> list[list[tuple[IntArray, IntArray]]]:
    """In lists whose sizes differ by less than twice."""
    alike: dict[tuple[int, int], list[tuple[IntArray, IntArray]]] = {}
    for rows, columns in blocks:
        sizes = ((len(rows) - 1).bit_length(), (len(columns) - 1).bit_length())
        alike.setdefault(sizes, []).append((rows, columns))
    return list(alike.values())


def _padded(blocks: list[tuple[IntArray, IntArray]]) -> tuple[int, int]:
    """The shape that holds each of the blocks."""
    return max(len(rows) for rows, _ in blocks), max(len(columns) for _, columns in blocks)


def _padded_blocks(matrix: sparse.csr_array, blocks: list[tuple[IntArray, IntArray]]) -> Blocks:
    outputs, inputs = matrix.shape
    f, k = _padded(blocks)
    weights = np.zeros((len(blocks), f, k))
    all_rows = np.full((len(blocks), f), outputs, dtype=np.int64)
    all_columns = np.full((len(blocks), k), inputs, dtype=np.int64)
    for place, (rows, columns) in enumerate(blocks):
        all_rows[place, : len(rows)], all_columns[place, : len(columns)] = rows, columns
        some = matrix[rows]
        at = np.repeat(np.arange(len(rows)), np.diff(some.indptr))
        weights[place, at, np.searchsorted(columns, some.indices)] = some.data
    return Blocks(weights, all_rows, all_columns, (int(outputs), int(inputs)))
