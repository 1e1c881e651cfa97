"""Tables as datasets: the rows of a file, as its schema says what they mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.arrays import Float32Array, FloatArray, IntArray, Mask
from tasks.core.data.completion import (
    NO_COMPLETIONS,
    Completions,
    completed,
    completions_for,
    in_words,
)
from tasks.core.data.datasets import DataCard, Dataset
from tasks.core.data.frames import numbers, read_frame, words
from tasks.core.data.schema import Schema
from tasks.core.errors import CertiflowError
from tasks.core.properties.domain import Domain, Feature, encoded
from tasks.core.properties.perturbation import Perturbation, Scale

MOST_LISTED, MOST_SHOWN = 10, 60  # names and characters, in an error
LEAST_TOLD = 100  # times what a target loses as a float32 number, a tolerance is to be


@dataclass(frozen=True, eq=False)
class Rows:
    """Values, (n, features), of categories their place, nan where a cell is empty; and labels.

    After the features stands a target that is a number; then all labels are 0.
    """

    values: FloatArray
    labels: IntArray

    def __getitem__(self, rows: IntArray) -> Rows:
        return Rows(self.values[rows], self.labels[rows])


def read_frames(
    schema: Schema, folder: Path, contents: Mapping[str, bytes] | None = None
) -> dict[str, pd.DataFrame]:
    """The tables in `folder` that the schema names, by their names.

    `contents` are those of the files, where they have been read already. Raises as `read_frame`.
    """
    return {
        source: read_frame(
            folder / source,
            columns=schema.columns,
            content=None if contents is None else contents[source],
        )
        for source in (schema.source, schema.test_source)
        if source is not None
    }


def dataset_of(
    schema: Schema,
    path: Path,
    frames: Mapping[str, pd.DataFrame],
    scale: Scale = "range",
    most_changes: int = 0,
    given: Completions = NO_COMPLETIONS,
) -> Dataset:
    """The dataset of a schema, named after its `path`, and of its tables.

    Args:
        scale, most_changes: what an attacker may do; see `Perturbation`.
        given: what stands for empty cells; see `completions_for`.

    Raises:
        CertiflowError: the first cell or column that is not as the schema says; completions that
            it has no place for.
    """
    parts = [_rows(frame, source, schema) for source, frame in frames.items()]
    train, test = parts if len(parts) == 2 else _split(parts[0], schema)
    for label, each in enumerate(schema.classes):
        if label not in train.labels:
            raise CertiflowError(
                f"{path}: class '{each.name}' has no row to train on: expected some of each class; "
                f"correct the classes, or {schema.source}"
            )
    completions = completions_for(train.values, schema, given)
    train, test, filled = _completed(train, test, schema, completions)
    inputs = [
        encoded(part.values, schema.columns_read).astype(np.float32) for part in (train, test)
    ]
    domain = Domain.of_table(schema.columns_read, schema.relations)
    try:
        perturbation = Perturbation.of_table(domain, inputs[0], scale, most_changes)
    except CertiflowError as error:
        raise CertiflowError(f"{path}: {error}") from error
    notes = (*_unused(frames[schema.source], schema), *filled, *_broken(inputs[0], domain))
    return Dataset(
        path.stem,
        inputs[0],
        train.labels,
        inputs[1],
        test.labels,
        schema.class_names,
        perturbation,
        schema.positive_label,
        DataCard(schema.licence, schema.citation, notes),
        schema.tolerance,
        completions,
    )


def read_rows(
    path: Path, features: Sequence[Feature], completions: Completions = NO_COMPLETIONS
) -> tuple[pd.DataFrame, Float32Array, list[str]]:
    """A table without a target, its rows as a model takes them, (rows, inputs), and completions.

    Empty cells are completed; the last says what was put into each row, as `in_words` does.

    Raises:
        CertiflowError: a feature that is missing, or empty without a completion, or the first cell
            that is not valid.
    """
    frame = read_frame(path)
    columns = []
    for feature in features:
        _check_column(frame, feature.name, path.name)
        column = _values(frame[feature.name], feature, path.name)
        if feature.name not in completions:
            _refuse(np.isnan(column), frame[feature.name], path.name, "a value")
        columns.append(column)
    values = np.stack(columns, axis=1)
    inputs = encoded(completed(values, features, completions), features).astype(np.float32)
    return frame, inputs, in_words(values, features, completions)


def _check_column(frame: pd.DataFrame, name: str, source: str) -> None:
    if name not in frame:
        close = difflib.get_close_matches(name, frame.columns, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise CertiflowError(
            f"{source}: has no column '{name}': {hint}it has {_listed(frame.columns)}"
        )


def _rows(frame: pd.DataFrame, source: str, schema: Schema) -> Rows:
    for name in schema.used_columns:
        _check_column(frame, name, source)
    columns = schema.columns_read
    values = [_values(frame[feature.name], feature, source) for feature in columns]
    if schema.tolerance is None:
        labels = _labels(frame[schema.target], source, schema)
    else:
        _check_numbers(values[-1], frame[schema.target], source, schema.tolerance)
        labels = np.zeros(len(frame), dtype=np.int64)
    return Rows(np.stack(values, axis=1), labels)


def _check_numbers(values: FloatArray, column: pd.Series, source: str, tolerance: float) -> None:
    """Raises `CertiflowError` where targets do not tell rows apart, or not to the tolerance."""
    _refuse(np.isnan(values), column, source, "a number, the target")
    if (values == values[0]).all():
        raise CertiflowError(
            f"{source}: the target {column.name} is constant: every row is {values[0]:g}; expected "
            "different numbers"
        )
    lost = float(np.abs(values - values.astype(np.float32)).max())
    if lost * LEAST_TOLD > tolerance:
        raise CertiflowError(
            f"{source}: the target {column.name} loses up to {lost:.2g} as a float32 number, which "
            f"models take: expected a tolerance of {lost * LEAST_TOLD:.2g} or more, found "
            f"{tolerance:g}; subtract a constant from it, or choose a greater tolerance"
        )


def _labels(column: pd.Series, source: str, schema: Schema) -> IntArray:
    places = {word: place for place, each in enumerate(schema.classes) for word in each.values}
    found = words(column, tuple(places))
    labels = found.map(places).to_numpy(dtype=np.float64, na_value=np.nan)
    _refuse(np.isnan(labels), column, source, f"a value of a class: {_listed(places)}")
    if found.nunique() == 1:
        raise CertiflowError(
            f"{source}: the target {schema.target} is constant: every row is '{found.iloc[0]}'; "
            "expected rows of every class"
        )
    return labels.astype(np.int64)


def _values(column: pd.Series, feature: Feature, source: str) -> FloatArray:
    """A feature's values, of a category their place; nan where a cell is empty."""
    if feature.kind == "category":
        found = words(column, feature.cells)
        places = {word: place for place, word in enumerate(feature.cells)}
        values = found.map(places).to_numpy(dtype=np.float64, na_value=np.nan)
        unseen = np.isnan(values) & found.notna().to_numpy()
        _refuse(unseen, column, source, f"one of {_listed(feature.cells)}")
        return values
    values, bad = numbers(column, truth=feature.kind == "binary")
    _refuse(bad, column, source, f"a number (kind: {feature.kind})")
    if feature.is_whole:
        broken = ~np.isnan(values) & (values != np.round(values))
        _refuse(broken, column, source, f"a whole number (kind: {feature.kind})")
    outside = (values < feature.lower) | (values > feature.upper)
    _refuse(outside, column, source, f"{feature.lower:.17g} to {feature.upper:.17g}")
    return values


