"""What inputs are: the pixels of images, or the features of a table's rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from functools import cached_property
from math import prod
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tasks.core.arrays import BoolArray, FloatArray, Mask
from tasks.core.properties.box import Box
from tasks.core.properties.relations import Relation, parse

Kind = Literal["real", "integer", "binary", "category"]
Direction = Literal["both", "up", "down"]
Number = Annotated[float, Field(allow_inf_nan=False)]
GREATEST = 1e37  # of a bound: far enough from float32's end for a sum of several


def word(value: Any) -> Any:
    """A number as it is written; truth values are refused."""
    if isinstance(value, bool):
        raise ValueError("put it in quotes: YAML reads yes, no, on and off as true or false")
    return str(value) if isinstance(value, int | float) else value


Word = Annotated[str, BeforeValidator(word)]  # of a category or a class, which may be a number


class Feature(BaseModel):
    """A column of a table, and what an attacker can make of it.

    Attributes:
        kind: `integer` and `binary` are whole numbers; a `category` is one-hot in the model's
            input, with a column for each of `categories`, in their order.
        lower, upper: the least and the greatest value that there can be, in `unit`.
        mutable: whether an attacker can change it, upwards, downwards or both (`direction`).
        scale: how far it moves at epsilon 1, in `unit`; None: by the rule for all features.
        values: what the table's cells say, where they are codes that `categories` name in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    kind: Kind = "real"
    lower: Number = 0.0
    upper: Number = 1.0
    mutable: bool = True
    direction: Direction = "both"
    unit: str = ""
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    categories: tuple[Word, ...] = ()
    values: tuple[Word, ...] = ()

    @model_validator(mode="after")
    def _is_one(self) -> Feature:
        if (self.kind == "category") != bool(self.categories):
            raise ValueError(
                f"{self.name} is a {self.kind} with {len(self.categories)} categories: a category "
                "has some, others have none"
            )
        if self.values and len(self.values) != len(self.categories):
            raise ValueError(
                f"{self.name} has {len(self.values)} values for {len(self.categories)} categories: "
                "expected one for each, in the same order"
            )
        for named in (self.categories, self.values):
            if len(set(named)) < len(named):
                raise ValueError(f"{self.name} has a category twice: name each once")
        codes = {code: place for place, code in enumerate(self.values)}
        for place, name in enumerate(self.categories):
            if codes.get(name, place) != place:
                raise ValueError(
                    f"{self.name} has the category '{name}', which is another's value: expected "
                    "names that are no other category's, since a cell may hold either"
                )
        if self.lower > self.upper:
            raise ValueError(
                f"{self.name} has lower {self.lower:g} above upper {self.upper:g}: exchange them"
            )
        if self.kind in {"binary", "category"} and (self.lower, self.upper) != (0, 1):
            of_what = "binary" if self.kind == "binary" else "a category"
            raise ValueError(
                f"{self.name} is {of_what}: leave out lower and upper, which are 0 and 1"
            )
        if self.is_whole and not (self.lower.is_integer() and self.upper.is_integer()):
            raise ValueError(
                f"{self.name} is an integer from {self.lower:.9g} to {self.upper:.9g}: expected "
                "whole numbers, its least and its greatest value"
            )
        if max(-self.lower, self.upper) > GREATEST:
            raise ValueError(
                f"{self.name} is from {self.lower:g} to {self.upper:g}: expected bounds of at most "
                f"{GREATEST:.0g}, since models take float32 numbers; choose a greater unit"
            )
        return self

    @property
    def is_whole(self) -> bool:
        """Whether its columns hold whole numbers only."""
        return self.kind != "real"

    @property
    def cells(self) -> tuple[str, ...]:
        """What a table's cells say, by category."""
        return self.values or self.categories

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns in the model's input."""
        return tuple(f"{self.name}[{word}]" for word in self.categories) or (self.name,)


def told(value: float | str) -> str:
    """A number or category as people read it: 1,200 and 0.25."""
    return value if isinstance(value, str) else f"{value + 0.0:,.7g}"  # never -0


def told_above(value: float, digits: int) -> str:
    """A bound from above, shown with so many digits: no less than it is."""
    context = Context(prec=digits, rounding=ROUND_CEILING)
    return f"{float(context.create_decimal(repr(float(value)))):.{digits}g}"


