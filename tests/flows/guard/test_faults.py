"""What goes wrong around a guard: answers go on, none is lost, and it says what does not work."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from tasks.core.data.datasets import Dataset
from tests import guarded
from tests.command import clean_environment, error_of, interpreted
from tests.flows.guard.test_tables import risk
from tests.guarded import MODEL, Guard, until
from tests.loans import loans, write_loans

OTHER = "certiflow-loans"
SETTINGS = {"model": f"models:/{MODEL}@champion", "epsilon": 0.02, "budget_ms": 10_000}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return guarded.digits(tmp_path_factory.mktemp("data"))


@pytest.fixture
def project(tmp_path: Path, data: Dataset) -> Path:
    guarded.register(tmp_path, guarded.class_means(data), data)
    return tmp_path


@pytest.fixture
def guard(project: Path) -> Iterator[Guard]:
    with guarded.guarding(project, SETTINGS | {"request_seconds": 0.5}) as guard:
        yield guard


def open_inputs(guard: Guard, data: Dataset) -> np.ndarray:
    """Inputs that intervals leave open, so that a solver's process is asked."""
    answers = guard.predict(data.test_inputs)["answers"]
    return data.test_inputs[[each["decided_by"] != "interval" for each in answers]]


def test_faults_do_not_stop_answers(guard: Guard, data: Dataset, project: Path) -> None:
    some = open_inputs(guard, data)
    assert len(some) > 5
    decided = [each["decision"] for each in guard.predict(some)["answers"]]

    # A solver's process is killed.
    (solver,) = solvers(guard)
    os.kill(solver.pid, signal.SIGKILL)
    assert [each["decision"] for each in guard.predict(some)["answers"]] == decided
    assert [each.pid for each in solvers(guard)] != [solver.pid]

    # The models' store is damaged, and comes back.
    content = (project / "mlflow.db").read_bytes()
    (project / "mlflow.db").write_bytes(b"nothing" * 10_000)
    until(lambda: guard.readiness()["troubles"], "nobody says that the store is damaged")
    assert guard.readiness()["ready"]
    assert [each["decision"] for each in guard.predict(some)["answers"]] == decided
    (project / "mlflow.db").write_bytes(content)
    until(lambda: not guard.readiness()["troubles"], "nobody says that the store is back")

    # The disk is full: no file of the process may grow.
    size = (project / "guard.db").stat().st_size
    limit = resource.RLIMIT_FSIZE
    resource.prlimit(guard.process.pid, limit, (size, resource.RLIM_INFINITY))
    failed = 'certiflow_guard_not_stored_total{why="database"}'
    assert [each["decision"] for each in guard.predict(some)["answers"]] == decided
    until(lambda: guard.metric(failed) > 0, "nobody says that the disk is full")
    assert "not stored" in guard.readiness()["troubles"][0]
    resource.prlimit(guard.process.pid, limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    guard.predict(some)
    until(lambda: not guard.readiness()["troubles"], "nobody says that there is room again")

    # Clients that send half a request, and many that send nothing.
    with closing(connected(guard)) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in slow.recv(1000).partition(b"\r\n")[0]
    idle = [connected(guard) for _ in range(500)]
    assert [each["decision"] for each in guard.predict(some)["answers"]] == decided
    for connection in idle:
        with closing(connection):
            assert connection.recv(1) == b"", "it may stay for ever"
    ping = b"GET /ping HTTP/1.1\r\nHost: x\r\n"
    for sent, answers in ((ping, 0), (ping + b"\r\n" + ping, 1)):  # the last head goes no further
        with closing(connected(guard)) as slow:
            slow.sendall(sent)
            assert everything(slow).count(b" 200 ") == answers
    with closing(connected(guard)) as large:
        large.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000)
        assert b" 400 " in everything(large)

    # It is told to end: it does, at once and alone.
    children = psutil.Process(guard.process.pid).children(recursive=True)
    guard.process.send_signal(signal.SIGTERM)
    assert guard.process.wait(30) == 0
    until(lambda: not any(map(is_alive, children)), "a process is left behind")


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # ended, and not yet waited for
    except psutil.NoSuchProcess:
        return False


