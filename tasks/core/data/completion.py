"""What stands for a table's empty cells: a value of each feature, in the words of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.data.schema import Schema
from tasks.core.errors import CertiflowError
from tasks.core.properties.domain import Feature

Completions = Mapping[str, str]  # by feature: a number as Python writes it, or a category's name
NO_COMPLETIONS: Completions = MappingProxyType({})


def completions_for(values: FloatArray, schema: Schema, given: Completions) -> Completions:
    """What stands for a feature's empty cells: what is given, else the training rows' usual value.

    That is their median, of whole numbers rounded down, or the most frequent category. `values` are
    the training rows', (n, features), of categories their place, nan where a cell is empty. None
    where the schema refuses empty cells; a feature that is empty in all rows has none of its own.

    Raises:
        CertiflowError: something is given for no feature, or where empty cells are refused.
    """
    columns = dict(zip([feature.name for feature in schema.features], values.T, strict=False))
    for name in given:
        if name not in columns:
            raise CertiflowError(
                f"data.completions has '{name}': expected features of the schema: correct the name"
            )
        if schema.missing == "error":
            raise CertiflowError(
                f"data.completions has {name}, but the schema refuses empty cells: set "
                "missing: impute there, or leave data.completions out"
            )
    if schema.missing == "error":
        return {}
    known = {name: column[~np.isnan(column)] for name, column in columns.items()}
    usual = {
        feature.name: _usual_value(known[feature.name], feature)
        for feature in schema.features
        if known[feature.name].size
    }
    return usual | dict(given)


def completed(
    values: FloatArray, features: Sequence[Feature], completions: Completions
) -> FloatArray:
    """The values, (n, features), with completions where cells were empty, and nan where none is.

    Raises:
        CertiflowError: a completion that is no value of its feature.
    """
    stand_ins = [
        _value(completions[feature.name], feature) if feature.name in completions else np.nan
        for feature in features
    ]
    return np.where(np.isnan(values), stand_ins, values)


def in_words(
    values: FloatArray, features: Sequence[Feature], completions: Completions
) -> list[str]:
    """What `completed` puts into each row, such as `age = 55; region = north`; '' for nothing."""
    words = [f"{feature.name} = {completions.get(feature.name, '')}" for feature in features]
    return ["; ".join(words[place] for place in np.flatnonzero(row)) for row in np.isnan(values)]


def _usual_value(known: FloatArray, feature: Feature) -> str:
    if feature.kind == "category":
        return feature.categories[int(np.bincount(known.astype(np.int64)).argmax())]
    median = float(np.median(known))
    return str(float(np.floor(median)) if feature.is_whole else median).removesuffix(".0")


def _value(word: str, feature: Feature) -> float:
    """A completion as the number that stands for it."""
    if feature.kind == "category":
        if word in feature.categories:
            return feature.categories.index(word)
        expected = f"one of {', '.join(feature.categories)}"
    else:
        value = _number(word)
        is_within = feature.lower <= value <= feature.upper
        if is_within and (value.is_integer() or not feature.is_whole):
            return value
        whole = "a whole number, " if feature.is_whole else ""
        expected = f"{whole}{feature.lower:.17g} to {feature.upper:.17g}"
    raise CertiflowError(
        f"data.completions has '{word}' for {feature.name}: expected {expected}: correct it, or "
        "the schema"
    )


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return float("nan")
