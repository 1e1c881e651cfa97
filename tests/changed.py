"""Which tests belong to what has changed since the branch `main`, by the names of the files."""

from __future__ import annotations

import subprocess
from pathlib import Path, PurePath

ROOT = Path(__file__).parents[1]


def tests_of_changes() -> set[Path]:
    """The test modules that changed, and those whose subject did."""
    return {test for path in _changed() for test in _tests_of(path) if test.exists()}


def _tests_of(path: PurePath) -> list[Path]:
    """`tasks/core/data/drift.py` belongs to `tests/core/data/test_drift.py`, as its test does."""
    package, *folders, name = path.parts if len(path.parts) > 1 else ("", *path.parts)
    if path.suffix != ".py" or package not in {"tasks", "flows", "tests"}:
        return []
    test = name if name.startswith("test_") else f"test_{name}"
    return [ROOT.joinpath("tests", *folders, test), ROOT / "tests" / test]


def _changed() -> list[PurePath]:
    """Files that differ from where this branch left `main`, and new ones."""
    base = _git("merge-base", "HEAD", "main") or ["HEAD"]
    names = _git("diff", "--name-only", base[0]) + _git(
        "ls-files", "--others", "--exclude-standard"
    )
    return [PurePath(name) for name in names]


def _git(*arguments: str) -> list[str]:
    found = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return found.stdout.splitlines()