@dataclass(frozen=True, eq=False)
class Domain:
    """The valid inputs: all images of a shape with pixels in [0, 1], or all rows of a table.

    Bounds are those of the inputs as float32, the numbers that data hold and models take.

    Attributes:
        shape: of one input.
        features: of a table, in the order of the model's inputs; none of images.
        relations: what a valid row satisfies besides.
    """

    shape: tuple[int, ...]
    features: tuple[Feature, ...] = ()
    relations: tuple[Relation, ...] = ()

    @classmethod
    def of_table(cls, features: Sequence[Feature], relations: Sequence[str] = ()) -> Domain:
        """Raises `CertiflowError` on a relation that cannot be read."""
        names = [column for feature in features for column in feature.columns]
        places = {name: place for place, name in enumerate(names)}
        parsed = tuple(parse(text, places, len(names)) for text in relations)
        return cls((len(names),), tuple(features), parsed)

    @property
    def is_table(self) -> bool:
        return bool(self.features)

    @property
    def noun(self) -> str:
        """What one input is called."""
        return "row" if self.is_table else "image"

    @property
    def num_inputs(self) -> int:
        return prod(self.shape)

    @cached_property
    def lower(self) -> FloatArray:
        """The least value of every input, (inputs,), or one for all pixels."""
        return self._bounds("lower", 0.0)

    @cached_property
    def upper(self) -> FloatArray:
        """The greatest, as `lower`."""
        return self._bounds("upper", 1.0)

    @cached_property
    def whole(self) -> BoolArray:
        """Which inputs are whole numbers, (inputs,), or one for all pixels."""
        return self.by_column([feature.is_whole for feature in self.features], default=False)

    @cached_property
    def columns(self) -> dict[str, slice]:
        """Each feature's columns, by its name."""
        found, start = dict[str, slice](), 0
        for feature in self.features:
            found[feature.name] = slice(start, start + len(feature.columns))
            start = found[feature.name].stop
        return found

    @cached_property
    def groups(self) -> tuple[tuple[Feature, slice], ...]:
        """The categories, with the columns that are one-hot."""
        return tuple(
            (feature, self.columns[feature.name])
            for feature in self.features
            if feature.kind == "category"
        )

    @cached_property
    def is_plain(self) -> bool:
        """Whether every point of a box within the bounds is valid."""
        return not (self.whole.any() or self.relations)

    def by_column(self, values: Sequence[Any], *, default: Any) -> NDArray[Any]:
        """A value for each feature, repeated for its columns; the default for all pixels."""
        if not self.is_table:
            return np.array([default])
        return np.repeat(np.array(values), [len(feature.columns) for feature in self.features])

    def nearest(self, points: NDArray[Any]) -> NDArray[Any]:
        """The points, (n, inputs), with whole numbers where inputs are."""
        rounded: NDArray[Any] = np.where(self.whole, np.round(points), points)
        return rounded

    def contains(self, points: NDArray[np.floating]) -> Mask:
        """Whether each point, (n, …), is valid: within bounds, whole, one-hot, related."""
        flat = np.asarray(points, dtype=np.float64).reshape(len(points), self.num_inputs)
        valid = ((flat >= self.lower) & (flat <= self.upper)).all(axis=1)
        valid &= (~self.whole | (flat == np.round(flat))).all(axis=1)
        for _, columns in self.groups:
            valid &= flat[:, columns].sum(axis=1) == 1
        for relation in self.relations:
            valid &= relation.holds(flat)
        return valid

    def excludes(self, boxes: Box) -> Mask:
        """Whether each box holds no valid point: sound, not complete.

        A point that breaks a relation by float32's rounding alone may be a row of the data.
        """
        empty = np.zeros(len(boxes), dtype=bool)
        for relation in self.relations:
            empty |= relation.is_excluded(boxes)
        return empty

    def decoded(self, point: NDArray[np.floating]) -> dict[str, float | str]:
        """A row, (inputs,), as people know it: by feature its number, or the name of its category.

        A category that the row has none or several of is told by its columns' numbers.
        """
        values = dict[str, float | str]()
        flat = np.asarray(point, dtype=np.float64).ravel()
        for feature in self.features:
            numbers = flat[self.columns[feature.name]].tolist()
            values[feature.name] = numbers[0]
            if feature.kind == "category":
                is_one = sorted(numbers) == [0.0] * (len(numbers) - 1) + [1.0]
                word = feature.categories[numbers.index(1.0)] if is_one else str(numbers)
                values[feature.name] = word
        return values

    def changes(
        self, before: NDArray[np.floating], after: NDArray[np.floating]
    ) -> dict[str, tuple[float | str, float | str]]:
        """What of a row has changed, by feature: before and after, the farthest moved first."""
        old, new = self.decoded(before), self.decoded(after)
        spans = {feature.name: feature.upper - feature.lower for feature in self.features}
        changed = [name for name in old if old[name] != new[name]]
        changed.sort(key=lambda name: -_share(old[name], new[name], spans[name]))
        return {name: (old[name], new[name]) for name in changed}

    def moves(self, before: NDArray[np.floating], after: NDArray[np.floating]) -> tuple[str, ...]:
        """`changes` in words, such as `amount 1,200 → 1,350`."""
        changed = self.changes(before, after).items()
        return tuple(f"{name} {told(old)} → {told(new)}" for name, (old, new) in changed)

    def words(self) -> str:
        """What of the domain a verdict depends on besides the boxes."""
        if self.is_plain:
            return ""
        columns = [column for feature in self.features for column in feature.columns]
        relations = [relation.text for relation in self.relations]
        return f"whole {np.flatnonzero(self.whole).tolist()} of {columns} relations {relations}"

    def _bounds(self, name: str, default: float) -> FloatArray:
        values = self.by_column([getattr(each, name) for each in self.features], default=default)
        return values.astype(np.float32).astype(np.float64)


def _share(old: float | str, new: float | str, span: float) -> float:
    """How far a change goes, in the feature's span; categories go farthest."""
    if isinstance(old, str) or isinstance(new, str):
        return np.inf
    return abs(new - old) / span if span else 0.0


def encoded(values: FloatArray, features: Sequence[Feature]) -> FloatArray:
    """Rows (n, features), of categories their place, as a model takes them: categories one-hot."""
    columns = []
    for feature, column in zip(features, values.T, strict=True):
        if feature.kind == "category":
            columns.append(column[:, None] == np.arange(len(feature.categories)))
        else:
            columns.append(column[:, None])
    return np.concatenate(columns, axis=1)
