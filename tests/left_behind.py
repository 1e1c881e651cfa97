"""What a command that was ended has left: processes, verdicts, runs of MLflow, files."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

TEMPORARY = re.compile(r"\.[0-9a-f]{32}(\..*)?|.*\.(tmp|part)")  # names of files while written
DATABASES = ("mlflow.db", "verdicts.db")
OVER = {"FINISHED", "FAILED", "KILLED"}


def processes(mark: str) -> list[str]:
    """Those that live and have the mark in their environment, by their command lines."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if mark in process.environ().values() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline())[-60:])
    return found


def stored_verdicts(project: Path) -> dict[tuple[str, ...], tuple[object, ...]]:
    """The rows of `verdicts.db` by key, with the seconds and the moment of their computation."""
    with _opened(project / "verdicts.db") as store:
        rows = store.execute(
            "select network, property, engine, verdict, decided_by, seconds, created from verdicts"
        ).fetchall()
    return {row[:3]: row[3:] for row in rows}


def unmarked_runs(project: Path) -> list[str]:
    """Runs that MLflow still believes to be running."""
    with _opened(project / "mlflow.db") as store:
        rows = store.execute("select status from runs").fetchall()
    return [f"an MLflow run is {status}" for (status,) in rows if status not in OVER]


def broken_files(project: Path) -> list[str]:
    """Files that cannot be read to their end, and those that were to be renamed when whole."""
    found = []
    for name in DATABASES:
        with _opened(project / name) as store:
            if store.execute("pragma integrity_check").fetchall() not in ([], [("ok",)]):
                found.append(f"{name} is damaged")
    for path in project.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        if TEMPORARY.fullmatch(path.name):
            found.append(f"{path.relative_to(project)} is left")
            continue
        try:
            _read(path)
        except Exception as error:  # whatever its format raises
            found.append(f"{path.relative_to(project)} is not whole ({type(error).__name__})")
    return found


def _read(path: Path) -> None:
    match path.suffix:
        case ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                for name in arrays:
                    assert arrays[name].nbytes >= 0
        case ".json":
            json.loads(path.read_text())
        case ".csv":
            assert path.read_text().endswith("\n")
        case ".png":
            with Image.open(path) as image:
                image.load()
        case ".keras":
            import zipfile

            with zipfile.ZipFile(path) as archive:
                assert archive.testzip() is None


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A database as it is, or an empty one with its tables where there is none yet."""
    with closing(sqlite3.connect(path if path.exists() else ":memory:")) as store:
        for table in (
            "verdicts(network, property, engine, verdict, decided_by, seconds, created)",
            "runs(status)",
        ):
            name = table.partition("(")[0]
            known = store.execute("select count(*) from sqlite_master where name = ?", [name])
            if not known.fetchone()[0]:
                store.execute(f"create temporary table {table}")
        yield store
