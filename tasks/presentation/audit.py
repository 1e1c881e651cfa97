"""What a version was made from, by what, and what witnessed it: for whoever checks it again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from tasks.core.verdicts import Verdict
from tasks.presentation.comparison import Contender
from tasks.presentation.comparison_view import UNKNOWN
from tasks.tracking import COMMAND_TAG, LIBRARIES_TAG, way_to

TAGS = {
    "data, SHA-256": "dataset.sha256",
    "model file, SHA-256": "model.sha256",
    "network, SHA-256": "network.sha256",
    "git commit": "git.commit",
    "libraries": LIBRARIES_TAG,
    "seed": "seed",
}


@dataclass(frozen=True)
class Audit:
    """Facts and settings of one version, in the order in which they are shown."""

    name: str
    facts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]


def of(contender: Contender) -> Audit:
    """The audit of a version; `-` for what its run did not keep."""
    run = contender.run
    started = datetime.fromtimestamp(run.started, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    made_by = run.tags.get(COMMAND_TAG) or run.tags.get("mlflow.source.name", UNKNOWN)
    return Audit(
        name=contender.label,
        facts=(
            ("MLflow run", f"{run.name}, id {run.run_id} ({way_to(run.page)})"),
            ("started", started),
            ("command", made_by),
            *((name, run.tags.get(tag, UNKNOWN)) for name, tag in TAGS.items()),
            ("witnesses", _witnesses(contender.evidence.verification)),
        ),
        settings=tuple(sorted(run.params.items())),
    )


def _witnesses(table: pd.DataFrame) -> str:
    """What Marabou said of the proofs of other stages."""
    if "witness" not in table:
        return UNKNOWN
    proofs = int((table["verdict"] == Verdict.ROBUST.value).sum())
    said = {word: int((table["witness"] == word).sum()) for word in ("confirmed", "undecided")}
    asked = ", ".join(f"{count} {word}" for word, count in said.items())
    return f"{sum(said.values())} of {proofs} proofs shown to Marabou: {asked}"
