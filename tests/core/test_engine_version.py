"""The engine's version follows everything that a verdict depends on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tasks.core import engine_version
from tests.imports import imported_modules

CORE = Path(engine_version.__file__).parent
# What brings files and tells of stages, but can change no answer.
CARRIERS = {
    "data",
    "engine_version.py",
    "errors.py",
    "files.py",
    "reporting.py",
    "sources",
    "uris.py",
    "yaml_files.py",
}


def test_every_module_behind_a_verdict_is_in_the_version() -> None:
    seen: set[Path] = set()
    waiting = {
        path for room in ("verification", "queries", "pairs") for path in (CORE / room).glob("*.py")
    }
    while waiting:
        path = waiting.pop()
        seen.add(path)
        waiting |= imported_modules(path) - seen
    places = {path.relative_to(CORE).parts[0] for path in seen if CORE in path.parents}
    assert places - CARRIERS == set(engine_version.SOURCES)


def test_a_change_of_code_or_library_changes_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in engine_version.source_files():
        copy = tmp_path / path.relative_to(CORE)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
    monkeypatch.setattr(engine_version, "__file__", str(tmp_path / "engine_version.py"))
    before = engine_version._digest()
    assert engine_version.ENGINE_VERSION.endswith(before[:16])
    with (tmp_path / "bounds" / "linear.py").open("a") as file:
        file.write("\n")
    changed = engine_version._digest()
    monkeypatch.setattr(engine_version, "version", lambda library: "0")
    assert len({before, changed, engine_version._digest()}) == 3
