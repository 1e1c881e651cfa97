"""Small networks and boxes that tests share."""

from __future__ import annotations

import itertools

import numpy as np

from tasks.core.network import Affine, ReluNetwork
from tasks.core.specification import FloatArray, LinfBall


def hand_computed() -> ReluNetwork:
    """Two inputs, two hidden units, two logits; every number below fits on paper.

    h1 = relu(x1 + x2), h2 = relu(x1 - x2); y0 = h1 + 1, y1 = h2.
    """
    return ReluNetwork(
        (
            Affine(np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2)),
            Affine(np.eye(2), np.array([1.0, 0.0])),
        )
    )


def random_network(generator: np.random.Generator, widths: tuple[int, ...]) -> ReluNetwork:
    """Gaussian weights scaled by fan-in, small biases."""
    return ReluNetwork(
        tuple(
            Affine(
                generator.normal(size=(after, before)) / np.sqrt(before),
                generator.normal(size=after) * 0.2,
            )
            for before, after in itertools.pairwise(widths)
        )
    )


def random_case(
    generator: np.random.Generator,
) -> tuple[ReluNetwork, FloatArray, int, float]:
    """A network of one to three hidden layers, an input, its label and a radius."""
    depth = generator.integers(1, 4)
    hidden = tuple(int(width) for width in generator.integers(3, 9, size=depth))
    network = random_network(generator, (4, *hidden, 3))
    center = generator.uniform(0.2, 0.8, size=4)
    label = int(network(center[None]).argmax())
    return network, center, label, float(generator.uniform(0.02, 0.35))


def box(lower: list[float], upper: list[float]) -> LinfBall:
    """One box from two lists."""
    return LinfBall(np.array([lower], dtype=float), np.array([upper], dtype=float))


def sampled_points(
    generator: np.random.Generator, ball: LinfBall, count: int, row: int = 0
) -> FloatArray:
    """Uniform points of one box, half of them at its corners."""
    lower, upper = ball.lower[row], ball.upper[row]
    weights = generator.random((count, len(lower)))
    weights[: count // 2] = weights[: count // 2].round()
    return lower + weights * (upper - lower)