def _refuse(wrong: Mask, column: pd.Series, source: str, expected: str) -> None:
    """Raises `CertiflowError` on the first cell that is wrong."""
    if not wrong.any():
        return
    row = int(np.argmax(wrong))
    value = column.iloc[row]
    cell = "empty" if pd.isna(value) or value == "" else repr(str(value)[:MOST_SHOWN])
    rest = f" (and {wrong.sum() - 1} more rows)" if wrong.sum() > 1 else ""
    raise CertiflowError(
        f"{source}: row {row + 1}: {column.name} is {cell}: expected {expected}{rest}; correct the "
        "file, or the schema"
    )


def _listed(names: Iterable[str]) -> str:
    first = list(names)
    return ", ".join(first[:MOST_LISTED]) + (", …" if len(first) > MOST_LISTED else "")


def _split(rows: Rows, schema: Schema) -> tuple[Rows, Rows]:
    """Rows to train on and to test on, each class in its share."""
    from sklearn.model_selection import train_test_split

    try:
        train, test = train_test_split(
            np.arange(len(rows.labels)),
            test_size=schema.test_share,
            random_state=schema.split_seed,
            stratify=rows.labels if schema.classes else None,
        )
    except ValueError as error:
        counts = np.bincount(rows.labels, minlength=len(schema.classes)).tolist()
        names = [f" of '{each.name}'" for each in schema.classes] or [" rows"]
        listed = ", ".join(f"{count}{name}" for count, name in zip(counts, names, strict=True))
        share = f"{schema.test_share:g} of {'each class' if schema.classes else 'them'}"
        raise CertiflowError(
            f"{schema.source}: {listed}: too few rows to set {share} aside for testing ({error})"
        ) from error
    return rows[train], rows[test]


def _completed(
    train: Rows, test: Rows, schema: Schema, completions: Completions
) -> tuple[Rows, Rows, tuple[str, ...]]:
    """Rows without empty cells, and what was put there; raises where that is not wanted."""
    notes = []
    for place, feature in enumerate(schema.features):
        empty = [np.isnan(part.values[:, place]) for part in (train, test)]
        count = int(empty[0].sum() + empty[1].sum())
        if count == 0:
            continue
        if feature.name not in completions:
            remedy = "" if empty[0].all() else "fill them, set missing: impute in the schema, or "
            raise CertiflowError(
                f"{schema.source}: {feature.name} is empty in {count} rows: {remedy}leave it out "
                "of features"
            )
        notes.append(
            f"{feature.name} is empty in {count} rows, taken to be {completions[feature.name]}"
        )
    values = [completed(each.values, schema.columns_read, completions) for each in (train, test)]
    return Rows(values[0], train.labels), Rows(values[1], test.labels), tuple(notes)


def _unused(frame: pd.DataFrame, schema: Schema) -> tuple[str, ...]:
    others = [name for name in frame.columns if name not in schema.used_columns]
    return (f"columns that are not used: {', '.join(others)}",) if others else ()


def _broken(inputs: Float32Array, domain: Domain) -> tuple[str, ...]:
    """Which relations the data themselves break, and how often."""
    points = inputs.astype(np.float64)
    counts = {each.text: int((~each.holds(points)).sum()) for each in domain.relations}
    return tuple(
        f"{count} of {len(inputs)} training rows break '{text}'"
        for text, count in counts.items()
        if count
    )
