"""What a request must be: the shape, and the rules of the domain, each named where it is broken."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.core.arrays import Float32Array, FloatArray
from tasks.core.data.completion import NO_COMPLETIONS, Completions, completed, in_words
from tasks.core.data.frames import MISSING, POINT
from tasks.core.errors import CertiflowError
from tasks.core.properties.domain import Domain, Feature, encoded, told

Record = Mapping[str, Any]


class BrokenRuleError(CertiflowError):
    """A request is not one of the domain."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Valid inputs, (n, *shape), and what stands for empty cells of each; none of arrays."""

    inputs: Float32Array
    completed: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Contract:
    """Of the inputs of a domain, with what stands for a feature's empty cells."""

    domain: Domain
    completions: Completions = field(default_factory=lambda: NO_COMPLETIONS)

    def inputs(self, values: Any) -> Asked:
        """Valid inputs, (n, *shape), of lists of numbers in that shape, or flat.

        Raises:
            BrokenRuleError: they are of another shape, or a rule of the domain is broken.
        """
        shape = self.domain.shape
        try:
            array = np.asarray(values, dtype=np.float64)
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
        return Asked(array.astype(np.float32))

    def rows(self, records: Sequence[Record]) -> Asked:
        """Valid inputs of a table's rows by feature: numbers, and the words of categories.

        An empty cell (null, nan, an empty word) is completed as the training rows' were.

        Raises:
            BrokenRuleError: a feature is missing, unknown or no such value.
        """
        features = self.domain.features
        names = [feature.name for feature in features]
        if not names:
            raise BrokenRuleError(
                f"images have no features: send inputs of shape {self.domain.shape}"
            )
        values = np.zeros((len(records), len(features)))  # of a category, its place
        for number, record in enumerate(records):
            if not isinstance(record, Mapping):
                raise BrokenRuleError(f"row {number} is {record!r}: expected features by name")
            unknown = sorted(set(record) - set(names))
            if unknown:
                raise BrokenRuleError(
                    f"row {number}: unknown feature '{unknown[0]}': expected {', '.join(names)}"
                )
            for place, feature in enumerate(features):
                if feature.name not in record:
                    raise BrokenRuleError(f"row {number}: {feature.name} is missing")
                value = _value(feature, record[feature.name], number)
                if np.isnan(value) and feature.name not in self.completions:
                    raise BrokenRuleError(
                        f"row {number}: {feature.name} is empty: expected a value"
                    )
                values[number, place] = value
        whole = completed(values, features, self.completions)
        inputs = self.inputs(encoded(whole, features)).inputs
        return Asked(inputs, in_words(values, features, self.completions))

    def check(self, inputs: FloatArray) -> None:
        """Raises `BrokenRuleError` naming the first row and rule that is broken.

        Bounds and relations are those of float32 numbers, which models take; a number is whole as
        it is sent, since 41.0000001 becomes 41.
        """
        flat = inputs.reshape(len(inputs), -1)
        with np.errstate(over="ignore"):
            rounded = flat.astype(np.float32).astype(np.float64)
        points = np.where(self.domain.whole & (flat != np.round(flat)), flat, rounded)
        valid = self.domain.contains(points)
        if valid.all():
            return
        row = int(np.argmin(valid))
        raise BrokenRuleError(f"{self.domain.noun} {row}: {self._broken(points[row])}")

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
                return f"{name} is {float(value)!r}: expected a whole number"
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


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _value(feature: Feature, value: Any, row: int) -> float:
    """Of a category its place, of an empty cell nan."""
    word = "" if value is None or _is_nan(value) else str(value)
    if feature.kind == "category":
        for words in (feature.categories, feature.cells):
            for written in (word, re.sub(POINT, r"\1", word)):  # 2.0, the code 2
                if written in words:
                    return words.index(written)
    if word in MISSING:
        return float("nan")
    if feature.kind == "category":
        known = ", ".join(feature.categories)
        raise BrokenRuleError(f"row {row}: {feature.name} is {value!r}: expected one of {known}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BrokenRuleError(f"row {row}: {feature.name} is {value!r}: expected a number")
    return value
