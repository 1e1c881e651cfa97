"""What a hidden layer does to its values: ReLUs, units that pass, curved ones, products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tasks.core.arrays import BoolArray, FloatArray, IntArray
from tasks.core.networks.curves import CURVES, Curve, Kind

CodeArray = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Activation:
    """Of a hidden layer's units, each array (units,).

    Attributes:
        linear: units that pass unchanged.
        codes: the `Kind` of each unit; of a linear one and of a ReLU it is `Kind.RELU`.
        partners: of a product the unit of this layer whose value its own is multiplied with, which
            is linear; -1 of the others.
    """

    linear: BoolArray
    codes: CodeArray
    partners: IntArray

    @classmethod
    def of_relus(cls, linear: BoolArray) -> Activation:
        """ReLUs, but for those marked as linear."""
        none = np.zeros(len(linear), dtype=np.int8)
        return cls(linear, none, np.full(len(linear), -1, dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Activation]) -> Activation:
        """The units of one layer after those of another."""
        starts = np.cumsum([0, *(len(part) for part in parts)])
        return cls(
            np.concatenate([part.linear for part in parts]),
            np.concatenate([part.codes for part in parts]),
            np.concatenate(
                [
                    np.where(part.partners >= 0, part.partners + start, -1)
                    for part, start in zip(parts, starts[:-1], strict=True)
                ]
            ),
        )

    def __post_init__(self) -> None:
        assert len(self.linear) == len(self.codes) == len(self.partners)
        assert not self.codes[self.linear].any()
        assert ((self.partners >= 0) == (self.codes == Kind.PRODUCT)).all()
        assert self.linear[self.partners[self.products]].all()

    def __len__(self) -> int:
        return len(self.linear)

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to other processes is without what was computed from it."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @cached_property
    def is_curved(self) -> bool:
        """Whether any unit is neither a ReLU nor linear."""
        return bool(self.codes.any())

    @cached_property
    def curved(self) -> BoolArray:
        """Units that are neither ReLUs nor linear, (units,)."""
        return self.codes != Kind.RELU

    @cached_property
    def products(self) -> IntArray:
        """The units that are products."""
        return np.flatnonzero(self.codes == Kind.PRODUCT)

    @cached_property
    def factors(self) -> BoolArray:
        """Units whose values products multiply, (units,)."""
        marked = self.codes == Kind.PRODUCT
        marked[self.partners[self.products]] = True
        return marked

    @cached_property
    def movable(self) -> BoolArray:
        """Units that are split by value, (units,): curved ones and factors of products."""
        return self.curved | self.factors

    @cached_property
    def groups(self) -> list[tuple[int, IntArray]]:
        """Every kind of curve that occurs, and the units that have it."""
        kinds = np.unique(self.codes).tolist()
        return [(kind, np.flatnonzero(self.codes == kind)) for kind in kinds if kind in CURVES]

    def curves(self) -> list[tuple[Curve, IntArray]]:
        """Every curve that occurs, and the units that have it."""
        return [(CURVES[kind], units) for kind, units in self.groups]

    @cached_property
    def names(self) -> list[str]:
        """Of the functions that occur besides the ReLU."""
        return [
            *(curve.name for curve, _ in self.curves()),
            *(["product"] if len(self.products) else []),
        ]

    @cached_property
    def _has_linear(self) -> bool:
        return bool(self.linear.any())

    @np.errstate(all="ignore")  # what has no value is NaN or infinite, of which nothing is proved
    def __call__(self, values: FloatArray) -> FloatArray:
        """(batch, units) to (batch, units)."""
        result: FloatArray = np.maximum(values, 0)
        if self._has_linear:
            result = np.where(self.linear, values, result)
        if self.is_curved:
            for curve, units in self.curves():
                result[:, units] = curve.value(values[:, units])
            result[:, self.products] = (
                values[:, self.products] * values[:, self.partners[self.products]]
            )
        return result

    @np.errstate(all="ignore")
    def backward(self, values: FloatArray, gradient: FloatArray) -> FloatArray:
        """The gradient by the values, from that by what becomes of them, both (batch, units)."""
        slope: Any = values > 0
        if self._has_linear:
            slope = slope | self.linear
        if not self.is_curved:
            return gradient * slope
        slope = slope.astype(np.float64)
        for curve, units in self.curves():
            slope[:, units] = curve.slope(values[:, units])
        partners = self.partners[self.products]
        slope[:, self.products] = values[:, partners]
        result: FloatArray = gradient * slope
        if len(self.products):
            result += self.at_partners(gradient[:, self.products] * values[:, self.products])
        return result

    def at_partners(self, added: NDArray[Any]) -> NDArray[Any]:
        """What products add to their partners, summed: (…, products) to (…, units)."""
        rows, places = np.arange(len(self.products)), self.partners[self.products]
        ones = np.ones(len(rows), dtype=added.dtype)
        matrix = sparse.csr_array((ones, (rows, places)), shape=(len(rows), len(self)))
        flat: NDArray[Any] = added.reshape(-1, len(rows)) @ matrix
        return flat.reshape(*added.shape[:-1], len(self))

    def restricted(self, kept: BoolArray) -> Activation:
        """The marked units alone, among them the partners of all products that are."""
        if kept.all():
            return self
        places = np.cumsum(kept) - 1
        partners = self.partners[kept]
        return Activation(
            self.linear[kept], self.codes[kept], np.where(partners >= 0, places[partners], -1)
        )
