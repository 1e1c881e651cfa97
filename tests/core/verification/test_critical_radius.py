"""Brackets of critical radii: exact where the radius is known, honest where time is short."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.core.attacks import falsification
from tasks.core.errors import CertiflowError, ContradictionError
from tasks.core.evidence.radii import radius_summary, radius_table
from tasks.core.evidence.radius_figures import radius_curves
from tasks.core.execution import asking
from tasks.core.execution.asking import Resources
from tasks.core.execution.verdict_store import VerdictStore
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome
from tasks.core.models.runtimes import NumpyRuntime, Runtime
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.verification import critical_radius
from tasks.core.verification.balls import Sample
from tasks.core.verification.critical_radius import Bracket, critical_radii
from tasks.core.verification.radius_search import (
    RadiusFindings,
    RadiusGoal,
    RadiusJob,
    RadiusSolver,
)
from tests.networks import ball_around, pixels, random_network
from tests.oracle import least_margin

GOAL = RadiusGoal(max_epsilon=0.5, tolerance=0.002, timeout_seconds=20)
RESOURCES = Resources(num_workers=2, memory_limit_bytes=2**31)


def bracketed(
    network: ReluNetwork,
    images: NDArray[np.floating],
    labels: list[int] | None = None,
    goal: RadiusGoal = GOAL,
    store: VerdictStore | None = None,
    runtime: Runtime | None = None,
    *,
    fresh: bool = False,
) -> list[Bracket]:
    """Brackets of points; by default their labels are the network's own."""
    points = images.astype(np.float32)
    found = network(points).argmax(axis=1) if labels is None else np.array(labels)
    return critical_radii(
        runtime or NumpyRuntime(network),
        network,
        Sample(np.arange(len(points)) + 10, points, found, pixels(points)),
        goal,
        RESOURCES,
        store=store,
        fresh=fresh,
    )


def linear() -> ReluNetwork:
    """Margin of class 0 over class 1: 2 x1 - x2 - 0.3."""
    return ReluNetwork((Affine(np.array([[1.0, 0.0], [-1.0, 1.0]]), np.array([-0.3, 0.0])),))


@pytest.mark.parametrize("engine", ["ladder", "bounds", "marabou"])
def test_linear_models_have_the_radius_of_the_closed_form(engine: str) -> None:
    images = np.array([[0.5, 0.25], [0.4, 0.3], [0.1, 0.9]])
    goal = RadiusGoal(0.5, 0.001, 20, engine)  # type: ignore[arg-type]
    for image, bracket in zip(images, bracketed(linear(), images, None, goal), strict=True):
        radius = abs(2 * image[0] - image[1] - 0.3) / 3  # no pixel reaches 0 or 1 before
        if bracket.label == 1:  # x1 + r, x2 - r
            assert image[0] + radius < 1
        assert bracket.proved < radius <= bracket.falsified + 1e-7
        assert bracket.complete
        assert bracket.falsified - bracket.proved <= 0.001


def test_the_pixel_range_is_part_of_the_ball() -> None:
    """From (1, 0.2) the margin 1.5 falls by 2 r + r: x2 is never stopped, and r = 0.5 breaks it."""
    (bracket,) = bracketed(linear(), np.array([[1.0, 0.2]]))
    assert bracket.proved < 0.5 <= bracket.falsified + 1e-7
    (bracket,) = bracketed(linear(), np.array([[1.0, 1.0]]))  # x2 stays at 1: 0.7 / 2
    assert bracket.proved < 0.35 <= bracket.falsified + 1e-7


def test_brackets_hold_the_exact_least_margin() -> None:
    generator = np.random.default_rng(0)
    for _ in range(6):
        network = random_network(generator, (4, 8, 6, 3))
        images = generator.uniform(0.2, 0.8, size=(3, 4)).astype(np.float32)
        for image, bracket in zip(images, bracketed(network, images), strict=True):
            assert bracket.complete, bracket.reason
            assert bracket.proved < bracket.falsified
            ball = ball_around(image[None], bracket.proved)
            assert least_margin(network, ball, bracket.label) > -1e-6
            if bracket.counterexample is None:
                assert bracket.proved == GOAL.max_epsilon
                continue
            assert bracket.falsified - bracket.proved <= GOAL.tolerance
            assert bracket.counterexample.dtype == np.float32
            point = bracket.counterexample[None]
            assert ball_around(image[None], bracket.falsified).contains(point)[0]
            assert NumpyRuntime(network).logits(point)[0].argmax() != bracket.label


def test_misclassified_points_have_radius_zero() -> None:
    image = np.array([[0.5, 0.25]], dtype=np.float32)
    (bracket,) = bracketed(linear(), image, labels=[1])
    assert (bracket.proved, bracket.falsified, bracket.probes) == (0.0, 0.0, 0)
    assert bracket.complete
    np.testing.assert_array_equal(bracket.counterexample, image[0])


def test_an_attack_that_takes_its_time_leaves_some_for_proofs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(*args: object, deadline: float, **kwargs: object) -> None:
        time.sleep(max(deadline - time.monotonic(), 0.0))

    monkeypatch.setattr(falsification, "search", slow)
    job = RadiusJob(0, np.array([0.5, 0.25], np.float32), label=0)
    found = RadiusSolver(linear(), pixels(job.center[None]), RadiusGoal(0.5, 0.001, 1.0))(job)
    assert found.proved == pytest.approx((2 * 0.5 - 0.25 - 0.3) / 3, abs=0.002)


