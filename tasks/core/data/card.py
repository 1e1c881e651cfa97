"""The data card: whose the data are, what they hold, and what an attacker may do to them."""

from __future__ import annotations

import numpy as np

from tasks.core.data.datasets import Dataset
from tasks.core.properties.domain import Feature
from tasks.core.properties.perturbation import Perturbation

WAYS = {"both": "up and down", "up": "up", "down": "down"}
MOST_WORDS = 12  # of a feature's categories


def data_card(data: Dataset) -> str:
    """The card of a dataset, as Markdown."""
    noun = data.domain.noun
    lines = [
        f"# Data card: {data.name}",
        "",
        f"- licence: {data.card.licence or 'not stated'}",
        f"- citation: {data.card.citation or 'not stated'}",
        f"- content: {len(data.train_labels)} {noun}s to train on, {len(data.test_labels)} to test "
        f"on; SHA-256 {data.sha256}",
        *(f"- {note}" for note in data.card.notes),
        "",
        *_classes(data),
        "",
    ]
    if not data.domain.is_table:
        shape = " x ".join(str(size) for size in data.input_shape)
        lines.append(f"Images of {shape}, values in [0, 1]; each moves by epsilon, up and down.")
        return "\n".join(lines) + "\n"
    lines += _features(data.perturbation)
    if data.domain.relations:
        lines += ["", "Every valid row satisfies:", ""]
        lines += [f"- `{relation.text}`" for relation in data.domain.relations]
    return "\n".join(lines) + "\n"


def _classes(data: Dataset) -> list[str]:
    count = data.num_classes
    parts = [np.bincount(part, minlength=count) for part in (data.train_labels, data.test_labels)]
    lines = ["| class | to train on | to test on |", "|---|---:|---:|"]
    for label, name in enumerate(data.class_names):
        remark = ", whose recall counts" if label == data.positive else ""
        lines.append(f"| {_cell(name)}{remark} | {parts[0][label]} | {parts[1][label]} |")
    return lines


def _features(perturbation: Perturbation) -> list[str]:
    lines = ["| feature | kind | values | an attacker moves it |", "|---|---|---|---|"]
    start = 0
    for feature in perturbation.domain.features:
        moves = _moves(feature, perturbation, start)
        cells = (_cell(feature.name), feature.kind, _cell(_values(feature)), moves)
        lines.append(f"| {' | '.join(cells)} |")
        start += len(feature.columns)
    return lines


def _values(feature: Feature) -> str:
    if feature.kind == "category":
        more = len(feature.categories) - MOST_WORDS
        words = ", ".join(feature.categories[:MOST_WORDS])
        return f"{words} and {more} more" if more > 0 else words
    return f"{feature.lower:.10g} to {feature.upper:.10g} {feature.unit}".strip()


def _moves(feature: Feature, perturbation: Perturbation, column: int) -> str:
    if feature.kind == "category":
        most = perturbation.most_changes if feature.mutable else 0
        return f"to another, at most {most} in all" if most else "no"
    reach = max(perturbation.down[column], perturbation.up[column])
    return f"{WAYS[feature.direction]}, by {reach:.6g} at epsilon 1" if reach > 0 else "no"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
