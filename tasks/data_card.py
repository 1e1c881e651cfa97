"""The data card of a run."""

from __future__ import annotations

from tasks.core.data.card import data_card
from tasks.core.data.datasets import Dataset
from tasks.core.files import written_atomically
from tasks.tracking import Run

CARD = "data_card.md"


def write_card(data: Dataset, run: Run) -> None:
    """Logs whose the data are, what they hold and what an attacker may do to them."""
    path = run.ref.folder / CARD
    with written_atomically(path) as temporary:
        temporary.write_text(data_card(data), encoding="utf-8")
    run.files("", path)
    run.tags({"dataset.licence": data.card.licence or "not stated"})
