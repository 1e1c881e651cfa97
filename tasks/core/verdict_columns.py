"""The columns of verdicts, described once: what tables show, stores keep and runs count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.core.verdicts import VerificationResult

DEPLOYED_WORDS = {True: "yes", False: "no", None: ""}
STAGES = ("attack", "interval", "crown", "alpha_crown", "branch_and_bound", "marabou")
WITNESS_WORDS = ("confirmed", "undecided")  # what Marabou says of a proof that is not its own


@dataclass(frozen=True)
class Column:
    """A column of `tables/verification.csv`.

    Attributes:
        dtype: pandas' name of it.
        field: of the `VerificationResult` that it shows.
        shown: what it makes of the field's value.
        is_stored: whether a verdict store keeps the field beside the verdict, its stage and its
            seconds; what it does not keep is in the question, or is asked anew.
    """

    name: str
    dtype: str
    field: str
    shown: Callable[[Any], Any]
    is_stored: bool = False

    def of(self, result: VerificationResult) -> Any:
        """What the table holds for the result."""
        return self.shown(getattr(result, self.field))


def _as_is(value: Any) -> Any:
    return value


def _text(word: Any) -> str:
    return str(word)


def _seconds(value: float) -> float:
    return round(value, 4)


def _seconds_in(stage: str) -> Callable[[dict[str, float]], float]:
    return lambda seconds: round(seconds.get(stage, 0.0), 4)


COLUMNS = (
    Column("sample_index", "int64", "sample_index", _as_is),
    Column("label", "int64", "label", _as_is),
    Column("epsilon", "float64", "epsilon", _as_is),
    Column("verdict", "object", "verdict", _text),
    Column("decided_by", "object", "decided_by", _text),
    Column("target", "Int64", "target", _as_is, is_stored=True),
    Column("seconds", "float64", "seconds", _seconds),
    Column("margin", "float64", "margin", _as_is, is_stored=True),
    Column("deployed", "object", "deployed", DEPLOYED_WORDS.__getitem__, is_stored=True),
    Column("reason", "object", "reason", _as_is, is_stored=True),
    Column("witness", "object", "witness", _as_is, is_stored=True),
    *(
        Column(f"seconds_{stage}", "float64", "stage_seconds", _seconds_in(stage), is_stored=True)
        for stage in STAGES
    ),
    Column("witness_seconds", "float64", "witness_seconds", _seconds),
    Column("certificate", "object", "certificate", _as_is),
)

STORED_FIELDS = tuple(dict.fromkeys(column.field for column in COLUMNS if column.is_stored))
