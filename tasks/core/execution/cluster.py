"""Solver jobs on the workers of an existing Dask cluster, under the limits of a local pool.

A job is one Dask task, solved by a `WorkerPool` of one process that the worker's thread keeps for
the jobs after it. What Dask's messages cost, milliseconds, is little beside a ball that bounds left
open; so every verdict is safe as soon as it is found, hard jobs start first, and a lost worker
costs one job's work per thread.
"""

# mypy: disallow-untyped-calls=False
# (Dask's client has hardly any types.)

from __future__ import annotations

import gc
import logging
import pickle
import pydoc
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tasks.core.engine_version import ENGINE_VERSION
from tasks.core.errors import CertiflowError
from tasks.core.execution.worker import AnswerT, Ending, JobT
from tasks.core.execution.worker_pool import Outcome, WorkerPool
from tasks.core.files import sha256_of
from tasks.core.uris import without_passwords

if TYPE_CHECKING:
    from distributed import Client, Future

SCHEMES = ("tcp", "tls", "ucx", "ws", "wss")
CONNECT_SECONDS = 10.0
FIRST_WORKER_SECONDS = 30.0
NO_WORKER_SECONDS = 60.0  # in the middle of a run: a nanny restarts its worker within seconds
CHECK_SECONDS = 2.0
POLL_SECONDS = 0.02
GOES_ON = "verdicts so far are kept, and the same command goes on from them"
# Each has a level and a handler to stderr of its own once Dask is imported.
CHATTY = ("distributed", "distributed.client", "distributed.gc", "tornado", "tornado.application")


def run_on_cluster(
    address: str,
    make_solver: Callable[..., Callable[[JobT], AnswerT]],
    arguments: tuple[Any, ...],
    jobs: Sequence[JobT],
    *,
    timeout_seconds: Callable[[JobT], float],
    memory_limit_bytes: int,
) -> Generator[Outcome[JobT, AnswerT], None, None]:
    """`worker_pool.run_jobs` with a process for every thread of the cluster at `address`.

    `arguments` travel once, jobs and answers one by one. A job whose worker is lost is solved on
    another; one that was at, or next on, a worker that died is `FAILED` when Dask has counted too
    many such deaths. Ending the iteration withdraws the jobs that wait; those at work end with
    their own limits.

    Client, scheduler and workers run what the others send (Dask uses pickle): the cluster must be
    one that you trust. Dask's own configuration holds the certificates of a `tls://` address.

    Raises:
        CertiflowError: the address is malformed or nothing answers there, no worker comes or all
            are gone, one of them has another certiflow or none, or cannot start a process.
    """
    if not jobs:
        return
    solver = pickle.dumps((ENGINE_VERSION, make_solver, arguments, memory_limit_bytes))
    with _connected(address) as client:
        _check_versions(client)
        # A task of its own, not scattered data: Dask computes it anew when its worker is lost.
        sent = client.submit(bytes, solver, pure=False)
        futures = client.map(
            _solve,
            jobs,
            [timeout_seconds(job) for job in jobs],
            solver=sent,
            digest=sha256_of(solver),
            pure=False,
        )
        job_of = dict(zip(futures, jobs, strict=True))
        del futures  # a future that nobody holds is an answer that the cluster can forget
        for future, result in _completed(client, list(job_of)):
            yield _outcome(job_of.pop(future), result)


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    """A client of a scheduler that has workers; leaving withdraws what it asked for."""
    import dask

    check_address(address)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    with (
        _client(address) as client,
        dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}),
    ):
        try:
            client.wait_for_workers(1, timeout=FIRST_WORKER_SECONDS)
        except TimeoutError as error:
            raise CertiflowError(
                f"the Dask cluster at {address} has no worker after {FIRST_WORKER_SECONDS:g} s: "
                f"start one with `dask worker {address}`, or do without a cluster"
            ) from error
        yield client


def _client(address: str) -> Client:
    """A client that is connected.

    One that cannot connect is deleted at once, not whenever garbage is collected: Dask stops its
    loop then, which waits for ever where that happens while another client starts one.
    """
    from distributed import Client

    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except OSError:
        problem = _no_answer(address)
    except (RuntimeError, TypeError, ValueError) as error:
        problem = CertiflowError(f"cannot connect to {address} ({_one_line(error)})")
    gc.collect()
    raise problem


def check_answer(address: str) -> None:
    """Whether something listens there: known at once, and without importing Dask.

    Raises:
        CertiflowError: the address is malformed or nothing listens there.
    """
    check_address(address)
    parts = urlsplit(address)
    if parts.scheme == "ucx":  # need not be TCP
        return
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), CONNECT_SECONDS).close()
    except OSError as error:
        raise _no_answer(address) from error


