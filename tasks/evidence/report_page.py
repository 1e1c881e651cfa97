"""The numbers on a bundle's report page, against its tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tasks.core.bundle.findings import Findings
from tasks.core.bundle.recount import Tables
from tasks.core.errors import CertiflowError
from tasks.core.evidence.comparison import DEPLOYED, Evidence
from tasks.evidence.gathering import RUN
from tasks.presentation.comparison import costs
from tasks.presentation.comparison_view import COLUMNS, UNKNOWN
from tasks.presentation.page import NAME


def check(folder: Path, tables: Tables, sha256: str, findings: Findings) -> None:
    """The version's line of the comparison, cell by cell; `sha256` is that of the data.

    Raises:
        CertiflowError: the page has no such line.
    """
    run = json.loads((folder / RUN).read_text(encoding="utf-8"))
    version, epsilon = f"v{run['version'].rpartition('/')[2]}", _epsilon(run)
    known = costs(run["metrics"], tables.verdicts)
    evidence = Evidence(sha256, tables.points, tables.verdicts, tables.radii, known)
    values: dict[str, Any] = {
        **evidence.measures(epsilon),
        DEPLOYED: evidence.certified_deployed_accuracy(epsilon),
        **known,
    }
    said = _line((folder / NAME).read_text(encoding="utf-8"), version)
    for column, text in zip(COLUMNS, said, strict=True):
        value = values.get(column.measure)
        told = UNKNOWN if value is None else column.shown(value)
        findings.add("report page", column.heading, text, told, same=text == told)


def _epsilon(run: Mapping[str, Any]) -> float:
    return float(run["tags"]["reference_epsilon"])


def _line(page: str, version: str) -> list[str]:
    rows = _Rows()
    rows.feed(page)
    found = [row[1:] for row in rows.rows if row and row[0] == version]
    for row in found:
        if len(row) == len(COLUMNS):
            return row
    raise CertiflowError(f"{NAME}: has no line of {len(COLUMNS)} numbers on {version}")


class _Rows(HTMLParser):
    """Rows of all tables; of each cell what stands before its first line break or mark."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._is_open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag == "td" and self.rows:
            self.rows[-1].append("")
            self._is_open = True
        elif tag in {"br", "span"}:
            self._is_open = False

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._is_open = False

    def handle_data(self, data: str) -> None:
        if self._is_open:
            self.rows[-1][-1] += data.strip()
