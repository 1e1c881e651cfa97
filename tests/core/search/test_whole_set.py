"""Over a whole set each point is bounded as it is alone, whatever batch and thread it is in."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.bounds import linear
from tasks.core.properties.perturbation import Perturbation
from tasks.core.search import whole_set
from tests.networks import ball_around, pixels, random_network


def test_each_point_is_bounded_as_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_set, "BATCH", 7)
    generator = np.random.default_rng(0)
    network = random_network(generator, (9, 12, 8, 3))
    images = generator.random((60, 3, 3)).astype(np.float32)
    labels = network(images).argmax(axis=1)
    found = whole_set.certified(network, images, labels, pixels(images), 0.05)
    alone = [
        bool(linear.certified(network, ball_around(image[None], 0.05), [label])[0])
        for image, label in zip(images, labels, strict=True)
    ]
    assert found.tolist() == alone
    assert 0 < found.sum() < 60
    assert whole_set.certified(network, images[:0], labels[:0], pixels(images), 0.05).shape == (0,)


def test_a_point_needs_all_of_its_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: the output turns with the category, which is one of the boxes' alone."""
    boxes = {0: False, 1: True}  # point, and whether any of its two boxes is left open

    def bounded(network: object, ball: object, labels: np.ndarray) -> np.ndarray:
        return np.array([not (boxes[label] and row % 2) for row, label in enumerate(labels)])

    def pairs(self: Perturbation, inputs: np.ndarray, epsilon: float) -> tuple[None, np.ndarray]:
        return None, np.repeat(np.arange(len(inputs)), 2)

    monkeypatch.setattr(linear, "certified", bounded)
    monkeypatch.setattr(Perturbation, "boxes", pairs)
    inputs, labels = np.zeros((2, 1), dtype=np.float32), np.array([0, 1])
    network = random_network(np.random.default_rng(0), (1, 2, 2))
    found = whole_set.certified(network, inputs, labels, pixels(inputs), 0.1)
    assert found.tolist() == [True, False]
