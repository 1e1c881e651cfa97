"""Marabou's own program, which reads ONNX and VNN-LIB files itself: nothing of ours is in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ANSWERS = {"sat", "unsat", "timeout", "unknown", "error"}
GRACE = 30.0  # beyond its own limit, which it overshoots


def program() -> Path | None:
    """Where maraboupy's wheel put it; None where it is not."""
    found = shutil.which("Marabou", path=str(Path(sys.executable).parent))
    return None if found is None else Path(found)


def asked(command: Path, network: Path, prop: Path, seconds: int) -> str:
    """Its answer; what else it ends with is `error: ` and its last line."""
    arguments = [network.absolute(), prop.absolute(), "--timeout", seconds, "--verbosity", 0]
    with tempfile.TemporaryDirectory() as folder:  # it leaves files where it stands
        try:
            ended = subprocess.run(
                [str(command), *map(str, arguments)],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=seconds + GRACE,
            )
        except subprocess.TimeoutExpired:
            return "timeout"
    lines = ended.stdout.splitlines()
    said = [line.strip().lower() for line in lines if line.strip().lower() in ANSWERS]
    return said[0] if said else f"error: {lines[-1] if lines else ended.returncode}"
