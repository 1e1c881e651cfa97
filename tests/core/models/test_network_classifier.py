"""Attacks with the gradients of the float64 network find what those of Keras find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks.core.attacks import gradient
from tasks.core.data.datasets import Dataset
from tasks.core.models import loading
from tasks.core.models.network_classifier import NetworkClassifier
from tasks.core.models.runtimes import Classifier
from tasks.core.properties.specification import margins

EPSILON = 0.1


@pytest.fixture(scope="module")
def networks_own(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "digits.keras"
    classifier.model.save(path)
    return path


@pytest.fixture
def attackable(networks_own: Path) -> NetworkClassifier:
    loaded = loading.load(networks_own)
    return NetworkClassifier(loaded.runtime, loaded.network, batch_size=100)


def test_gradients_of_the_loss_agree(
    classifier: Classifier, attackable: NetworkClassifier, digits: Dataset
) -> None:
    inputs, labels = digits.test_inputs[:50], digits.test_labels[:50]
    expected = np.asarray(classifier.loss_gradient(inputs, labels))
    found = attackable.loss_gradient(inputs, labels)
    assert found.shape == inputs.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_gradient_is_that_of_finite_differences(
    attackable: NetworkClassifier, digits: Dataset
) -> None:
    network, inputs = attackable.network, digits.test_inputs[:8].astype(np.float64)
    labels, step = digits.test_labels[:8], 1e-6

    def loss(points: np.ndarray) -> np.ndarray:
        logits = network(points)
        most = logits.max(axis=1)
        total = most + np.log(np.exp(logits - most[:, None]).sum(axis=1))
        return total - logits[np.arange(len(labels)), labels]

    direction = np.random.default_rng(0).normal(size=inputs.shape)
    change = (loss(inputs + step * direction) - loss(inputs - step * direction)) / (2 * step)
    found = attackable.loss_gradient(digits.test_inputs[:8], labels)
    slope = (found * direction).reshape(8, -1).sum(axis=1)
    np.testing.assert_allclose(slope, change, rtol=1e-3, atol=1e-4 * np.abs(change).max())


def test_descent_ends_where_that_of_keras_ends(
    classifier: Classifier, attackable: NetworkClassifier, digits: Dataset
) -> None:
    points, labels = digits.test_inputs[:60], digits.test_labels[:60]
    lower, upper = np.clip(points - EPSILON, 0, 1), np.clip(points + EPSILON, 0, 1)
    step = np.full(points.shape[1:], EPSILON / 4, dtype=np.float32)
    ends = [
        np.asarray(each.margin_descent(points, labels, lower, upper, step, 10))
        for each in (classifier, attackable)
    ]
    assert ((ends[1] >= lower) & (ends[1] <= upper)).all()
    before, *after = (
        margins(classifier.logits(each), labels).min(axis=1) for each in (points, *ends)
    )
    np.testing.assert_allclose(after[1], after[0], rtol=1e-3, atol=1e-3)
    assert (after[1] < before).all()


def test_fgsm_and_pgd_break_the_same_points(
    classifier: Classifier, attackable: NetworkClassifier, digits: Dataset
) -> None:
    inputs, labels, moves = digits.test_inputs, digits.test_labels, digits.perturbation
    broken = []
    for each in (classifier, attackable):
        predictions, _ = gradient.fgsm(each, inputs, labels, moves, (0, EPSILON))
        attacked = gradient.pgd(
            each, inputs, labels, moves, EPSILON, num_steps=10, num_restarts=1, seed=0
        )
        broken.append((predictions != labels, attacked.broken))
    for keras_found, own_found in zip(*broken, strict=True):
        assert own_found.any()
        differing = (keras_found != own_found).mean()
        assert differing <= 0.01  # where a gradient is 0 but for rounding


def test_batches_cover_all_rows_once(attackable: NetworkClassifier) -> None:
    rows = np.concatenate([np.arange(250)[part] for part in attackable.batches(250)])
    np.testing.assert_array_equal(rows, np.arange(250))
    assert attackable.batched(7).batch_size == 7
