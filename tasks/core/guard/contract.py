"""What a request must be: the shape, and the rules of the domain, each named where it is broken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.core.arrays import Float32Array, FloatArray
from tasks.core.errors import CertiflowError
from tasks.core.properties.domain import Domain, Feature, told

Record = Mapping[str, Any]


class BrokenRuleError(CertiflowError):
    """A request is not one of the domain."""


@dataclass(frozen=True, eq=False)
class Contract:
    """Of the inputs of a domain."""

    domain: Domain

    def inputs(self, values: Any) -> Float32Array:
        """Valid inputs, (n, *shape), of lists of numbers in that shape, or flat.

        Raises:
            BrokenRuleError: they are of another shape, or a rule of the domain is broken.
        """
        shape = self.domain.shape
        try:
            array = np.asarray(values, dtype=np.float32)
        except (TypeError, ValueError):
            raise BrokenRuleError(
                f"inputs are no array of numbers: expected {self.domain.noun}s of shape {shape}"
            ) from None
        if array.ndim < 1 or array.shape[1:] not in {shape, (self.domain.num_inputs,)}:
            raise BrokenRuleError(
                f"inputs have the shape {array.shape}: expected {self.domain.noun}s, "
                f"(n, {str(shape)[1:-1]})"
            )
        if len(array) == 0:
            raise BrokenRuleError(f"there is no {self.domain.noun}: expected one at least")
        array = array.reshape(len(array), *shape)
        self.check(array)
        return array

    def rows(self, records: Sequence[Record]) -> Float32Array:
        """Valid inputs of a table's rows by feature: numbers, and the words of categories.

        Raises:
            BrokenRuleError: a feature is missing, unknown or no such value.
        """
        names = [feature.name for feature in self.domain.features]
        if not names:
            raise BrokenRuleError(
                f"images have no features: send inputs of shape {self.domain.shape}"
            )
        rows = np.zeros((len(records), self.domain.num_inputs))
        for number, record in enumerate(records):
            if not isinstance(record, Mapping):
                raise BrokenRuleError(f"row {number} is {record!r}: expected features by name")
            unknown = sorted(set(record) - set(names))
            if unknown:
                raise BrokenRuleError(
                    f"row {number}: unknown feature '{unknown[0]}': expected {', '.join(names)}"
                )
            for feature in self.domain.features:
                if feature.name not in record:
                    raise BrokenRuleError(f"row {number}: {feature.name} is missing")
                columns = self.domain.columns[feature.name]
                rows[number, columns] = _encoded(feature, record[feature.name], number)
        return self.inputs(rows)

    def check(self, inputs: Float32Array) -> None:
        """Raises `BrokenRuleError` naming the first row and rule that is broken."""
        valid = self.domain.contains(inputs)
        if valid.all():
            return
        row = int(np.argmin(valid))
        point = inputs[row].reshape(-1).astype(np.float64)
        raise BrokenRuleError(f"{self.domain.noun} {row}: {self._broken(point)}")

    def _broken(self, point: FloatArray) -> str:
        domain, size = self.domain, self.domain.num_inputs
        lower, upper, whole = (
            np.broadcast_to(each, size) for each in (domain.lower, domain.upper, domain.whole)
        )
        for place in range(size):
            value, name = point[place], self._name(place)
            if not np.isfinite(value):
                return f"{name} is {value}: expected a finite number"
            if not lower[place] <= value <= upper[place]:
                return f"{name} is {told(value)}: expected {told(lower[place])} to " + told(
                    upper[place]
                )
            if whole[place] and value != round(value):
                return f"{name} is {told(value)}: expected a whole number"
        for feature, columns in domain.groups:
            if point[columns].sum() != 1:
                return f"{feature.name} has {point[columns].sum():g} categories: expected one"
        for relation in domain.relations:
            if not relation.holds(point[None])[0]:
                return f"{relation.text} is broken"
        raise AssertionError("a point outside the domain breaks a rule")

    def _name(self, place: int) -> str:
        names = [column for feature in self.domain.features for column in feature.columns]
        if names:
            return names[place]
        where = np.unravel_index(place, self.domain.shape)
        return f"pixel {', '.join(str(int(each)) for each in where)}"


def _encoded(feature: Feature, value: Any, row: int) -> FloatArray:
    if feature.kind == "category":
        for words in (feature.categories, feature.cells):
            if str(value) in words:
                return np.eye(len(words))[words.index(str(value))]
        known = ", ".join(feature.categories)
        raise BrokenRuleError(f"row {row}: {feature.name} is {value!r}: expected one of {known}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BrokenRuleError(f"row {row}: {feature.name} is {value!r}: expected a number")
    return np.array([value], dtype=np.float64)