def _no_answer(address: str) -> CertiflowError:
    return CertiflowError(
        f"no Dask scheduler answers at {address} within {CONNECT_SECONDS:g} s: "
        "start it, or do without a cluster"
    )


def check_address(address: str) -> None:
    """Before Dask reads it, whose client, refused when half-made, hangs now and then as it closes.

    Raises:
        CertiflowError: it is not a scheme that Dask knows, a host and a port, and no more.
    """
    try:
        parts = urlsplit(address)
        complete = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port is not None
        complete = complete and parts.username is None
    except ValueError:  # brackets that do not close, a port that is no number or above 65535
        complete = False
    if not complete:
        raise CertiflowError(
            f"{without_passwords(address)!r} is not the address of a Dask scheduler: "
            "write it like tcp://host:8786"
        )


def _check_versions(client: Client) -> None:
    """Asks with a function of Python's own, which can be sent where certiflow is not.

    The scheduler reads jobs as well, to pass them on.
    """
    name = "tasks.core.engine_version.ENGINE_VERSION"
    workers = client.run(pydoc.locate, name, on_error="return")
    found = {f"worker {address}": version for address, version in workers.items()}
    found["scheduler"] = client.run_on_scheduler(pydoc.locate, name)
    for place, version in found.items():
        if version != ENGINE_VERSION and not isinstance(version, OSError):  # it is gone again
            has = "no certiflow" if version is None else f"certiflow's engine {version}"
            raise CertiflowError(
                f"the Dask cluster's {place} has {has}, this command engine {ENGINE_VERSION}: "
                "install the same certiflow there and restart it"
            )


def _completed(client: Client, futures: Sequence[Future[Any]]) -> Iterator[tuple[Future[Any], Any]]:
    """Futures with what came of them, as they come, while there are workers."""
    from distributed import as_completed

    completed = as_completed(futures, loop=client.loop, with_results=True, raise_errors=False)
    del futures
    checked = seen = time.monotonic()
    while not completed.is_empty():
        yield from completed.next_batch(block=False)
        time.sleep(POLL_SECONDS)
        if time.monotonic() - checked > CHECK_SECONDS:
            checked = time.monotonic()
            seen = checked if _has_workers(client) else seen
            if checked - seen > NO_WORKER_SECONDS:
                raise CertiflowError(
                    f"the Dask cluster has had no worker for {NO_WORKER_SECONDS:g} s: "
                    f"start one; {GOES_ON}"
                )


def _has_workers(client: Client) -> bool:
    try:
        return bool(client.nthreads())
    except OSError as error:
        raise CertiflowError(
            f"the Dask scheduler is gone ({_one_line(error)}): start it; {GOES_ON}"
        ) from error


def _outcome(job: JobT, result: Any) -> Outcome[JobT, Any]:
    """What a task gave: its outcome, or an exception, alone or between its type and traceback."""
    from distributed import KilledWorker

    if isinstance(result, Outcome):
        return replace(result, job=job)
    error = result[1] if isinstance(result, tuple) else result
    if isinstance(error, KilledWorker):
        reason = f"{error.allowed_failures + 1} Dask workers died that had this job"
        return Outcome(job, Ending.FAILED, None, reason, 0.0)
    raise CertiflowError(f"the Dask cluster gave up ({_one_line(error)}); {GOES_ON}") from error


def _one_line(error: BaseException) -> str:
    words = " ".join(str(error).split())
    return words if isinstance(error, CertiflowError) else f"{type(error).__name__}: {words}"


class _Kept(threading.local):
    """A Dask worker thread's pool, and the digest of its solver."""

    digest = ""
    pool: WorkerPool[Any, Any] | None = None


_kept = _Kept()


def _solve(job: JobT, timeout_seconds: float, solver: bytes, digest: str) -> Outcome[JobT, Any]:
    """In a Dask worker's thread. Its pool ends with it, or when a job for another solver comes."""
    if _kept.pool is None or _kept.digest != digest:
        if _kept.pool is not None:
            _kept.pool.close()
        version, make_solver, arguments, memory_limit_bytes = pickle.loads(solver)
        _kept.pool = WorkerPool(
            _of_version,
            (version, make_solver, arguments),
            num_workers=1,
            memory_limit_bytes=memory_limit_bytes,
        )
        _kept.digest = digest
    (outcome,) = _kept.pool.run([job], lambda _: timeout_seconds)
    return outcome


def _of_version(
    version: str, make_solver: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]
) -> Callable[[Any], Any]:
    """The solver, in the process that solves: its code may be newer than the Dask worker's.

    Workers that come later are not asked before, so that this is what keeps verdicts of another
    engine away.
    """
    if version != ENGINE_VERSION:
        raise CertiflowError(
            f"a Dask worker has certiflow's engine {ENGINE_VERSION}, this command {version}: "
            "install the same certiflow there and restart the worker"
        )
    return make_solver(*arguments)
