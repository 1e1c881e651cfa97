"""What a proof in every answer costs: `python -m tests.bench_guard --model models:/NAME/VERSION`.

In a project's folder, of whose store it uses a copy: the guard beside MLflow's own server of the
same version; alone in a crowd of connections; over many clean requests, where alarms are
false. The load comes from a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from flows.guard.connections import allow_many
from tasks.core.arrays import Float32Array
from tasks.core.sources.catalogue import load
from tests.command import ROOT, clean_environment
from tests.guarded import START_SECONDS, Guard, guarding
from tests.load import CLIENT_HEADER, PER_CLIENT
from tests.local_servers import free_port

BUDGET_MS = 50
CANDIDATES, MOST_INPUTS, AT_ONCE = 4000, 256, 500  # of the test set, sent in turn, in a request
ESCALATED = 500  # requests
CONNECTIONS = 64
CROWD, CROWD_REQUESTS = 10_000, 2000
MEMORY_AT = (10_000, 1_000_000)  # requests


class Server(NamedTuple):
    """Of a model: where it is asked, and how often, so that each takes some seconds."""

    name: str
    url: str
    path: str
    one_client: int
    many_clients: int


def measure(
    url: str, path: str, inputs: Float32Array, connections: int, count: int
) -> dict[str, float]:
    """`tests.load` of single inputs, each in turn."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps({"inputs": [each.tolist()]}) + "\n" for each in inputs)
        file.flush()
        host, _, port = url.removeprefix("http://").partition(":")
        command = [sys.executable, "-m", "tests.load", host, port, path, file.name]
        told = subprocess.run(
            [*command, str(connections), str(count)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    found: dict[str, float] = json.loads(told.stdout)
    assert found["failed"] == 0, f"{url}{path}: {found['failed']} requests of {count} failed"
    return found


def clean_inputs(guard: Guard) -> Float32Array:
    """The test set, in an order drawn at random."""
    inputs = load(guard.client.get("/live").json()["dataset"], Path("data")).test_inputs
    return np.random.default_rng(0).permutation(inputs)


def sorted_inputs(guard: Guard) -> tuple[Float32Array, Float32Array]:
    """Test inputs that intervals prove, and those that they leave to the ladder."""
    inputs = clean_inputs(guard)[:CANDIDATES]
    stages = [
        answer["decided_by"]
        for start in range(0, len(inputs), AT_ONCE)
        for answer in guard.predict(inputs[start : start + AT_ONCE])["answers"]
    ]
    proved = np.array([stage == "interval" for stage in stages])
    return inputs[proved][:MOST_INPUTS], inputs[~proved][:MOST_INPUTS]


@contextmanager
def mlflow_serving(project: Path, model: str) -> Iterator[str]:
    """The address of `mlflow models serve`, answering, for the time of the block."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}"}
    with subprocess.Popen(
        [*command, "--model-uri", model, "--host", "127.0.0.1", "--port", str(port)],
        cwd=project,
        env=clean_environment(project / "prefect", **store),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # its server is a process of its own, and ends with the group
    ) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _is_up(url):
                assert process.poll() is None, "mlflow models serve has ended"
                assert time.monotonic() < deadline, "mlflow models serve does not answer"
                time.sleep(0.2)
            yield url
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _is_up(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/ping").is_success
    return False


def compared(servers: Sequence[Server], accepted: Float32Array, console: Console) -> None:
    """One client, then many."""
    table = Table(title="inputs that intervals prove, one in a request")
    for column in ("server", "p50 ms", "p99 ms", f"requests/s, {CONNECTIONS} connections"):
        table.add_column(column, justify="left" if column == "server" else "right")
    for server in servers:
        address = server.url, server.path, accepted
        measure(*address, 1, server.one_client // 10)  # warms it
        one = measure(*address, 1, server.one_client)
        many = measure(*address, CONNECTIONS, server.many_clients)
        table.add_row(server.name, f"{one['p50']:.2f}", f"{one['p99']:.2f}", f"{many['rate']:,.0f}")
    console.print(table)


def crowded(guard: Guard, accepted: Float32Array, console: Console) -> None:
    """One client beside many connections that say nothing, for as long as they may stay open."""
    allow_many()
    host, _, port = guard.url.removeprefix("http://").partition(":")
    alone = measure(guard.url, "/predict", accepted, 1, CROWD_REQUESTS)
    with ExitStack() as ends:
        for _ in range(CROWD):
            ends.enter_context(closing(socket.create_connection((host, int(port)), 30)))
        beside = measure(guard.url, "/predict", accepted, 1, CROWD_REQUESTS)
    console.print(
        f"one client: p50 {alone['p50']:.2f} ms, p99 {alone['p99']:.2f} ms; beside {CROWD:,} idle "
        f"connections {beside['p50']:.2f} and {beside['p99']:.2f} ms"
    )


def remembered(guard: Guard, clean: Float32Array, console: Console) -> None:
    """The guard's resident memory, its solvers' apart, and alarms about clean clients."""
    table = Table(title=f"clean requests, {PER_CLIENT} of each client, {CONNECTIONS} connections")
    for column in ("requests", "MiB", "flagged", "alarms about clients", "about all traffic"):
        table.add_column(column, justify="right")
    process, done = psutil.Process(guard.process.pid), 0
    alarms = 'certiflow_guard_alarms_total{cause="%s"}'
    for count in MEMORY_AT:
        measure(guard.url, "/predict", clean, CONNECTIONS, count - done)
        done = count
        flagged = guard.client.get("/live").json()["decisions"].get("flagged", 0)
        table.add_row(
            f"{count:,}",
            f"{process.memory_info().rss / 2**20:.1f}",
            f"{flagged / count:.2%}",
            *(f"{guard.metric(alarms % cause):.0f}" for cause in ("client", "flag rate")),
        )
    console.print(table)


def bench(model: str, epsilon: float, console: Console) -> None:
    """All tables."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        shutil.copy("mlflow.db", project)
        settings = {"model": model, "epsilon": epsilon, "budget_ms": BUDGET_MS}
        with guarding(project, settings) as guard:
            accepted, left_open = sorted_inputs(guard)
            with mlflow_serving(project, model) as url:
                servers = (
                    Server("certiflow guard", guard.url, "/predict", 5000, 20_000),
                    Server("mlflow models serve", url, "/invocations", 300, 600),
                )
                compared(servers, accepted, console)
            if len(left_open):
                found = measure(guard.url, "/predict", left_open, 1, ESCALATED)
                console.print(
                    f"{len(left_open)} inputs that go down the ladder, budget {BUDGET_MS} ms: "
                    f"p50 {found['p50']:.1f} ms, p99 {found['p99']:.1f} ms"
                )
            crowded(guard, accepted, console)
        with guarding(project, settings | {"client_header": CLIENT_HEADER}) as guard:
            remembered(guard, clean_inputs(guard), console)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--epsilon", type=float, default=0.1)
    arguments = parser.parse_args()
    bench(arguments.model, arguments.epsilon, Console(highlight=False))
