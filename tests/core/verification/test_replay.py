"""The way from float64 to the deployed model stays inside the box."""

from __future__ import annotations

import numpy as np

from tasks.core.arrays import Float32Array
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.verification.replay import float32_inside, replayed
from tests.networks import ball_around, box


def test_points_become_the_float32_points_of_the_ball_next_to_them() -> None:
    generator = np.random.default_rng(0)
    for epsilon in (0.1, 1e-3, 1e-6, 0.0):
        image = generator.uniform(size=(1, 50)).astype(np.float32)
        ball = ball_around(image, epsilon)
        points = image.astype(np.float64) + generator.normal(scale=2 * epsilon, size=(200, 50))
        moved = float32_inside(ball, points)
        assert moved.dtype == np.float32
        assert ((moved >= ball.lower) & (moved <= ball.upper)).all()
        inside = (points >= ball.lower) & (points <= ball.upper)
        unit = np.spacing(np.abs(points[inside]).astype(np.float32))
        assert (np.abs(moved[inside] - points[inside]) <= unit).all()
        np.testing.assert_array_equal(float32_inside(ball, moved), moved)


def test_where_the_box_holds_no_float32_number_the_nearest_is_fed() -> None:
    """0.1 lies between two float32 numbers."""
    thin = box([0.1, 0.0], [0.1, 1.0])
    moved = float32_inside(thin, np.array([[7.0, 0.25], [0.1, 2.0]]))
    np.testing.assert_array_equal(moved, np.array([[0.1, 0.25], [0.1, 1.0]], dtype=np.float32))


class Inputs:
    """A runtime whose inputs are images of 1 x 2; it notes how it is asked."""

    input_shape = (1, 2)

    def __init__(self) -> None:
        network = ReluNetwork((Affine(np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2)),))
        self.runtime = NumpyRuntime(network)
        self.shapes: list[tuple[int, ...]] = []

    def logits(self, points: Float32Array) -> Float32Array:
        self.shapes.append(points.shape)
        return self.runtime.logits(points)


def test_a_point_is_fed_alone_in_the_input_s_shape() -> None:
    images = Inputs()
    fed, logits = replayed(images, box([0.0, 0.0], [0.5, 0.5]), np.array([0.75, 0.25]))
    assert images.shapes == [(1, 1, 2)]
    np.testing.assert_array_equal(fed, np.array([[0.5, 0.25]], dtype=np.float32))
    np.testing.assert_array_equal(logits, np.array([0.75, 0.25], dtype=np.float32))
