"""Arrays of dyadic rationals, on which numpy's operations round nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

_TESTS = {np.greater, np.less, np.greater_equal, np.less_equal}
_OTHERS = {np.add, np.subtract, np.maximum, np.minimum, np.absolute, np.negative}
_LIMB, _TERMS = 20, 2**12  # a sum of 2^12 products of numbers below 2^20 is below 2^53


class Exact(NDArrayOperatorsMixin):
    """`integers * 2**-places`, the integers in an object array; indexed as arrays are."""

    def __init__(self, integers: Any, places: int) -> None:
        self.integers, self.places, self.shape = integers, places, np.shape(integers)

    @classmethod
    def of(cls, values: Any) -> Exact:
        """The very numbers of an array of floats or truth values; `ValueError` of infinite ones."""
        if isinstance(values, Exact):
            return values
        array = np.atleast_1d(np.asarray_chkfinite(values, dtype=np.float64))
        mantissas, exponents = np.frexp(array)
        places = int((53 - exponents[mantissas != 0]).max(initial=0))
        shifts = np.where(mantissas != 0, places - 53 + exponents, 0)
        whole = np.ldexp(mantissas, 53).astype(np.int64).astype(object)
        spare = np.bitwise_or.reduce(integers := np.asarray(whole << shifts, dtype=object), None)
        zeros = min((spare & -spare).bit_length() - 1, places) if spare else 0
        return cls(integers >> max(zeros, 0), places - max(zeros, 0))

    def at(self, places: int) -> Any:
        """New integers for so many places, at least as many as now."""
        return self.integers << (places - self.places)

    def floor(self, places: int) -> Exact:
        """The greatest numbers of at most so many places that are not above."""
        spare = max(self.places - places, 0)
        return Exact(self.integers >> spare, self.places - spare)

    def floats(self) -> Any:
        """The nearest float64s."""
        return (self.integers / (1 << self.places)).astype(np.float64)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *given: Any, **options: Any) -> Any:
        one, other = Exact.of(given[0]), Exact.of(given[-1])
        if method != "__call__" or options:
            return NotImplemented
        if ufunc is np.multiply:
            return Exact(one.integers * other.integers, one.places + other.places)
        if ufunc is np.matmul:
            return Exact(_product(one.integers, other.integers), one.places + other.places)
        places = max(one.places, other.places)
        result = ufunc(*(part.at(places) for part in (one, other)[: len(given)]))
        if ufunc in _TESTS:
            return np.asarray(result, dtype=bool)
        return Exact(result, places) if ufunc in _OTHERS else NotImplemented

    def __getitem__(self, key: Any) -> Exact:
        return Exact(self.integers[key], self.places)

    def __setitem__(self, key: Any, values: Exact) -> None:
        places = max(self.places, values.places)
        self.integers, self.places = self.at(places), places
        self.integers[key] = values.at(places)

    def __len__(self) -> int:
        return len(self.integers)


def _product(one: Any, other: Any) -> Any:
    """`one @ other`, the first of any size, as a sum of exact products of limbs in float64."""
    total: Any = 0
    for start in range(0, max(one.shape[-1], 1), _TERMS):
        some = slice(start, start + _TERMS)
        others = _limbs(other[..., some, :] if other.ndim > 1 else other[some])
        for i, ours in enumerate(_limbs(one[..., some])):
            for j, theirs in enumerate(others):
                part = np.asarray(ours @ theirs).astype(np.int64).astype(object)
                total = total + (part << (_LIMB * (i + j)))
    return total


def _limbs(integers: Any) -> list[Any]:
    """Arrays below 2^20 in magnitude whose sum, with a factor 2^20 a place, is `integers`."""
    signs, rest = np.where(integers < 0, -1.0, 1.0), np.abs(integers)
    limbs: list[Any] = []
    while not limbs or (rest != 0).any():
        limbs.append((rest & (2**_LIMB - 1)).astype(np.float64) * signs)
        rest = rest >> _LIMB
    return limbs
