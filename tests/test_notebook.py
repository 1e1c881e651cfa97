"""The notebook of docs/ runs, cell after cell, and is kept without what it once printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.imports import ROOT

NOTEBOOK = ROOT / "docs/api.ipynb"
SECONDS = 300.0


def cells() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return found


def test_it_runs(tmp_path: Path) -> None:
    """The code cells in order, in a process of their own, which names the cell that fails."""
    parts = ["".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code"]
    assert len(parts) >= 5
    runner = (
        "import json, sys\n"
        "names = {}\n"
        "for number, text in enumerate(json.load(sys.stdin)):\n"
        "    exec(compile(text, f'code cell {number}', 'exec'), names)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", runner],
        input=json.dumps(parts),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert "robust by" in result.stdout


def test_it_is_kept_clean() -> None:
    for cell in cells():
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
