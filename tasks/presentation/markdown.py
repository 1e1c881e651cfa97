"""Markdown, as MLflow's pages and Prefect's artifacts read it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tasks.core.evidence.names import one_line


def inline(text: str) -> str:
    """Words from elsewhere within a line of Markdown: text, whatever marks and tags it holds."""
    escaped = one_line(text, len(text)).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([`|]|(?<=\])\()", r"\\\1", escaped)


def table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """Lines of a Markdown table; fractions are shown in percent, what is not known as `-`."""
    texts = [["-" if cell is None else cell for cell in row] for row in rows]
    cells = [[f"{c:.2%}" if isinstance(c, float) else str(c) for c in row] for row in texts]
    lines = [header, ["---:"] * len(header), *cells]
    return ["| " + " | ".join(line) + " |" for line in lines]
