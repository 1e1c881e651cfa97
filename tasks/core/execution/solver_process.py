"""A process that solves jobs: few threads, quiet, deaf to Ctrl-C, dead with its parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from tasks.core import reporting

# Native libraries read these when they are loaded: a process must be born with them.
ONE_THREAD = {"MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
NUM_THREADS = "NUMBA_NUM_THREADS"  # of a search's own, each of which runs compiled code

READY, SOLVING, STAGE, DONE, FAILED = "ready", "solving", "stage", "done", "failed"

_START_LOCK = threading.Lock()  # a start changes what belongs to the whole process for a moment


def start(
    make_solver: Callable[..., Callable[[Any], Any]],
    arguments: tuple[Any, ...],
    num_threads: int = 1,
) -> tuple[Any, Connection]:
    """The process and the connection to it, which gives and takes pickled values.

    The process sends `(message, value, seconds)`: first `READY` when `make_solver(*arguments)` is
    done. Then, for every job it receives, `SOLVING` when the solver has prepared for it (its
    method `prepare`, if it has one), `STAGE` with the name of each stage that is entered, and
    `DONE` with the answer. In place of any but `STAGE` it sends `FAILED` with the exception's
    words. Linux kills it when the thread that called this ends.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(theirs, os.getpid(), make_solver, arguments), daemon=True
    )
    threads = ONE_THREAD | {NUM_THREADS: str(num_threads)}
    with _START_LOCK, _environment(threads), _allowed_children():
        process.start()
    theirs.close()
    return process, ours


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets variables for the processes started inside, and puts back what was there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _allowed_children() -> Iterator[None]:
    """Lets a daemonic process, such as a Dask worker under its nanny, start others inside.

    multiprocessing forbids it, lest they outlive a daemon that is terminated: these do not.
    """
    this = multiprocessing.current_process()
    daemonic, this.daemon = this.daemon, False
    try:
        yield
    finally:
        this.daemon = daemonic


def _serve(
    connection: Connection,
    parent: int,
    make_solver: Callable[..., Callable[[Any], Any]],
    arguments: tuple[Any, ...],
) -> None:
    """The process's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir(tempfile.gettempdir())  # Marabou writes a query that it fails on where it stands
    _die_with(parent)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    reporting.report_to(lambda stage: connection.send((STAGE, stage, 0.0)))
    message, solver = _attempt(READY, make_solver, *arguments)
    connection.send((message, None if message == READY else solver, 0.0))
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        message, answer = _attempt(SOLVING, getattr(solver, "prepare", _nothing), job)
        started = time.monotonic()
        if message == SOLVING:
            connection.send((SOLVING, None, 0.0))
            message, answer = _attempt(DONE, solver, job)
        connection.send((message, answer, time.monotonic() - started))


def _nothing(job: Any) -> None:
    """The preparation of a solver that needs none."""


def _attempt(message: str, call: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """The answer, or the exception's words: what a solver raises must not end its process."""
    try:
        return message, call(*arguments)
    except Exception as error:
        return FAILED, f"{type(error).__name__}: {error}"


def _die_with(parent: int) -> None:
    """Asks Linux to kill this process when its parent dies, even in the middle of a solve."""
    import ctypes
    import sys

    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(1)
