"""Dependencies point one way: the numerics load neither Prefect nor MLflow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = sorted(path.stem for path in (ROOT / "tasks/core").glob("*.py") if path.stem != "__init__")


def imported(path: Path) -> set[str]:
    """Names of the modules a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_core_loads_neither_prefect_nor_mlflow_nor_tensorflow() -> None:
    imports = "; ".join(f"import tasks.core.{name}" for name in CORE)
    check = (
        "import sys; print([m for m in ('prefect', 'mlflow', 'tensorflow') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", f"{imports}; {check}"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("library", "only"), [("mlflow", "tasks/tracking/"), ("maraboupy", "tasks/core/marabou.py")]
)
def test_one_place_imports_it(library: str, only: str) -> None:
    paths = [*(ROOT / "flows").glob("*.py"), *(ROOT / "tasks").rglob("*.py")]
    users = {
        str(path.relative_to(ROOT))
        for path in paths
        if any(name.split(".")[0] == library for name in imported(path))
    }
    assert users
    assert all(user.startswith(only) for user in users)


def test_dependencies_point_from_flows_to_tasks_to_core() -> None:
    for path in (ROOT / "tasks").rglob("*.py"):
        names = imported(path)
        assert not any(name.split(".")[0] == "flows" for name in names), path
        if path.parent.name == "core":
            outside = {
                n for n in names if n.startswith("tasks.") and not n.startswith("tasks.core")
            }
            assert outside == set(), path
