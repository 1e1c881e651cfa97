"""The compiled kernel and the search over parts of the box."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest

from tasks.core.bounds.linear import linear_lower_bounds, preactivation_bounds
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search import inputs
from tasks.core.search.inputs import InputSearch
from tests.networks import (
    KINDS,
    Kind,
    ball_around,
    box,
    random_network,
    random_network_of,
    sampled_points,
)
from tests.oracle import least_excess


@pytest.mark.parametrize("kind", KINDS)
def test_kernel_is_sound_over_the_root_and_its_halves(kind: Kind) -> None:
    """Never above a sample; at the root never tighter than all the bounds NumPy knows."""
    for case in range(30):
        generator = np.random.default_rng([KINDS.index(kind), case])
        network = random_network_of(generator, kind, "few")
        center = generator.normal(size=(1, network.num_inputs)) * 0.5
        ball = Box(center - 0.4, center + 0.4)
        region = UnsafeRegion(ball, generator.normal(size=(1, network.num_outputs)), np.zeros(1))
        hidden = preactivation_bounds(network, ball, "crown")
        search = InputSearch(network, ball, [region], hidden)
        boxes, phases = ball, search.padded.phases[None].copy()
        for level in range(4):
            alive = np.ones((len(boxes), 1), dtype=bool)
            _, found = search.padded.bounds(boxes, phases, alive, 0.0, clips=False)
            still_open, closed, *_ = found
            lower, split = np.minimum(still_open, closed), int(case % 2)
            for row in range(len(boxes)):
                points = sampled_points(generator, boxes, 200, row)
                assert lower[row] <= region.excess(network(points)).min()
            if level == 0:
                depth = len(network.layers) - 1
                known = linear_lower_bounds(network, depth, region.rows, hidden, ball)[0, 0]
                assert lower[0] <= known + 1e-9
            middle = (boxes.lower + boxes.upper)[:, split] / 2
            below, above = boxes.upper.copy(), boxes.lower.copy()
            below[:, split], above[:, split] = middle, middle
            boxes = Box(np.concatenate([boxes.lower, above]), np.concatenate([below, boxes.upper]))
            phases = np.concatenate([phases, phases])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_clipped_or_closed_is_beyond_the_goal(kind: Kind) -> None:
    """At sampled points, for regions of one to three rows; and clipping takes a part of most."""
    clipped = closed = 0
    for case in range(60):
        generator = np.random.default_rng([KINDS.index(kind), case])
        network = random_network_of(generator, kind, "few")
        ball = ball_around(generator.normal(size=(1, network.num_inputs)) * 0.5, 0.3)
        outputs = network(sampled_points(generator, ball, 500))
        goal, regions = float(generator.choice([0.0, 1e-3, 0.1])), []
        for count in generator.integers(1, 4, size=int(generator.integers(1, 3))):
            rows = generator.normal(size=(count, network.num_outputs))
            excess = (outputs @ rows.T).max(axis=1)
            level = np.quantile(excess, generator.choice([0, 0.01, 0.3]))
            level -= generator.choice([0, 1], p=[0.8, 0.2]) * np.ptp(excess)
            regions.append(UnsafeRegion(ball, rows, np.full(count, -level)))
        hidden = preactivation_bounds(network, ball, "crown")
        search = InputSearch(network, ball, regions, hidden, goal)
        alive = np.ones((1, len(regions)), dtype=bool)
        kept, found = search.padded.bounds(
            ball, search.padded.phases[None].copy(), alive, goal, clips=True
        )
        points = sampled_points(generator, ball, 2000)
        excess = np.stack([region.excess(network(points)) for region in regions])
        inside = ((points >= kept.lower) & (points <= kept.upper)).all(axis=1)
        is_open = inside & alive[0][:, None]
        assert (excess[~is_open] > goal).all()
        assert found.closed[0] <= excess[~is_open].min(initial=np.inf)
        assert found.lower[0] <= excess[is_open].min(initial=np.inf)
        clipped += bool(alive.any() and not inside.all())
        closed += not alive.all()
    assert clipped >= 20
    assert closed >= 5


@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "boxes"])
@pytest.mark.parametrize("seed", range(12))
def test_conjunctions_agree_with_the_exact_oracle(
    seed: int, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two and three rows, offset so that the least excess is a little above 0, or below."""
    if not kernel:
        monkeypatch.setattr(inputs, "MOST_PADDED", 0)
    generator = np.random.default_rng(seed)
    network = random_network(generator, (3, 8, 8, 3))
    ball = ball_around(generator.normal(size=(1, 3)) * 0.3, 0.5)
    rows = generator.normal(size=(2 + seed % 2, 3))
    least = least_excess(network, UnsafeRegion(ball, rows, np.zeros(len(rows))))
    for excess in (0.02, -0.02):
        region = UnsafeRegion(ball, rows, np.full(len(rows), excess - least))
        hidden = preactivation_bounds(network, ball, "crown")
        found = InputSearch(network, ball, [region], hidden, 1e-4).run(time.monotonic() + 20)
        assert found.proved == (excess > 0)
        assert (found.candidate is None) == (excess > 0)
        assert found.lower <= excess + 1e-6