def everything(connection: socket.socket) -> bytes:
    """What is said until the other end closes."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def connected(guard: Guard) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(guard.url.rpartition(":")[2])), 30)


def solvers(guard: Guard) -> list[psutil.Process]:
    children = psutil.Process(guard.process.pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def test_a_new_champion_takes_over_between_two_requests(
    guard: Guard, data: Dataset, project: Path
) -> None:
    """Version 2 gives the opposite labels: no request fails, and none is answered by both."""
    inputs = data.test_inputs[:5]
    networks = {1: guarded.class_means(data), 2: guarded.class_means(data, order=-1)}
    labels = {number: network(inputs).argmax(axis=1) for number, network in networks.items()}
    found, stopped = list[tuple[int, list[int]]](), threading.Event()

    def ask() -> None:
        while not stopped.is_set():
            answer = guard.predict(inputs)
            found.append((answer["version"], [each["label"] for each in answer["answers"]]))

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    try:
        assert guarded.register(project, networks[2], data) == 2
        guarded.move_champion(project, 2)
        until(lambda: found and found[-1][0] == 2, "the new champion does not serve")
        time.sleep(0.5)
    finally:
        stopped.set()
        for thread in asking:
            thread.join()
    assert {version for version, _ in found} == {1, 2}
    assert all(given == labels[version].tolist() for version, given in found)
    assert guard.readiness()["model"] == f"{MODEL}/2"
    until(lambda: len(solvers(guard)) == 1, "the old version's process does not end")

    # A version that takes other inputs does not take over.
    write_loans(project)
    guarded.move_champion(project, guarded.register(project, risk(), loans(project)))
    until(lambda: guard.readiness()["troubles"], "nobody says that it does not fit")
    assert "takes other inputs" in guard.readiness()["troubles"][0]
    assert guard.predict(inputs)["version"] == 2
    assert len(solvers(guard)) == 1


def test_a_shadow_is_compared_and_a_canary_serves_its_share(project: Path, data: Dataset) -> None:
    network = guarded.class_means(data, order=-1)
    guarded.register(project, network, data)
    other = {"shadow": f"models:/{MODEL}/2", "canary": f"models:/{MODEL}/2", "canary_share": 0.5}
    settings = SETTINGS | other | {"client_header": "x-client", "action": "block"}
    with guarded.guarding(project, settings) as guard:
        point = data.test_inputs[:1]
        served = {
            client: {guard.predict(point, **{"x-client": client})["version"] for _ in range(3)}
            for client in map(str, range(40))
        }
        assert all(len(versions) == 1 for versions in served.values())  # a client, a version
        canaries = sum(versions == {2} for versions in served.values())
        assert 8 <= canaries <= 32
        compared = 'certiflow_guard_compared_total{role="shadow",same="label"'
        until(lambda: guard.metric(compared) == 3 * (40 - canaries), "nothing is compared")

        flagged = open_inputs(guard, data)[:1]
        for _ in range(200):
            response = guard.post(
                "/predict", {"inputs": flagged.tolist()}, **{"x-client": "attacker"}
            )
            if response.status_code != 200:
                break
        assert response.status_code == 403
        assert guard.predict(flagged, **{"x-client": "another"})


def test_what_is_open_has_the_label_of_the_version_to_fall_back_to(
    project: Path, data: Dataset
) -> None:
    """And no proof: that was of this version's own label."""
    opposite = guarded.class_means(data, order=-1)
    guarded.register(project, opposite, data)
    other = {"policy": "fall_back", "fall_back": f"models:/{MODEL}/2"}
    with guarded.guarding(project, SETTINGS | other) as guard:
        answers = guard.predict(data.test_inputs)["answers"]
    fell_back = np.array([each["decision"] == "fell_back" for each in answers])
    assert fell_back.sum() > 5
    assert (~fell_back).sum() > 5
    labels = np.array([each["label"] for each in answers])
    own = guarded.class_means(data)(data.test_inputs).argmax(axis=1)
    other_label = opposite(data.test_inputs).argmax(axis=1)
    assert (labels == np.where(fell_back, other_label, own)).all()
    radii = np.array([each["certified_radius"] for each in answers])
    assert (radii[fell_back] == 0).all()
    assert (radii[~fell_back] >= 0.02).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("--model", "models:/certiflow-digits/7"), "has no version 7"),
        (("--model", "models:/certiflow-digits@staging"), "has no staging yet"),
        (("--model", "model.onnx"), "expected a registered version"),
        (("--set", "polcy=flag"), "did you mean 'policy'"),
        (("--set", "policy=fall_back"), "go together"),
        (("--epsilon", "0"), "epsilon is 0"),
        (("--set", "store=/nowhere/guard.db"), "the database cannot be used"),
        (("--set", "host=192.0.2.1"), "choose another --port"),
        (("--set", f"shadow=models:/{OTHER}@champion"), "takes other inputs"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_line(
    settings: tuple[str, ...], said: str, project: Path
) -> None:
    if OTHER in settings[1]:
        write_loans(project)
        guarded.register(project, risk(), loans(project), OTHER)
    conf = project / "guard.yaml"
    conf.write_text(f"model: models:/{MODEL}@champion\nepsilon: 0.02\nport: 0\n")
    environment = clean_environment(project / "prefect")
    result = interpreted(project, environment, "guard", "--conf", str(conf), *settings)
    assert said in error_of(result)
