"""Devices like /dev/null and /dev/full in a test's own folder: the machine's are never touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

MINORS = {"null": 3, "full": 7}


def device(folder: Path, name: str) -> Path:
    """A node for `null`, which drops what is written, or `full`, which has no space left."""
    path = folder / name
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, MINORS[name]))
        path.open("wb").close()  # a file system may be mounted without devices
    except OSError as error:
        pytest.skip(f"needs device nodes, which this user or file system may not have: {error}")
    return path


def is_device(path: Path) -> bool:
    return stat.S_ISCHR(path.lstat().st_mode)
