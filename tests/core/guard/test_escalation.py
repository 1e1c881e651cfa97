"""What intervals leave open: proved, broken or left open in processes beside the service."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, suppress

import numpy as np
import psutil
import pytest

from tasks.core.guard.escalation import Escalated, Escalation, Question, QueueFullError
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.perturbation import Perturbation
from tasks.core.verdicts import Verdict
from tests.core.guard.test_certificate import cancelling
from tests.networks import random_network
from tests.oracle import least_margin

SECONDS = 60.0  # for an answer


@pytest.fixture(scope="module")
def network() -> ReluNetwork:
    return random_network(np.random.default_rng(3), (4, 8, 8, 3))


@pytest.fixture(scope="module")
def escalation(network: ReluNetwork) -> Iterator[Escalation]:
    with closing(Escalation(network, Perturbation.of_images((4,)), 1, 8)) as escalation:
        yield escalation


def question(network: ReluNetwork, seed: int, epsilon: float = 0.1) -> Question:
    center = np.random.default_rng(seed).uniform(0.2, 0.8, 4).astype(np.float32)
    label = int(network(center[None]).argmax())
    return Question(center, label, epsilon, SECONDS)


def test_answers_are_the_truth(escalation: Escalation, network: ReluNetwork) -> None:
    perturbation, verdicts = Perturbation.of_images((4,)), set()
    for seed in range(12):
        asked = question(network, seed, epsilon=0.1 if seed % 2 else 0.5)
        found = escalation.submit(asked).result(SECONDS)
        box = perturbation.box(asked.center[None], asked.epsilon)
        truth = least_margin(network, box, asked.label)
        assert found.verdict is (Verdict.ROBUST if truth > 0 else Verdict.FALSIFIED)
        if found.counterexample is not None:
            assert (box.lower[0] <= found.counterexample).all()
            assert (found.counterexample <= box.upper[0]).all()
            assert network(found.counterexample[None]).argmax() != asked.label
        verdicts.add(found.verdict)
    assert verdicts == {Verdict.ROBUST, Verdict.FALSIFIED}


@pytest.mark.parametrize(("power", "verdict"), [(0, Verdict.ROBUST), (22, Verdict.UNKNOWN)])
def test_what_float32_loses_is_not_proved(power: int, verdict: Verdict) -> None:
    """(x + 2^22) - 2^22 against 1/2 at x = 0.51: in float32 a multiple of 1/2."""
    network = cancelling(power)
    with closing(Escalation(network, Perturbation.of_images((1,)), 1, 8)) as escalation:
        asked = Question(np.array([0.51], dtype=np.float32), 0, 0.001, SECONDS)
        assert escalation.submit(asked).result(SECONDS).verdict is verdict


def test_a_full_queue_says_so_at_once(network: ReluNetwork) -> None:
    with closing(Escalation(network, Perturbation.of_images((4,)), 1, 1)) as escalation:
        waiting: list[Future[Escalated]] = []
        with suppress(QueueFullError):
            for seed in range(5):  # the process has not even started
                waiting.append(escalation.submit(question(network, seed)))
        assert 1 <= len(waiting) <= 2
        assert all(each.result(SECONDS).verdict is not Verdict.ERROR for each in waiting)


def test_a_killed_process_is_replaced(network: ReluNetwork) -> None:
    others = solvers()
    with closing(Escalation(network, Perturbation.of_images((4,)), 1, 8)) as escalation:
        escalation.wait_until_started()
        (own,) = solvers() - others
        os.kill(own, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(own)], timeout=10)
        again = escalation.submit(question(network, 0)).result(SECONDS)
        assert again.verdict in {Verdict.ROBUST, Verdict.FALSIFIED}
        assert own not in solvers()
    assert solvers() <= others


def test_what_fails_is_told_and_ends_nothing(
    escalation: Escalation, network: ReluNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Question(np.zeros(7, dtype=np.float32), 0, 0.1, SECONDS)  # not the network's inputs
    assert escalation.submit(wrong).result(SECONDS).verdict is Verdict.UNKNOWN

    def failing(*_: object) -> None:
        raise ValueError("no such luck")

    with monkeypatch.context() as patch:
        patch.setattr("tasks.core.guard.escalation.answered", failing)
        with pytest.raises(ValueError, match="no such luck"):
            escalation.submit(question(network, 0)).result(SECONDS)
    assert escalation.submit(question(network, 0)).result(SECONDS).verdict is not Verdict.UNKNOWN


def test_more_processes_than_places_in_the_queue_start(network: ReluNetwork) -> None:
    with closing(Escalation(network, Perturbation.of_images((4,)), 3, 1)) as escalation:
        escalation.wait_until_started()
        assert escalation.submit(question(network, 0)).result(SECONDS)


def test_who_gives_up_is_not_answered(escalation: Escalation, network: ReluNetwork) -> None:
    first, second = (escalation.submit(question(network, seed)) for seed in (1, 2))
    given_up = second.cancel()
    assert first.result(SECONDS).verdict is not Verdict.ERROR
    assert escalation.submit(question(network, 3)).result(SECONDS)
    assert second.cancelled() == given_up


def solvers() -> set[int]:
    """This process's children that solve, other tests' too."""
    children = psutil.Process().children(recursive=True)
    return {child.pid for child in children if "spawn_main" in " ".join(child.cmdline())}
