"""What the columns of a table mean: read from a YAML file beside it.

source: customers.csv
target: status
classes: [kept, {name: left, values: [closed, moved]}]  # or, of a number: tolerance: 1000
positive: left
features:
- {name: age, kind: integer, lower: 18, upper: 99, mutable: false}
- {name: balance, lower: 0, upper: 100000, unit: EUR}
- {name: region, kind: category, categories: [north, south], mutable: false}
relations: [age <= 21 -> balance <= 50000]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tasks.core.errors import CertiflowError
from tasks.core.properties.domain import GREATEST, Domain, Feature, Word, told, word
from tasks.core.yaml_files import read_yaml, shown

LEAST_TOLERANCE = 1e-30  # well within float32


class Label(BaseModel):
    """A class by its name, and the words in the target's column that mean it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Word = Field(min_length=1)
    values: tuple[Word, ...] = Field(min_length=1)


def _label(value: Any) -> Any:
    if isinstance(value, Mapping | Label):
        return value
    return {"name": word(value), "values": [value]}


class Schema(BaseModel):
    """A table's files, its target and its features.

    Attributes:
        source: CSV (may be gzipped) or Parquet file, relative to the schema's.
        test_source: another one with the test rows; without, `test_share` of the rows, drawn by
            class with `split_seed`, are for testing.
        columns: their names, for a CSV file without a line of them.
        target: the column with the class, or with a number.
        classes: in the order of the model's outputs.
        tolerance: in the place of classes where the target is a number: a prediction is right when
            it lies nearer to the target than this.
        positive: the class that must not be missed.
        missing: what to do where a cell is empty: stop, or take the column's median (the most
            frequent word, of categories) among the training rows; see `completion`.
        features: in the order of the model's inputs; other columns are not used.
        relations: what valid rows satisfy; see `tasks.core.properties.relations`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1)
    test_source: str | None = None
    test_share: float = Field(default=0.2, gt=0, lt=1)
    split_seed: int = Field(default=0, ge=0, lt=2**32)
    columns: tuple[str, ...] = ()
    target: str = Field(min_length=1)
    classes: tuple[Annotated[Label, BeforeValidator(_label)], ...] = Field((), min_length=2)
    tolerance: float | None = None
    positive: Word | None = None
    missing: Literal["error", "impute"] = "error"
    features: tuple[Feature, ...] = Field(min_length=1)
    relations: tuple[str, ...] = ()
    licence: str = ""
    citation: str = ""

    @model_validator(mode="after")
    def _is_consistent(self) -> Schema:
        self._check_target()
        names = [feature.name for feature in self.features]
        inputs = [column for feature in self.features for column in feature.columns]
        values = [value for label in self.classes for value in label.values]
        for what, found in {
            "feature": names,
            "input": inputs,
            "class": self.class_names,
            "value of a class": values,
            "column": self.columns,
        }.items():
            twice = _twice(found)
            if twice is not None:
                raise ValueError(f"{what} '{twice}' stands twice: name each once")
        if self.target in names:
            raise ValueError(f"'{self.target}' is the target and a feature: choose one")
        if self.positive is not None and self.positive not in self.class_names:
            raise ValueError(
                f"positive is '{self.positive}': expected one of {', '.join(self.class_names)}"
            )
        if self.test_source is not None and self.model_fields_set & {"test_share", "split_seed"}:
            raise ValueError("test_source has the test rows: leave out test_share and split_seed")
        try:
            self.domain  # noqa: B018 - reads the relations
        except CertiflowError as error:
            raise ValueError(str(error)) from error
        return self

    def _check_target(self) -> None:
        """It is decided by classes or a tolerance, one of the two."""
        if not self.classes and self.tolerance is None:
            raise ValueError(
                "the schema has neither classes nor a tolerance: write classes: [no, yes] where "
                "the target is a word, tolerance: 1000 where it is a number"
            )
        if self.tolerance is None:
            return
        if self.classes:
            raise ValueError(
                "the schema has classes and a tolerance: keep classes where the target is a word, "
                "the tolerance where it is a number"
            )
        if self.positive is not None:
            raise ValueError("positive is one of classes: leave it out beside a tolerance")
        if not LEAST_TOLERANCE <= self.tolerance <= GREATEST:
            raise ValueError(
                f"tolerance is {self.tolerance:g}: expected {LEAST_TOLERANCE:g} to {GREATEST:g}, "
                "how far a prediction may lie from the target"
            )

    @cached_property
    def domain(self) -> Domain:
        """Of a model's inputs."""
        return Domain.of_table(self.features, self.relations)

    @cached_property
    def columns_read(self) -> tuple[Feature, ...]:
        """The features, and after them a target that is a number, which nobody can change."""
        if self.tolerance is None:
            return self.features
        reference = Feature(name=self.target, lower=-GREATEST, upper=GREATEST, mutable=False)
        return (*self.features, reference)

    @property
    def class_names(self) -> tuple[str, ...]:
        if self.tolerance is not None:
            return (f"within {told(self.tolerance)}", "too high", "too low")
        return tuple(label.name for label in self.classes)

    @property
    def positive_label(self) -> int | None:
        return None if self.positive is None else self.class_names.index(self.positive)

    @property
    def used_columns(self) -> tuple[str, ...]:
        return (*(feature.name for feature in self.features), self.target)


SchemaT = TypeVar("SchemaT", bound=Schema)


def read_schema(path: Path, model: type[SchemaT]) -> SchemaT:
    """The schema in a YAML file.

    Raises:
        CertiflowError: one line naming the file and key, and what is allowed.
    """
    try:
        values = read_yaml(path)
    except FileNotFoundError as error:
        raise CertiflowError(
            f"{path}: no such schema; `certiflow schema DATA.csv --target COLUMN` proposes one"
        ) from error
    if not isinstance(values, dict):
        raise CertiflowError(f"{path}: expected keys such as 'target:', found {shown(values)}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        details = "; ".join(_described(detail, model) for detail in error.errors())
        raise CertiflowError(f"{path}: {details}") from error


def _described(detail: Any, model: type[Schema]) -> str:
    """One error of pydantic's: the key, what it is, and what is allowed."""
    *path, last = detail["loc"] or ("schema",)
    key = ".".join(str(part) for part in (*path, last))
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        inner: dict[str, type[BaseModel]] = {"features": Feature, "classes": Label}
        owner = next((inner[part] for part in path if part in inner), model)
        return f"unknown key '{key}': allowed are {', '.join(owner.model_fields)}"
    if detail["type"] == "missing":
        return f"{key} is missing"
    if detail["type"] == "value_error" and isinstance(detail["input"], Mapping):
        return message if key == "schema" else f"{key}: {message}"
    return f"{key} is {shown(detail['input'])}: {message[0].lower()}{message[1:]}"


def _twice(words: Iterable[str]) -> str | None:
    return next((each for each, count in Counter(words).items() if count > 1), None)
