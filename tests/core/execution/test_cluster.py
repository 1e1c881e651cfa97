"""A real Dask cluster gives the local verdicts, loses none, and says what is wrong with it."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.evidence import metrics
from tasks.core.execution import cluster as subject
from tasks.core.execution.asking import Resources
from tasks.core.execution.cluster import run_on_cluster
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome
from tasks.core.models.runtimes import Classifier
from tasks.core.readers.keras_network import relu_network
from tasks.core.search.first_stages import AttackStrength
from tasks.core.training import loop
from tasks.core.training.training_settings import TrainingSettings
from tasks.core.verdicts import DecidedBy, Engine, VerificationResult
from tasks.core.verification.balls import Sample
from tasks.core.verification.cross_checks import to_be_witnessed, witnessed
from tasks.core.verification.local_robustness import verify
from tests.core.execution.test_worker_pool import MEGABYTE, make_solver
from tests.core.verification.test_local_robustness import take, witness_question
from tests.dask_cluster import Cluster, end_tree, eventually
from tests.solvers import assassin

RESOURCES = Resources(num_workers=2, memory_limit_bytes=2**31)
TIMEOUT_SECONDS = 30.0
ATTACK = AttackStrength(num_steps=10, num_restarts=1, seed=0)
WITHOUT_CERTIFLOW = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "tasks":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Cluster]:
    """Without a worker."""
    running = Cluster(tmp_path)
    try:
        yield running
    finally:
        running.end()


@pytest.fixture(scope="module")
def deep(digits: Dataset) -> Classifier:
    """Deep enough for points that only branch and bound decides."""
    settings = TrainingSettings(hidden=(64, 32), epochs=10, learning_rate=0.003)
    trained = loop.train(digits, settings, seed=0)
    return Classifier(trained.model)


def outcomes(
    address: str, jobs: Sequence[str | int], *, offset: int = 100, timeout_seconds: float = 60.0
) -> Generator[Outcome[str | int, int], None, None]:
    return run_on_cluster(
        address,
        make_solver,
        (offset,),
        jobs,
        timeout_seconds=lambda job: timeout_seconds,
        memory_limit_bytes=500 * MEGABYTE,
    )


def verified(
    classifier: Classifier,
    sample: Sample,
    address: str | None,
    engine: Engine = "ladder",
    on_result: Callable[[VerificationResult], None] = lambda result: None,
) -> pd.DataFrame:
    """The table without the columns of seconds."""
    return without_seconds(results_of(classifier, sample, address, engine, on_result))


def without_seconds(results: Sequence[VerificationResult]) -> pd.DataFrame:
    table = metrics.verification_table(results)
    return table[[name for name in table.columns if "seconds" not in name]]


def results_of(
    classifier: Classifier,
    sample: Sample,
    address: str | None,
    engine: Engine = "ladder",
    on_result: Callable[[VerificationResult], None] = lambda result: None,
) -> list[VerificationResult]:
    return verify(
        classifier,
        relu_network(classifier.model),
        sample,
        [0.1, 0.12],
        engine=engine,
        attack=ATTACK,
        timeout_seconds=TIMEOUT_SECONDS,
        resources=replace(RESOURCES, cluster=address),
        on_result=on_result,
    )


@pytest.mark.parametrize(
    ("engine", "model", "points", "stage"),
    [
        ("ladder", "deep", 40, DecidedBy.BRANCH_AND_BOUND),
        ("marabou", "classifier", 6, DecidedBy.MARABOU),
    ],
)
def test_cluster_gives_the_local_table(
    engine: Engine,
    model: str,
    points: int,
    stage: DecidedBy,
    cluster: Cluster,
    digits: Dataset,
    request: pytest.FixtureRequest,
) -> None:
    classifier, sample = request.getfixturevalue(model), take(digits, points)
    here, there = (
        verified(classifier, sample, address, engine) for address in (None, cluster.address)
    )
    pd.testing.assert_frame_equal(here, there)
    assert (there["decided_by"] == stage).sum() > 3


def test_witnesses_are_the_same_balls_on_a_cluster(
    cluster: Cluster, classifier: Classifier, digits: Dataset
) -> None:
    sample = take(digits, 10)
    results = results_of(classifier, sample, None)
    question = witness_question(classifier, relu_network(classifier.model), digits.perturbation)
    asked = to_be_witnessed(results, 0.3, 0)
    here, there = (
        without_seconds(
            witnessed(question, sample, results, asked, replace(RESOURCES, cluster=address))
        )
        for address in (None, cluster.address)
    )
    pd.testing.assert_frame_equal(here, there)
    assert (there["witness"] == "confirmed").any()


def test_killed_worker_loses_no_verdict(
    cluster: Cluster, deep: Classifier, digits: Dataset
) -> None:
    sample, killed = take(digits, 40), []

    def kill_once(result: VerificationResult) -> None:
        if result.decided_by is DecidedBy.BRANCH_AND_BOUND and not killed:
            killed.append(cluster.worker_pid())
            os.kill(killed[0], signal.SIGKILL)

    there = verified(deep, sample, cluster.address, on_result=kill_once)
    assert killed
    assert cluster.worker_pid() != killed[0]
    pd.testing.assert_frame_equal(verified(deep, sample, None), there)


def test_another_worker_takes_over_from_one_that_is_gone(lonely: Cluster) -> None:
    first = lonely.start_worker()
    with closing(outcomes(lonely.address, ["nap"] * 6)) as results:
        found = [next(results)]
        end_tree(first)
        lonely.start_worker()
        found += results
    assert [outcome.answer for outcome in found] == [1] * 6


def test_limits_hold_and_bad_jobs_cost_only_themselves(cluster: Cluster) -> None:
    jobs: list[str | int] = ["hang", 1, "eat", "crash", "raise", 2]
    found = {o.job: o for o in outcomes(cluster.address, jobs, timeout_seconds=3)}
    assert list(found) == jobs
    assert (found[1].answer, found[2].answer) == (101, 102)
    assert found["hang"].ending is Ending.TIMEOUT
    assert found["hang"].reason == "time limit of 3 s"
    assert found["eat"].ending is Ending.MEMORY
    assert "SIGSEGV" in found["crash"].reason
    assert found["raise"].reason == "ValueError: no such luck"


def assassins(cluster: Cluster, jobs: Sequence[str]) -> list[Outcome[str, int]]:
    return list(
        run_on_cluster(
            cluster.address,
            assassin,
            (),
            jobs,
            timeout_seconds=lambda job: 30.0,
            memory_limit_bytes=500 * MEGABYTE,
        )
    )


def test_job_whose_workers_die_is_a_failure_and_not_the_run_s(cluster: Cluster) -> None:
    """Dask also counts the deaths against a job that waited on the worker, here perhaps `c`."""
    found = {outcome.job: outcome for outcome in assassins(cluster, ["a", "b", "c", "kill"])}
    assert set(found) == {"a", "b", "c", "kill"}
    assert found["kill"].ending is Ending.FAILED
    assert found["kill"].reason == "2 Dask workers died that had this job"
    assert (found["a"].ending, found["b"].ending) == (Ending.DONE, Ending.DONE)
    assert [outcome.ending for outcome in assassins(cluster, ["c"])] == [Ending.DONE]


def test_process_serves_its_solver_until_another_comes(cluster: Cluster) -> None:
    (first,), (second,) = (assassins(cluster, ["a"]) for _ in range(2))
    assert first.answer == second.answer
    assert first.answer is not None
    list(outcomes(cluster.address, [1]))
    assert not psutil.pid_exists(first.answer)


def test_processes_die_with_the_dask_worker(cluster: Cluster) -> None:
    (found,) = assassins(cluster, ["a"])
    assert found.answer is not None
    solver = psutil.Process(found.answer)
    os.kill(cluster.worker_pid(), signal.SIGKILL)
    psutil.wait_procs([solver], timeout=10)
    assert not solver.is_running()


def test_ending_the_iteration_withdraws_what_waits(cluster: Cluster) -> None:
    results = outcomes(cluster.address, ["nap"] * 50)
    next(results)
    results.close()
    eventually(lambda: cluster.num_tasks() == 0)
    assert [outcome.answer for outcome in outcomes(cluster.address, [1])] == [101]


def test_nothing_to_solve_needs_no_cluster() -> None:
    assert list(outcomes("tcp://127.0.0.1:1", [])) == []


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def complaint(address: str, capfd: pytest.CaptureFixture[str]) -> str:
    """The error of a run, which is all that the user sees."""
    with pytest.raises(CertiflowError) as caught:
        list(outcomes(address, [1, 2]))
    assert capfd.readouterr() == ("", "")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_scheduler(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "CONNECT_SECONDS", 1.0)
    address = f"tcp://127.0.0.1:{closed_port()}"
    said = complaint(address, capfd)
    assert said.startswith(f"no Dask scheduler answers at {address} within 1 s: start it")


def test_a_client_that_cannot_connect_is_gone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask's own clean-up of one, at a later collection of garbage, can hang."""
    from distributed import Client

    monkeypatch.setattr(subject, "CONNECT_SECONDS", 0.5)
    gc.disable()
    try:
        with pytest.raises(CertiflowError, match="no Dask scheduler answers"):
            list(outcomes(f"tcp://127.0.0.1:{closed_port()}", [1]))
        assert [each for each in gc.get_objects() if isinstance(each, Client)] == []
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "nonsense",
        "tcp://127.0.0.1",
        "tcp://:8786",
        "tcp://host:port",
        "tcp://host:99999",
        "http://127.0.0.1:80",
    ],
)
def test_malformed_address(address: str, capfd: pytest.CaptureFixture[str]) -> None:
    said = complaint(address, capfd)
    assert repr(address) in said
    assert "like tcp://host:8786" in said


