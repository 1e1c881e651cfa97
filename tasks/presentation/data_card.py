"""The data card: what data are, whose, on what terms, and what an attacker may do to them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tasks.core.data.datasets import Dataset
from tasks.core.files import written_atomically
from tasks.core.properties.domain import told
from tasks.presentation.markdown import inline, table
from tasks.tracking import Run

CARD = "data_card.md"


def write_card(data: Dataset, run: Run) -> None:
    """Logs the data card: what the data are, whose, on what terms, and what an attacker may do."""
    path = run.ref.folder / CARD
    with written_atomically(path) as temporary:
        temporary.write_text(of_data(data))
    run.files("", path)
    if data.card.licence:
        run.tags({"dataset.licence": data.card.licence})


def of_data(data: Dataset) -> str:
    """A dataset's card: what it holds, whose it is, and what an attacker may do to it."""
    card, domain, moves = data.card, data.domain, data.perturbation
    lines = [
        f"# {data.name}",
        "",
        f"{len(data.train_labels):,} {domain.noun}s to train on, {len(data.test_labels):,} to test "
        f"on. Content: `{data.sha256}`.",
        "",
        f"- Licence: {inline(card.licence or 'not stated')}",
        f"- Source: {inline(card.citation or 'not stated')}",
        *(f"- {inline(note)}" for note in card.notes),
        "",
        *_of_target(data),
        "",
        f"Epsilon is told in: {moves.unit}.",
    ]
    if not domain.is_table:
        return "\n".join([*lines, ""])
    reach = {name: (down, up) for name, down, up in _reaches(data)}
    rows = [
        (
            inline(feature.name),
            feature.kind,
            inline(", ".join(feature.categories))
            or f"{told(feature.lower)} to {told(feature.upper)}",
            inline(feature.unit),
            *reach[feature.name],
            inline(data.completions.get(feature.name, "refused")),
        )
        for feature in data.features
    ]
    moves_at_1 = ("down at epsilon 1", "up at epsilon 1")
    header = ("feature", "kind", "values", "unit", *moves_at_1, "empty cells")
    relations = [f"- `{relation.text}`" for relation in domain.relations]
    related = ["", "Valid rows satisfy:", "", *relations] if relations else []
    return "\n".join([*lines, "", *table(header, rows), *related, ""])


def _of_target(data: Dataset) -> list[str]:
    """Rows by class, or what the target's numbers are."""
    if data.reference is not None:
        values = np.concatenate([data.train_inputs[:, -1], data.test_inputs[:, -1]])
        ends = f"{told(float(values.min()))} to {told(float(values.max()))}"
        return [
            f"Target: {inline(data.reference.name)}, {ends}. Right: {data.class_names[0]} of it."
        ]
    counts = [
        np.bincount(labels, minlength=data.num_classes).tolist()
        for labels in (data.train_labels, data.test_labels)
    ]
    return table(
        ("class", "train", "test"), zip(map(inline, data.class_names), *counts, strict=True)
    )


def _reaches(data: Dataset) -> Iterable[tuple[str, str, str]]:
    """How far an attacker can move each feature, in its unit."""
    for feature in data.features:
        start = data.domain.columns[feature.name].start
        down, up = data.perturbation.down[start], data.perturbation.up[start]
        changes = data.perturbation.most_changes if feature.mutable else 0
        word = f"one of {changes} changes" if changes else "stays"
        numbers = (told(float(down)), told(float(up)))
        yield feature.name, *((word, word) if feature.kind == "category" else numbers)
