"""A schema proposed from a table's columns, to be edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from tasks.core.data.frames import numbers, read_frame, words
from tasks.core.errors import CertiflowError

MOST_CATEGORIES = 100  # more different words are names or free text
MOST_CLASSES = 100
FEW = 10  # whole numbers of so few values may be codes
PUBLISHED = ("feature", "type", "mutable", "min", "max")


@dataclass(frozen=True)
class Column:
    """A proposed line of `features`: what it says, or why the column is left out; and a remark."""

    fields: Mapping[str, object] | None
    remark: str = ""


def propose(
    frame: pd.DataFrame, source: str, target: str, published: Mapping[str, Column] | None = None
) -> str:
    """YAML of a schema for the table, with what was noticed as comments.

    `source` is its file as the schema names it; `published` columns, by name, are taken as they
    are, and no others.

    Raises:
        CertiflowError: there is no such target, or it has empty cells, one class or too many words.
    """
    columns = {
        name: published.get(name, Column(None, "not among the published features"))
        if published is not None
        else _column(frame[name])
        for name in frame.columns
        if name != target
    }
    missing = set(published or ()) - set(frame.columns)
    if missing:
        raise CertiflowError(f"{source}: has no column '{sorted(missing)[0]}', a published feature")
    asked = _target(frame, source, target)
    lines = [
        f"# Proposed from {len(frame)} rows of {source}: read every line, and correct it.",
        "# mutable: can an attacker change it? direction: both, up or down. unit: for people.",
        f"source: {_yaml(source)}",
        f"target: {_yaml(target)}",
        *asked,
        *_faults(frame),
        "features:",
    ]
    for name, column in columns.items():
        remark = f"  # {column.remark}" if column.remark else ""
        if column.fields is None:
            lines.append(f"# {_yaml(name)} is left out: {column.remark}")
        else:
            lines.append(f"- {_yaml({'name': name, **column.fields})}{remark}")
    return "\n".join(lines) + "\n"


def read_published(path: Path) -> dict[str, Column]:
    """The columns of a features.csv of TabularBench's: feature, type, mutable, min, max.

    Raises:
        CertiflowError: it is not one; a type other than int and real.
    """
    frame = read_frame(path)
    absent = [name for name in PUBLISHED if name not in frame]
    if absent:
        raise CertiflowError(
            f"{path}: lacks the column {absent[0]}: expected {', '.join(PUBLISHED)}"
        )
    found = {}
    for row in frame[list(PUBLISHED)].itertuples(index=False):
        if row.type not in {"int", "real"}:
            raise CertiflowError(
                f"{path}: {row.feature} is of type '{row.type}': expected int or real; write the "
                "features that are categories yourself"
            )
        (ends, bad), mutable = numbers(pd.Series([row.min, row.max])), row.mutable == "True"
        if bad.any() or np.isnan(ends).any():
            raise CertiflowError(
                f"{path}: {row.feature} has min '{row.min}' and max '{row.max}': expected numbers"
            )
        found[row.feature] = Column(_numeric(row.type == "int", *ends.tolist(), mutable=mutable))
    return found


def _column(column: pd.Series) -> Column:
    values, bad = numbers(column, truth=True)
    if bad.any() or np.isinf(values).any():
        return _text(column)
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return Column(None, "every cell is empty")
    empty = f"{np.isnan(values).sum()} empty cells" if np.isnan(values).any() else ""
    different = np.unique(known)
    whole = bool((known == np.round(known)).all())
    if len(different) == 2 and whole and set(different) != {0.0, 1.0}:
        return Column(_category([f"{value:.17g}" for value in different]), empty)
    if whole and len(different) == len(column) > FEW:
        return Column(None, "another whole number in every row, as an identifier has")
    remarks = [empty]
    if len(different) == 1:
        remarks.append("constant")
    elif whole and 2 < len(different) <= FEW:
        remarks.append(f"{len(different)} values: a category, if they have no order?")
    fields = _numeric(whole, float(known.min()), float(known.max()), mutable=True)
    return Column(fields, "; ".join(filter(None, remarks)))


def _text(column: pd.Series) -> Column:
    found = words(column)
    different = sorted(found.dropna().unique())
    if len(different) > MOST_CATEGORIES:
        return Column(None, f"{len(different)} different texts, such as {different[0]}")
    empty = int(found.isna().sum())
    return Column(_category(different), f"{empty} empty cells" if empty else "")


def _numeric(whole: bool, lower: float, upper: float, *, mutable: bool) -> dict[str, object]:
    if whole and (lower, upper) == (0, 1):
        return {"kind": "binary", "mutable": mutable}
    ends = {"lower": _shortest(lower), "upper": _shortest(upper)}
    return {"kind": "integer" if whole else "real", **ends, "mutable": mutable}


def _category(different: list[str]) -> dict[str, object]:
    return {"kind": "category", "categories": different, "mutable": False}


def _shortest(value: float) -> float:
    return int(value) if value == int(value) else value


def _target(frame: pd.DataFrame, source: str, target: str) -> list[str]:
    """The lines on what the target decides: a tolerance where it is a number of many values."""
    _check_target(frame, source, target)
    values, bad = numbers(frame[target])
    if len(np.unique(values)) > FEW and not bad.any() and np.isfinite(values).all():
        spread = float(values.std())
        return [
            f"tolerance: {_shortest(float(f'{spread / 10:.1g}'))}  # a tenth of the target's "
            f"standard deviation, {spread:.4g}: how near is near enough?",
            "# where its numbers are codes of classes, write classes in the place of tolerance",
        ]
    classes = _classes(frame, source, target)
    return [
        f"classes: {_yaml(classes)}  # in the order of the model's outputs",
        "# positive: the class that must not be missed, such as " + _yaml(classes[-1]),
    ]


def _check_target(frame: pd.DataFrame, source: str, target: str) -> None:
    if target not in frame:
        raise CertiflowError(
            f"{source}: has no column '{target}': expected the target, one of "
            f"{', '.join(frame.columns)}"
        )
    found = words(frame[target])
    if found.isna().any():
        raise CertiflowError(
            f"{source}: row {int(found.isna().to_numpy().argmax()) + 1}: the target {target} is "
            "empty: fill it, or remove the row"
        )


def _classes(frame: pd.DataFrame, source: str, target: str) -> list[str]:
    classes = sorted(words(frame[target]).unique())
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise CertiflowError(
            f"{source}: the target {target} has {len(classes)} different values: expected 2 to "
            f"{MOST_CLASSES} classes"
        )
    return classes


def _faults(frame: pd.DataFrame) -> list[str]:
    """What whoever edits the schema must know of the rows."""
    faults = []
    twice = int(frame.duplicated().sum())
    if twice:
        faults.append(f"# {twice} rows stand there before: some may be in both parts of the split")
    if any(words(frame[name]).isna().any() for name in frame.columns):
        faults.append("# missing: impute  # empty cells stop a run; or take the column's median")
    return faults


def _yaml(value: object) -> str:
    """In one line."""
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True
    )
    return text.removesuffix("...\n").strip()
