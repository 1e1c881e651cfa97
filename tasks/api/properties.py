"""What can be asked of a model, made from arrays."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike

from tasks.core.arrays import FloatArray
from tasks.core.errors import CertiflowError
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion


@dataclass(frozen=True, eq=False)
class Robustness:
    """`label` wins strictly over every other output, all over the box."""

    box: Box
    label: int

    def of(self, num_outputs: int) -> Property:
        """For a model of so many outputs; raises `CertiflowError` when the label is none of them.

        >>> len(Robustness(box([0.0], [1.0]), label=2).of(10).unsafe)
        9
        """
        is_whole = isinstance(self.label, Integral)
        if not is_whole or not 0 <= self.label < num_outputs or num_outputs < 2:
            raise CertiflowError(
                f"the label is {self.label}, of a model of {num_outputs} outputs: expected one of "
                "two or more, counted from 0"
            )
        return Property.robustness(self.box, self.label, num_outputs)


def box(lower: ArrayLike, upper: ArrayLike) -> Box:
    """The inputs between two arrays of a model's input shape, both edges included.

    Raises:
        CertiflowError: other shapes, numbers that are not finite, a lower one above its upper one.

    >>> box([[0.0, 0.0]], [[0.5, 1.0]]).upper
    array([[0.5, 1. ]])
    """
    low, high = finite(lower, "lower"), finite(upper, "upper")
    if low.shape != high.shape or low.size == 0:
        raise CertiflowError(
            f"lower has shape {low.shape} and upper {high.shape}: expected that of an input, twice"
        )
    if not (low <= high).all():
        place = int(np.argmin((low <= high).ravel()))
        raise CertiflowError(
            f"input {place}: lower is {low.ravel()[place]:.9g}, above upper, "
            f"{high.ravel()[place]:.9g}: no input is both; exchange them"
        )
    return Box(low.reshape(1, -1), high.reshape(1, -1))


def linf_ball(
    center: ArrayLike, epsilon: float, *, lower: ArrayLike = 0.0, upper: ArrayLike = 1.0
) -> Box:
    """The inputs within L-infinity distance epsilon of an input, and between `lower` and `upper`.

    Center and bounds are taken as the float32 numbers that models are given.

    Raises:
        CertiflowError: epsilon is negative or not finite; the center is not within the bounds.

    >>> linf_ball([0.0, 0.5], 0.25).lower
    array([[0.  , 0.25]])
    """
    middle = in_float32(finite(center, "center"))
    if not 0 <= epsilon < np.inf:
        raise CertiflowError(f"epsilon is {epsilon:g}: expected 0 or more")
    least, most = between(middle, lower, upper)
    return box(np.maximum(middle - epsilon, least), np.minimum(middle + epsilon, most))


def unreachable(box: Box, rows: ArrayLike, offsets: ArrayLike) -> Property:
    """No input of the box gives outputs `y` with `rows @ y + offsets <= 0` in every row at once.

    `rows` has shape (m, outputs), or (m, outputs + inputs) where they mix both; `offsets` (m,).
    Raises `CertiflowError` on other shapes and numbers that are not finite.

    >>> unreachable(box([0.0], [1.0]), [[1.0, -1.0]], [0.0]).unsafe[0].rows
    array([[ 1., -1.]])
    """
    matrix, constants = checked_rows(rows, offsets)
    return Property((UnsafeRegion(box, matrix, constants),))


def always_positive(box: Box, rows: ArrayLike, offsets: ArrayLike) -> Property:
    """Every row of `rows @ y + offsets` is above 0 for the outputs `y` of all inputs of the box.

    Shapes and errors as of `unreachable`.

    >>> len(always_positive(box([0.0], [1.0]), [[1.0, 0.0], [-1.0, 0.0]], [1.0, 1.0]).unsafe)
    2
    """
    matrix, constants = checked_rows(rows, offsets)
    return Property(
        tuple(
            UnsafeRegion(box, row[None], constant[None])
            for row, constant in zip(matrix, constants, strict=True)
        )
    )


def finite(values: ArrayLike, name: str) -> FloatArray:
    """As float64; raises `CertiflowError` naming the array where that is not finite."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CertiflowError(f"{name} is no array of numbers: {error}") from error
    if not np.isfinite(array).all():
        wrong = array[~np.isfinite(array)][0]
        raise CertiflowError(f"{name} holds {wrong}: expected finite numbers")
    return array


def in_float32(values: FloatArray) -> FloatArray:
    """The nearest float32 numbers, as float64."""
    return values.astype(np.float32).astype(np.float64)


def between(
    center: FloatArray, lower: ArrayLike, upper: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Both bounds in the center's shape; raises `CertiflowError` where it is not within them.

    All are float32 numbers.
    """
    try:
        least, most = (
            np.broadcast_to(in_float32(finite(bound, name)), center.shape)
            for bound, name in ((lower, "lower"), (upper, "upper"))
        )
    except ValueError as error:
        raise CertiflowError(
            f"lower has shape {np.shape(lower)} and upper {np.shape(upper)}: expected single "
            f"numbers, or the center's shape {center.shape}"
        ) from error
    outside = (center < least) | (center > most)
    if outside.any():
        place = int(outside.ravel().argmax())
        raise CertiflowError(
            f"input {place} of the center is {center.ravel()[place]:.9g}: expected within "
            f"{least.ravel()[place]:.9g} to {most.ravel()[place]:.9g}; set lower and upper to the "
            "model's valid inputs"
        )
    return least, most


def checked_rows(rows: ArrayLike, offsets: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both as float64; raises `CertiflowError` on other shapes and numbers that are not finite."""
    matrix, constants = finite(rows, "rows"), finite(offsets, "offsets")
    if matrix.ndim != 2 or len(matrix) == 0 or constants.shape != (len(matrix),):
        raise CertiflowError(
            f"rows has shape {matrix.shape} and offsets {constants.shape}: expected (m, outputs) "
            "and (m,), m at least 1"
        )
    return matrix, constants
