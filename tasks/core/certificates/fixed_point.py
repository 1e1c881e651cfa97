"""Choices as a certificate has them: slopes and planes are numbers of 16 bits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.checker.certificate import PLANE_ONE, PLANE_ZERO, SLOPE_ONE
from tasks.core.arrays import FloatArray, IntArray
from tasks.core.dual.choices import Choices

MOST = 2**16 - 1


def settled(choices: Choices) -> Choices:
    """The nearest choices that can be written; weights add up to 1 as nearly as float32 can."""
    weights = choices.weights / choices.weights.sum(axis=1, keepdims=True)
    return replace(
        choices,
        slopes=_slopes(choices.slopes).astype(np.float32) / np.float32(SLOPE_ONE),
        weights=weights,
        levels=_plane_values(_planes(choices.levels)),
        tilts=_plane_values(_planes(choices.tilts)),
    )


def _slopes(values: NDArray[Any]) -> NDArray[np.uint16]:
    return np.rint(np.clip(values, 0, 1) * SLOPE_ONE).astype(np.uint16)


def _planes(values: NDArray[Any]) -> NDArray[np.uint16]:
    return np.clip(np.rint(values * PLANE_ONE) + PLANE_ZERO, 0, MOST).astype(np.uint16)


def _plane_values(numbers: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (numbers.astype(np.float32) - np.float32(PLANE_ZERO)) / np.float32(PLANE_ONE)


@dataclass(frozen=True, eq=False)
class Multipliers:
    """Rows of multipliers, (rows, …), of all hidden units of a network, in a certificate's numbers.

    `levels` and `tilts` are None where there are no planes.
    """

    slopes: NDArray[np.uint16]
    levels: NDArray[np.uint16] | None
    tilts: NDArray[np.uint16] | None
    splits: FloatArray
    weights: FloatArray

    @classmethod
    def of(
        cls, choices: Choices, units: IntArray, first: IntArray, sizes: tuple[int, int]
    ) -> Multipliers:
        """Choices of a network that has only the hidden `units`, `first` of the first layer.

        `sizes` are the numbers of hidden units of the whole network, and of its first layer.
        """
        has_planes = choices.levels.shape[1] > 0
        return cls(
            _spread(_slopes(choices.slopes), units, sizes[0]),
            _spread(_planes(choices.levels), first, sizes[1]) if has_planes else None,
            _planes(choices.tilts) if has_planes else None,
            _spread(choices.multipliers.astype(np.float64), units, sizes[0]),
            choices.weights.astype(np.float64),
        )


def _spread(values: NDArray[Any], places: IntArray, size: int) -> NDArray[Any]:
    result = np.zeros((len(values), size), dtype=values.dtype)
    result[:, places] = values
    return result
