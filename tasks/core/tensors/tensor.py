"""The tensors of a lowering: affine in the units of one hidden layer, and their float32 error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.errors import CertiflowError
from tasks.core.tensors.windows import Shape


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


def along(values: FloatArray, axis: int, rank: int) -> FloatArray:
    """A vector that broadcasts along one axis of a tensor of `rank` axes."""
    shape = [1] * rank
    shape[axis] = len(values)
    return values.reshape(shape)
