"""The engine's version follows everything that a verdict depends on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tasks.core import engine_version

CORE = Path(engine_version.__file__).parent
ASKED = (
    "critical_radius",
    "global_robustness",
    "keras_network",
    "nnet_network",
    "onnx_network",
    "property_verification",
    "reluplex",
    "verification",
)
# What carries jobs and stores answers, but can change none of them.
CARRIERS = {
    "cluster",
    "datasets",
    "download",
    "engine_version",
    "errors",
    "files",
    "reluplex",
    "reporting",
    "solver_process",
    "uris",
    "verdict_store",
    "worker_pool",
}


def imported(name: str) -> set[str]:
    """Modules of the core that one of them imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse((CORE / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tasks.core"):
            modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found |= {module.removeprefix("tasks.core.") for module in modules if module}
    return {name for name in found if (CORE / f"{name}.py").is_file()}


def test_every_module_behind_a_verdict_is_in_the_version() -> None:
    seen: set[str] = set()
    waiting = set(ASKED)
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= imported(name) - seen
    assert set(engine_version.SOURCES) == seen - CARRIERS


def test_a_change_of_code_or_library_changes_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in engine_version.SOURCES:
        (tmp_path / f"{name}.py").write_bytes((CORE / f"{name}.py").read_bytes())
    monkeypatch.setattr(engine_version, "__file__", str(tmp_path / "engine_version.py"))
    before = engine_version._digest()
    assert engine_version.ENGINE_VERSION.endswith(before[:16])
    with (tmp_path / "bounds.py").open("a") as file:
        file.write("\n")
    changed = engine_version._digest()
    monkeypatch.setattr(engine_version, "version", lambda library: "0")
    assert len({before, changed, engine_version._digest()}) == 3
