"""The matrices of affine layers: dense here, or in blocks (see `block_matrix`).

Each number in a product is a plain sum of entries times values: over at most `inputs` of them
forwards and `outputs` backwards, in some order. What is not stored is exactly zero, and so are the
values that pad blocks: their products and sums are exact. So the bound gamma(n) on a dot product's
rounding (see `bounds.rounding`) holds with n from the matrix's shape, however it is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tasks.core.arrays import BoolArray, IntArray
from tasks.core.errors import CertiflowError

CHUNK = 64  # terms of a sum in float32
MAX_WEIGHTS = 2**28  # stored of one layer in float64: 2 GiB


class Backward(Protocol):
    """What carries rows backwards."""

    def backward(self, rows: NDArray[Any], /) -> NDArray[Any]:
        """`rows @ W`: (n, outputs) to (n, inputs)."""


class Matrix(Backward, Protocol):
    """What a layer needs of its W, shape (outputs, inputs), float64 or float32 throughout."""

    @property
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""

    @property
    def num_stored(self) -> int:
        """How many weights are held."""

    @property
    def most_roundings(self) -> int:
        """Of any product in a sum backwards in float32, its own and those of the sums it is in."""

    def forward(self, x: NDArray[Any], /) -> NDArray[Any]:
        """`x @ W.T`: (batch, inputs) to (batch, outputs)."""

    def rows(self, places: IntArray, /) -> NDArray[Any]:
        """The rows at `places`, (n, inputs), to be changed at will."""

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

    @property
    def most_roundings(self) -> int:
        return CHUNK + -(-self.weight.shape[0] // CHUNK)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        return x @ self.weight.T

    def backward(self, rows: NDArray[Any]) -> NDArray[Any]:
        if self.weight.dtype == np.float64:
            return rows @ self.weight
        # Sums of sums of few terms err by less, and float32 needs that.
        result = rows[:, :CHUNK] @ self.weight[:CHUNK]
        for start in range(CHUNK, len(self.weight), CHUNK):
            some = slice(start, start + CHUNK)
            result += rows[:, some] @ self.weight[some]
        return result

    def rows(self, places: IntArray) -> NDArray[Any]:
        return self.weight[places]

    def absolute(self) -> DenseMatrix:
        return DenseMatrix(np.abs(self.weight))

    @np.errstate(over="ignore")
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


def check_size(weights: int) -> None:
    """Refuses what would not fit into memory."""
    if weights > MAX_WEIGHTS:
        raise CertiflowError(
            f"a layer needs a matrix of {weights:,} weights: at most {MAX_WEIGHTS:,} can be "
            "verified; choose a smaller network"
        )
