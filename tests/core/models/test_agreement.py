"""A model whose runtime computes another function than was read is refused, with the point."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from tasks.core.errors import CertiflowError
from tasks.core.models.agreement import box_points, check_agreement, seeded_points
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.tensors.lowering import BEYOND_FLOAT32
from tests.networks import box, random_network

Float32Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Bent:
    """A network's float32 form, but for inputs above 6: there it gives something else."""

    network: ReluNetwork
    replaced: float

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.network.num_inputs,)

    def logits(self, points: Float32Array) -> Float32Array:
        outputs = NumpyRuntime(self.network).logits(points).copy()
        outputs[(points > 6).any(axis=1)] = self.replaced
        return outputs


def network() -> ReluNetwork:
    return random_network(np.random.default_rng(0), (3, 8, 8, 2))


def test_a_network_agrees_with_its_float32_form() -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        some = random_network(generator, (5, 30, 30, 4))
        runtime = NumpyRuntime(some)
        check_agreement(some, runtime, seeded_points(5))
        check_agreement(some, runtime, generator.normal(size=(20, 5)) * 10.0**seed)


@pytest.mark.parametrize("replaced", [0.0, np.nan, np.inf])
def test_a_difference_at_a_corner_of_the_box_is_named(replaced: float) -> None:
    runtime = Bent(network(), replaced)
    check_agreement(network(), runtime, box_points(box([-1.0] * 3, [1.0] * 3)))
    with pytest.raises(CertiflowError, match=r"at the input \(.*7.*\) its runtime gives") as error:
        check_agreement(network(), runtime, box_points(box([-1.0] * 3, [7.0, 1.0, 1.0])))
    assert "\n" not in str(error.value)


def test_seeded_points_go_beyond_the_unit_box() -> None:
    with pytest.raises(CertiflowError, match="float32 explains"):
        check_agreement(network(), Bent(network(), 0.0), seeded_points(3))


def test_a_little_more_than_rounding_is_a_difference() -> None:
    almost = ReluNetwork(tuple(Affine(a.weight * (1 + 1e-4), a.bias) for a in network().layers))
    with pytest.raises(CertiflowError, match="float32 explains"):
        check_agreement(network(), NumpyRuntime(almost), seeded_points(3))


def test_a_runtime_that_fails_is_one_line() -> None:
    class Failing(Bent):
        def logits(self, points: Float32Array) -> Float32Array:
            raise RuntimeError("no kernel\nat all")

    with pytest.raises(CertiflowError, match=r"its runtime cannot run the model: no kernel$"):
        check_agreement(network(), Failing(network(), 0.0), seeded_points(3))


def test_points_of_boxes_hold_their_ends() -> None:
    boxes = Box(np.zeros((6, 2)), np.ones((6, 2)))
    points = box_points(boxes)
    for expected in ([0.5, 0.5], [0.0, 0.0], [1.0, 1.0]):
        assert (points == expected).all(axis=1).any()
    assert ((points == 0) | (points == 1) | (points == 0.5)).all()


def test_constants_that_may_differ_a_little_may_not_differ_much() -> None:
    """No float32 error is known of such a network, which is asked all the same."""
    unsure = tuple(replace(each, count=BEYOND_FLOAT32) for each in network().roundings)
    some = replace(network(), roundings=unsure)
    for change in (1e-5, -1e-5):
        almost = ReluNetwork(tuple(Affine(a.weight * (1 + change), a.bias) for a in some.layers))
        check_agreement(some, NumpyRuntime(almost), seeded_points(3))
    other = ReluNetwork(tuple(Affine(a.weight * 1.1, a.bias) for a in some.layers))
    with pytest.raises(CertiflowError, match="float32 explains"):
        check_agreement(some, NumpyRuntime(other), seeded_points(3))
