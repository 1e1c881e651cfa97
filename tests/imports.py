"""Which modules of the project a file imports, anywhere in it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def project_modules() -> list[Path]:
    """Every file of the product's code, in order of its path."""
    return sorted([*(ROOT / "flows").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")])


def imported_names(path: Path) -> set[str]:
    """Names of the modules, and of what may be modules, that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def imported_modules(path: Path) -> set[Path]:
    """The project's own files among them; a package only where it is not the way to a module."""
    files = {name: file for name in imported_names(path) if (file := _file(name)) is not None}
    on_the_way = {_file(name.rpartition(".")[0]) for name in files}
    return set(files.values()) - on_the_way


def _file(name: str) -> Path | None:
    place = ROOT / name.replace(".", "/")
    files = (place.with_suffix(".py"), place / "__init__.py")
    return next((file for file in files if file.is_file()), None)
