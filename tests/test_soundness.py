"""A slice of the soundness laboratory, and the laboratory's own second source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.specification import Property, UnsafeRegion
from tests.networks import box, hand_computed, random_network
from tests.oracle import least_excess as least_excess_by_programming
from tests.soundness import failures
from tests.soundness.cases import Case
from tests.soundness.engines import own
from tests.soundness.exact import Plane, Reached, excess_at, hidden_values, least_excess
from tests.soundness.families import NETWORKS, READERS, Job
from tests.soundness.findings import bound, counterexample, proof
from tests.soundness.float32 import deployed
from tests.soundness.laboratory import Progress, run_rounds

ENGINES = {
    "alpha_crown", "bounds", "crown", "deployed", "inputs", "interval", "ladder", "marabou",
    "nested", "network", "phases", "radius", "verify", *READERS,
}  # fmt: skip


def test_first_rounds_find_nothing_wrong(tmp_path: Path) -> None:
    progress = Progress.of(tmp_path)
    run_rounds(progress, more=lambda: progress.rounds < 2)
    assert progress.wrong == []
    assert progress.counts.keys() == NETWORKS.keys() | READERS.keys()
    assert set().union(*progress.counts.values()) >= ENGINES
    assert Progress.of(tmp_path) == progress


@pytest.mark.parametrize("free", [1, 2])
def test_cells_give_the_minimum_of_mixed_integer_programming(free: int) -> None:
    rng = np.random.default_rng(free)
    for _ in range(10):
        network = random_network(rng, (free, 5, 4, 3))
        ball = box([-1.0] * free, [1.0] * free)
        region = UnsafeRegion(ball, rng.normal(size=(2, 3)), rng.normal(size=2))
        reached = least_excess(network, region, Plane.across(ball, np.eye(free)))
        assert float(reached.excess) == pytest.approx(
            least_excess_by_programming(network, region), abs=1e-5
        )
        assert all(-1 <= value <= 1 for value in reached.point)


def test_cells_of_the_network_on_paper() -> None:
    """y0 - y1 = relu(x1 + x2) + 1 - relu(x1 - x2) is least, -1, at (1, -1)."""
    network, ball = hand_computed(), box([-1.0, -1.0], [1.0, 1.0])
    region = UnsafeRegion(ball, np.array([[1.0, -1.0]]), np.zeros(1))
    reached = least_excess(network, region, Plane.across(ball, np.eye(2)))
    assert reached.excess == -1
    assert reached.point == (1, -1)
    assert excess_at(network, region, [0.5, 0.25]) == Fraction(3, 2)
    assert hidden_values(network, reached.point) == [[0, 2]]


def case(gap: float) -> Case:
    """The network on paper, whose least excess is `gap`."""
    region = UnsafeRegion(
        box([-1.0, -1.0], [1.0, 1.0]), np.array([[1.0, -1.0]]), np.array([1.0 + gap])
    )
    reached = Reached(Fraction(gap), (Fraction(1), Fraction(-1)))
    return Case(hand_computed(), Property((region,)), (reached,))


def test_false_answers_are_wrong() -> None:
    assert proof(case(0.0), "ladder", 1e-9).status == "wrong"
    assert proof(case(1e-9), "ladder", 2e-9).status == "wrong"
    assert proof(case(1e-9), "ladder", 1e-9).status == "right"
    assert bound("crown", np.inf, Fraction(1)).status == "wrong"
    assert bound("crown", np.nan, Fraction(1)).status == "undecided"
    claimed = [
        counterexample(case(gap), "ladder", np.array([1.0, x2]), case(gap).property.unsafe).status
        for gap, x2 in ((0.0, -1.0), (0.5, -1.0), (0.0, -1.5))
    ]
    assert claimed == ["right", "wrong", "wrong"]


def test_float32_loses_what_cancels() -> None:
    """y = relu(x + 2^30) - 2^30 is x, at least 1/2, and 0 in float32."""
    network = ReluNetwork(
        (Affine(np.eye(1), np.array([2.0**30])), Affine(np.eye(1), np.array([-(2.0**30)])))
    )
    region = UnsafeRegion(box([0.5], [1.0]), np.ones((1, 1)), np.array([-0.25]))
    reached = Reached(Fraction(1, 4), (Fraction(1, 2),))
    cancelling = Case(network, Property((region,)), (reached,))
    rng = np.random.default_rng(0)
    assert deployed(cancelling, True, rng).status == "wrong"
    assert deployed(cancelling, None, rng).status == "undecided"
    assert deployed(case(0.1), True, rng).status == "right"


def test_a_wrong_answer_can_be_repeated(tmp_path: Path) -> None:
    from tasks.core.models import loading
    from tasks.core.properties.vnnlib import read_property

    job = Job("plain", 3, "ladder")
    place = failures.write(tmp_path, job, proof(job.case(), "ladder", np.inf))
    network = loading.load(place / "m.onnx").network
    read = read_property(place / "p.vnnlib", network.num_inputs, network.num_outputs)
    known = job.case()
    for region, asked in zip(read.unsafe, known.property.unsafe, strict=True):
        np.testing.assert_array_equal(region.rows, asked.rows)
        np.testing.assert_array_equal(region.offsets, asked.offsets)
        np.testing.assert_array_equal(region.box.lower, asked.box.lower)
    again = Case(network, read, known.reached)
    assert {finding.status for finding in own(again, 0)} <= {"right", "undecided"}
    assert "--engine ladder" in (place / "README").read_text()
