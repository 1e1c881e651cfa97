"""The note that a lasting Prefect server of this user leaves, so that other commands can use it.

It lies in Prefect's home, beside the database that the server writes, and is believed only where
this user alone can have written it and the process that it names, this user's as well, listens at
the loopback port that it names.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

NOTE = ".certiflow-server.json"
HOST = "127.0.0.1"


def home() -> Path:
    """Prefect's folder, found without importing Prefect, which takes a second."""
    return Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()


def leave_note(port: int) -> None:
    """Says that this process serves on `port`, where Prefect's home can be written."""
    path = home() / NOTE
    temporary = path.with_name(f"{NOTE}.{os.getpid()}")
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            json.dump({"pid": os.getpid(), "port": port}, stream)
        temporary.replace(path)


def remove_note() -> None:
    """Takes back this process's note, and no other's."""
    with suppress(OSError, ValueError):
        path = home() / NOTE
        if json.loads(path.read_text())["pid"] == os.getpid():
            path.unlink()


def find() -> str | None:
    """The API's URL of this user's lasting server, if there is one; it may still be starting."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        path = home() / NOTE
        for status, is_kind in (path.lstat(), stat.S_ISREG), (home().stat(), stat.S_ISDIR):
            if not _is_own_alone(status, is_kind):
                return None
        said = json.loads(path.read_text())
        pid, port = int(said["pid"]), int(said["port"])
        if _listens(pid, port):
            return f"http://{HOST}:{port}/api"
    return None


def _is_own_alone(status: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    others = stat.S_IWGRP | stat.S_IWOTH
    return is_kind(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & others


def _listens(pid: int, port: int) -> bool:
    import psutil

    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return process.uids().real == os.getuid() and any(
            each.status == psutil.CONN_LISTEN and each.laddr == (HOST, port)
            for each in process.net_connections(kind="tcp4")
        )
    return False