def test_no_time_no_claim() -> None:
    network = random_network(np.random.default_rng(1), (4, 8, 3))
    (bracket,) = bracketed(network, np.full((1, 4), 0.5), goal=RadiusGoal(0.5, 0.01, 0.0))
    assert (bracket.proved, bracket.falsified) == (0.0, np.inf)
    assert not bracket.complete
    assert "time limit" in bracket.reason


class Liar:
    """Says 0 at the images that it is shown first, and 1 everywhere else."""

    input_shape = (2,)

    def __init__(self, image: NDArray[np.float32]) -> None:
        self.image = image

    def logits(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        same = (points == self.image).all(axis=1)
        return np.stack([same, ~same], axis=1).astype(np.float32)


def test_a_break_within_the_proof_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.array([[0.5, 0.25]], dtype=np.float32)
    nearer = RadiusFindings(proved=0.1, points=np.array([[0.45, 0.25]]))

    def lying(
        make: object, arguments: object, jobs: list[RadiusJob], **options: object
    ) -> Iterator[Outcome[RadiusJob, RadiusFindings]]:
        for job in jobs:
            yield Outcome(job, Ending.DONE, nearer, "", 0.0)

    monkeypatch.setattr(asking, "run_jobs", lying)
    with pytest.raises(ContradictionError, match=r"sample 10.*proved robust up to epsilon 0.1"):
        bracketed(linear(), image, runtime=Liar(image))


def test_a_model_that_keeps_the_label_is_not_falsified() -> None:
    """What float64 mislabels and the deployed model does not, is no counterexample."""
    constant = NumpyRuntime(ReluNetwork((Affine(np.zeros((2, 2)), np.array([1.0, 0.0])),)))
    (bracket,) = bracketed(linear(), np.array([[0.5, 0.25]]), runtime=constant)
    assert bracket.falsified == np.inf
    assert bracket.counterexample is None
    assert bracket.reason == "near_boundary"


def test_a_second_call_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network(np.random.default_rng(2), (4, 8, 3))
    images = np.random.default_rng(3).uniform(0.2, 0.8, size=(4, 4))
    with VerdictStore(tmp_path / "verdicts.db") as store:
        first = bracketed(network, images, store=store)
        jobs: list[int] = []

        def counted(*arguments: object, **options: object) -> Iterator[object]:
            jobs.append(len(arguments[2]))  # type: ignore[arg-type]
            yield from ()

        monkeypatch.setattr(asking, "run_jobs", counted)
        second = bracketed(network, images, store=store)
        with pytest.raises(KeyError):  # the jobs that were handed out came to nothing
            bracketed(network, images, store=store, fresh=True)
    assert jobs == [0, 4]
    for before, after in zip(first, second, strict=True):
        assert (before.proved, before.falsified) == (after.proved, after.falsified)
        assert (before.probes, before.seconds) == (after.probes, after.seconds)
        np.testing.assert_array_equal(before.counterexample, after.counterexample)


def test_a_stored_counterexample_that_breaks_no_more_is_searched_again(tmp_path: Path) -> None:
    image = np.array([[0.5, 0.25]], dtype=np.float32)
    with VerdictStore(tmp_path / "verdicts.db") as store:
        (first,) = bracketed(linear(), image, store=store)
        sample = Sample(np.array([10]), image, np.array([0]), pixels(image))
        question = critical_radius._RadiusQuestion(NumpyRuntime(linear()), linear(), sample, GOAL)
        key = question.key(RadiusJob(0, image[0], 0))
        known = store.get(key)
        assert known is not None
        store.put(key, replace(known, points=np.array([[0.5, 0.25]])))
        (second,) = bracketed(linear(), image, store=store)
    assert second.counterexample is not None
    assert second.falsified == first.falsified


@pytest.mark.parametrize(
    ("max_epsilon", "tolerance", "words"),
    [(0.0, 0.1, "greatest epsilon is 0"), (0.5, 0.6, "tolerance is 0.6"), (0.5, 0, "1e-05 to 0.5")],
)
def test_impossible_goals_are_refused(max_epsilon: float, tolerance: float, words: str) -> None:
    with pytest.raises(CertiflowError, match=words):
        RadiusGoal(max_epsilon, tolerance, 1.0)


def test_table_summary_and_figure(tmp_path: Path) -> None:
    brackets = [
        Bracket(0, 0, 0.0, 0.0, None, 0.1, complete=True),
        Bracket(1, 0, 0.1, 0.11, None, 0.2, complete=True, stage_seconds={"probe_0_0.1": 0.2}),
        Bracket(2, 1, 0.2, np.inf, None, 9.0, complete=False, reason="time limit"),
    ]
    table = radius_table(brackets)
    assert list(table["probes"]) == [0, 1, 0]
    summary = radius_summary(table)
    assert summary.mean == pytest.approx(0.1)
    assert summary.class_means == {0: pytest.approx(0.05), 1: pytest.approx(0.2)}
    assert summary.share_complete == pytest.approx(2 / 3)
    assert summary.proved_quantiles[0.5] == 0.1
    assert summary.falsified_quantiles[0.9] == np.inf
    radius_curves(table, 0.3, "three points", "pixels", tmp_path / "radius.png")
    assert (tmp_path / "radius.png").stat().st_size > 1000
    written = {name: table[name].tolist() for name in ("sample_index", "label", "complete")}
    assert written == {
        "sample_index": [0, 1, 2],
        "label": [0, 0, 1],
        "complete": [True, True, False],
    }
    assert table["proved"].tolist() == [0.0, 0.1, 0.2]
    assert table["falsified"].tolist() == [0.0, 0.11, np.inf]
    assert table["reason"].tolist() == ["", "", "time limit"]
