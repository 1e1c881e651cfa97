"""The clause map of one bundle: which of its files answer which clauses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict

from tasks.core.bundle.clauses import CLAUSES, Clause


class Answer(BaseModel):
    """A clause with the files of one bundle that answer it."""

    model_config = ConfigDict(frozen=True)

    clause: Clause
    files: tuple[str, ...]


def answers(names: Iterable[str]) -> list[Answer]:
    """What the files of a bundle answer; of many alike the pattern, where any is there."""
    there = list(names)
    return [
        Answer(
            clause=clause,
            files=tuple(
                pattern for pattern in clause.files if any(fnmatchcase(n, pattern) for n in there)
            ),
        )
        for clause in CLAUSES
    ]


def as_json(found: Sequence[Answer]) -> bytes:
    """The map for programs."""
    return json.dumps([each.model_dump() for each in found], indent=1).encode() + b"\n"


def as_markdown(found: Sequence[Answer]) -> str:
    """The map for people, by source."""
    lines = [
        "# Clause map",
        "",
        "Which file of this bundle answers which clause, told in certiflow's words, and which "
        "clauses nothing here answers. Evidence for a clause is no statement of conformity.",
    ]
    for source in dict.fromkeys(each.clause.source for each in found):
        lines += ["", f"## {source}", "", "| clause | asks | answered by | how far |"]
        lines += ["|---|---|---|---|"]
        for each in found:
            if each.clause.source == source:
                named = ", ".join(f"`{file}`" for file in each.files) or "**nothing**"
                clause = each.clause
                lines.append(f"| {clause.clause} | {clause.asks} | {named} | {clause.how} |")
    return "\n".join([*lines, ""])
