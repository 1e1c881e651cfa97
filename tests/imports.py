"""Which modules of the project a file imports, anywhere in it."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


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
    """The project's own files among them."""
    files = {ROOT / f"{name.replace('.', '/')}.py" for name in imported_names(path)}
    return {file for file in files if file.is_file()}