def test_rows_that_weights_alone_exclude_need_no_split() -> None:
    """x + y <= 0.5 and x + y >= 0.7: each is reached, and neither clips a box of many inputs."""
    network = ReluNetwork((Affine(np.ones((1, 9)), np.zeros(1)),))
    region = UnsafeRegion(
        box([0.0] * 9, [1.0] * 9), np.array([[1.0], [-1.0]]), np.array([-0.5, 0.7])
    )
    found = InputSearch(network, region.box, [region], []).run(time.monotonic() + 20)
    assert found.proved
    assert found.subproblems == 1


def test_a_row_that_is_met_everywhere_does_not_say_what_to_halve() -> None:
    """y < 0 in the whole box, and exactly known; the other row's bound depends on x alone.

    `|x| + 0.1 <= 0` needs one halving at 0, by which both phases are known.
    """
    hat = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    linear = (np.array([False, False, True]),)
    out = np.array([[-1.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    network = ReluNetwork((Affine(hat, np.zeros(3)), Affine(out, np.zeros(2))), linear)
    region = UnsafeRegion(box([-1.0, -2.0], [1.0, -1.0]), np.eye(2), np.array([1.1, 0.0]))
    found = InputSearch(
        network, region.box, [region], preactivation_bounds(network, region.box, "crown")
    ).run(time.monotonic() + 20)
    assert found.proved
    assert found.subproblems <= 3


def test_whole_numbers_stay_whole_where_boxes_are_clipped() -> None:
    """Of 0 to 9 and 0 to 9 with x + y in [0.4, 0.6] there are none, with [2.6, 3.4] there are."""
    network = ReluNetwork((Affine(np.ones((1, 2)), np.zeros(1)),))
    features = [Feature(name=name, kind="integer", upper=9) for name in "xy"]
    domain = Domain.of_table(features, [])
    for low, high, is_reached in ((0.4, 0.6, False), (2.6, 3.4, True)):
        region = UnsafeRegion(
            box([0.0, 0.0], [9.0, 9.0]), np.array([[1.0], [-1.0]]), np.array([-high, low])
        )
        search = InputSearch(network, region.box, [region], [], domain=domain)
        found = search.run(time.monotonic() + 20)
        assert found.proved == (not is_reached)
        if is_reached:
            assert found.candidate is not None
            assert found.candidate.sum() == 3
            assert (found.candidate == np.round(found.candidate)).all()


def test_boxes_too_thin_to_split_end_the_search() -> None:
    """A box of zero width around a NaN proves nothing and does not loop for ever."""
    network = ReluNetwork((Affine(np.full((1, 1), 1e308), np.zeros(1)),))
    region = UnsafeRegion(box([10.0], [10.0]), np.full((1, 1), 1.0), np.zeros(1))
    with np.errstate(all="ignore"):
        found = InputSearch(network, region.box, [region], []).run(time.monotonic() + 5)
    assert not found.proved
    assert "too thin to split" in found.reason


@pytest.mark.parametrize("units", [400, 1500])
def test_constants_of_all_layers_in_one_sum_are_charged_for_it(units: int) -> None:
    """Each unit adds 0.6 of the last place of the last bias, to which one running sum rounds it."""
    tiny = 0.6 * 2.0**-52
    network = ReluNetwork(
        (
            Affine(np.full((units, 1), tiny / 4), np.full(units, tiny)),
            Affine(np.ones((1, units)), np.zeros(1)),
            Affine(np.ones((1, 1)), np.ones(1)),
        )
    )
    unit_box = box([0.0], [0.5])
    greatest = 1 + units * Fraction(tiny) * Fraction(9, 8)  # tiny / 4 is exact
    least = 1 + units * Fraction(tiny)
    threshold = float(greatest) + 60 * 2.0**-52
    assert Fraction(threshold) > greatest  # so that all of the box is in the region
    region = UnsafeRegion(unit_box, np.ones((1, 1)), np.array([-threshold]))
    hidden = preactivation_bounds(network, unit_box, "crown")
    search = InputSearch(network, unit_box, [region], hidden)
    found = search.run(time.monotonic() + 5)
    assert not found.proved
    assert Fraction(float(found.lower)) <= least - Fraction(threshold)