def test_a_password_in_an_address_is_not_said(capfd: pytest.CaptureFixture[str]) -> None:
    said = complaint("tcp://alice:hush@127.0.0.1:8786", capfd)
    assert "is not the address of a Dask scheduler" in said
    assert "hush" not in said


def test_address_that_dask_cannot_use(capfd: pytest.CaptureFixture[str]) -> None:
    said = complaint("tls://127.0.0.1:8786", capfd)
    assert said.startswith("cannot connect to tls://127.0.0.1:8786 (")
    assert "TLS" in said


def test_cluster_without_workers(
    lonely: Cluster, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "FIRST_WORKER_SECONDS", 1.0)
    assert "has no worker after 1 s: start one" in complaint(lonely.address, capfd)


@pytest.mark.parametrize(
    ("gone", "said"),
    [("workers", "has had no worker for 2 s"), ("scheduler", "gave up|the Dask scheduler is gone")],
)
def test_cluster_that_vanishes_in_the_middle(
    gone: str,
    said: str,
    lonely: Cluster,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subject, "NO_WORKER_SECONDS", 2.0)
    worker = lonely.start_worker()
    results = outcomes(lonely.address, ["nap"] * 20)
    assert next(results).answer == 1
    end_tree(worker if gone == "workers" else lonely.scheduler)
    with pytest.raises(CertiflowError, match=said) as caught:
        list(results)
    assert subject.GOES_ON in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_another_engine_is_refused_before_work_is_sent(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "ENGINE_VERSION", "0")
    said = complaint(cluster.address, capfd)
    assert "engine" in said
    assert "this command engine 0: install the same certiflow there" in said


def test_another_engine_is_refused_where_it_would_solve(
    cluster: Cluster, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a worker that came after the others were asked."""
    monkeypatch.setattr(subject, "_check_versions", lambda client: None)
    monkeypatch.setattr(subject, "ENGINE_VERSION", "0")
    assert "this command 0: install the same certiflow" in complaint(cluster.address, capfd)


def test_worker_without_certiflow(
    lonely: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_CERTIFLOW)
    lonely.start_worker(tmp_path)
    assert "has no certiflow" in complaint(lonely.address, capfd)
