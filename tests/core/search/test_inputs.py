"""The compiled kernel and the search over parts of the box."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tasks.core.bounds.linear import linear_lower_bounds, preactivation_bounds
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.search.inputs import InputSearch
from tests.networks import KINDS, Kind, box, random_network_of, sampled_points


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
            still_open, closed, *_ = search.padded.bounds(boxes, phases, alive, 0.0)
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


def test_boxes_too_thin_to_split_end_the_search() -> None:
    """A box of zero width around a NaN proves nothing and does not loop for ever."""
    network = ReluNetwork((Affine(np.full((1, 1), 1e308), np.zeros(1)),))
    region = UnsafeRegion(box([10.0], [10.0]), np.full((1, 1), 1.0), np.zeros(1))
    with np.errstate(all="ignore"):
        found = InputSearch(network, region.box, [region], []).run(time.monotonic() + 5)
    assert not found.proved
    assert "too thin to split" in found.reason
