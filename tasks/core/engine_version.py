"""The engine's version, which follows its code: stored verdicts never outlive a change of it."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path

NUMBER = 7  # for people: larger after every change that they should know of

# All code that a verdict, its margin or its time depends on; a test holds it complete.
SOURCES = (
    "arrays.py",
    "verdicts.py",
    "verdict_columns.py",
    "properties",
    "networks",
    "tensors",
    "readers",
    "bounds",
    "dual",
    "models",
    "attacks",
    "search",
    "execution",
    "verification",
    "queries",
    "pairs",
)
LIBRARIES = ("keras", "maraboupy", "numba", "numpy", "onnx", "onnxruntime", "scipy", "tensorflow")


def source_files() -> list[Path]:
    """The files of `SOURCES`, in a fixed order."""
    core = Path(__file__).parent
    return [
        path
        for source in SOURCES
        for path in (
            [core / source] if source.endswith(".py") else sorted((core / source).glob("*.py"))
        )
    ]


def _digest() -> str:
    digest, core = hashlib.sha256(), Path(__file__).parent
    for path in source_files():
        digest.update(f"{path.relative_to(core).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library} {version(library)}\n".encode())
    return digest.hexdigest()


ENGINE_VERSION = f"{NUMBER}-{_digest()[:16]}"
