"""Dependencies point one way: between packages, between modules, and away from the frameworks."""

from __future__ import annotations

import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.imports import ROOT, imported_modules, imported_names, project_modules

CORE = ROOT / "tasks/core"
# A package may import those of the floors before its own; `.` is the modules that lie in the
# folder itself.
FLOORS = (
    {"."},
    {"properties", "networks", "execution"},
    {"data", "tensors", "bounds"},
    {"sources", "readers", "dual"},
    {"models"},
    {"attacks"},
    {"training", "search"},
    {"verification", "certificates"},
    {"queries"},
    {"pairs"},
    {"evidence", "guard"},
    {"bundle"},
)
MODULES = [path for path in project_modules() if CORE in path.parents]


def package(path: Path) -> str:
    return str(path.parent.relative_to(CORE))


def test_core_loads_neither_prefect_nor_mlflow_nor_tensorflow() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in MODULES]
    imports = "; ".join(f"import {name.removesuffix('.__init__')}" for name in names)
    check = (
        "import sys; print([m for m in ('prefect', 'mlflow', 'tensorflow') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", f"{imports}; {check}"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("module", "later"),
    [
        ("tasks.api", {"keras", "matplotlib", "mlflow", "pandas", "prefect", "tensorflow"}),
        ("flows.command.cli", {"mlflow", "numpy", "pandas", "prefect"}),
        ("flows.actions.decision_commands", {"keras", "matplotlib", "onnx", "prefect"}),
        ("flows.actions.version_commands", {"keras", "matplotlib", "onnx", "prefect"}),
        ("flows.robustness", {"keras", "matplotlib", "onnxruntime"}),
        ("flows.guard.running", {"keras", "prefect", "tensorflow"}),
    ],
)
def test_what_takes_long_is_loaded_where_it_is_used(module: str, later: set[str]) -> None:
    check = f"import sys, {module}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True
    )
    loaded = set(result.stdout.split())
    assert module in loaded
    assert not later & loaded


@pytest.mark.parametrize(
    ("library", "only"),
    [("mlflow", "tasks/tracking/"), ("maraboupy", "tasks/core/search/marabou.py")],
)
def test_one_place_imports_it(library: str, only: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in project_modules()
        if any(name.split(".")[0] == library for name in imported_names(path))
    }
    assert users
    assert all(user.startswith(only) for user in users)


def test_dependencies_point_from_flows_to_tasks_to_core() -> None:
    for path in (ROOT / "tasks").rglob("*.py"):
        names = imported_names(path)
        assert not any(name.split(".")[0] == "flows" for name in names), path
        if CORE in path.parents:
            outside = {
                n for n in names if n.startswith("tasks.") and not n.startswith("tasks.core")
            }
            if path.parent.name == "certificates":  # writes what the checker reads
                outside = {name for name in outside if not name.startswith("tasks.checker")}
            assert outside == set(), path


def test_the_checker_imports_nothing_else_of_the_project() -> None:
    for path in (ROOT / "tasks/checker").glob("*.py"):
        others = {module for module in imported_modules(path) if module.parent != path.parent}
        assert others == set(), path


def test_packages_of_the_core_import_those_of_lower_floors() -> None:
    floors = {name: number for number, names in enumerate(FLOORS) for name in names}
    assert {package(path) for path in MODULES} == floors.keys()
    for path in MODULES:
        modules = {module for module in imported_modules(path) if CORE in module.parents}
        others = {package(module) for module in modules} - {package(path)}
        wrong = {name for name in others if floors[name] >= floors[package(path)]}
        assert wrong == set(), path


def test_no_circle_of_imports() -> None:
    graph = {path: imported_modules(path) - {path} for path in project_modules()}
    order = tuple(TopologicalSorter(graph).static_order())  # CycleError names the circle
    assert set(graph) <= set(order)
