"""Every defence's loss: against closed forms on a linear model, and in the order of strength."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.core.data.datasets import Dataset
from tasks.core.models.runtimes import Classifier
from tasks.core.training.architectures import build
from tasks.core.training.defences import initialise_for_intervals, loss_of, warmup_penalty
from tasks.core.training.training_bounds import Balls, BoxTensors
from tasks.core.training.training_settings import Defence
from tests.networks import pixels

DEFENDED: tuple[Defence, ...] = ("fgsm", "pgd", "trades", "ibp", "crown_ibp", "sabr")


def loss(
    defence: Defence,
    model: keras.Sequential,
    images: Any,
    labels: Any,
    epsilon: float,
    *,
    weight: float = 1.0,
    ramp: float = 1.0,
    ratio: float = 0.4,
    class_weights: Any = None,
) -> float:
    weights = np.ones(10, np.float32) if class_weights is None else class_weights
    compiled = tf.function(loss_of(defence, model, pixels(images), 20, ratio, weights))
    numbers = (np.float32(number) for number in (epsilon, weight, ramp))
    return float(compiled(images, labels, *numbers, np.array([3, 4], np.int32)))


@pytest.fixture(scope="module")
def points(linear: Classifier) -> tuple[Any, Any]:
    """Inputs well inside [0, 1], and the labels that the linear model gives them."""
    images = np.random.default_rng(0).uniform(0.3, 0.7, (5, 2, 2)).astype(np.float32)
    return images, linear.predictions(images)


def worst_cross_entropy(linear: Classifier, points: tuple[Any, Any], epsilon: float) -> float:
    """log(1 + exp(-margin)) at the least margin: margin(x) - epsilon * L1 norm of its weights."""
    images, labels = points
    weight, bias = (array.astype(np.float64) for array in linear.model.get_weights())
    signs = np.where(labels == 0, 1, -1)
    margins = signs * (images.reshape(-1, 4) @ (weight[:, 0] - weight[:, 1]) + bias[0] - bias[1])
    least = margins - epsilon * np.abs(weight[:, 0] - weight[:, 1]).sum()
    return float(np.log1p(np.exp(-least)).mean())


@pytest.mark.parametrize("defence", ["pgd", "ibp", "crown_ibp", "sabr"])
def test_exact_worst_case_on_a_linear_model(
    defence: Defence, linear: Classifier, points: tuple[Any, Any]
) -> None:
    found = loss(defence, linear.model, *points, 0.1)
    assert found == pytest.approx(worst_cross_entropy(linear, points, 0.1), rel=1e-4)


def test_noise_comes_on_top_of_the_single_step(linear: Classifier, points: tuple[Any, Any]) -> None:
    """The loss is convex along the step: noise of mean zero raises it, at most as three steps."""
    many = tuple(np.repeat(array, 400, axis=0) for array in points)
    found = loss("fgsm", linear.model, *many, 0.1)
    assert worst_cross_entropy(linear, points, 0.1) < found
    assert found < worst_cross_entropy(linear, points, 0.3)


@pytest.mark.parametrize("defence", ["none", *DEFENDED])
def test_without_a_radius_all_are_cross_entropy(
    defence: Defence, linear: Classifier, points: tuple[Any, Any]
) -> None:
    clean = worst_cross_entropy(linear, points, 0.0)
    assert loss(defence, linear.model, *points, 0.0) == pytest.approx(clean, rel=1e-4)


@pytest.mark.parametrize("defence", DEFENDED)
def test_weight_mixes_clean_and_robust(
    defence: Defence, linear: Classifier, points: tuple[Any, Any]
) -> None:
    none, half, full = (
        loss(defence, linear.model, *points, 0.1, weight=weight) for weight in (0.0, 0.5, 1.0)
    )
    assert none == pytest.approx(worst_cross_entropy(linear, points, 0.0), rel=1e-4)
    assert half == pytest.approx((none + full) / 2, rel=1e-4)
    assert full > none


@pytest.mark.parametrize("defence", ["none", *DEFENDED])
def test_every_input_counts_with_the_weight_of_its_class(
    defence: Defence, linear: Classifier, points: tuple[Any, Any]
) -> None:
    """Inputs of one class alone give the weight times their loss; of two classes, the sum."""
    images, labels = points
    assert set(labels) == {0, 1}

    def weighted(*weights: float) -> float:
        chosen = np.array(weights, np.float32)
        return loss(defence, linear.model, images, labels, 0.05, class_weights=chosen)

    first, second = weighted(1, 0), weighted(0, 1)
    assert min(first, second) > 0
    assert weighted(1, 1) == pytest.approx(first + second, rel=1e-4)
    assert weighted(0.5, 3) == pytest.approx(0.5 * first + 3 * second, rel=1e-4)


def test_order_of_strength(classifier: Classifier, digits: Dataset) -> None:
    """clean <= PGD <= the loss at any sound bound; CROWN is tighter than intervals."""
    batch = digits.train_inputs[:200], digits.train_labels[:200]
    found = {name: loss(name, classifier.model, *batch, 0.05) for name in ("none", "pgd", "ibp")}
    # at the ramp's start crown_ibp is the linear bound alone, plus the warm-up penalty
    penalty = loss("ibp", classifier.model, *batch, 0.05, ramp=0.0) - found["ibp"]
    crown = loss("crown_ibp", classifier.model, *batch, 0.05, ramp=0.0) - penalty
    assert found["none"] < found["pgd"] < crown < found["ibp"]
    assert loss("crown_ibp", classifier.model, *batch, 0.05) == pytest.approx(found["ibp"])


def test_small_boxes_lie_between_attack_and_interval(
    classifier: Classifier, digits: Dataset
) -> None:
    """The greater the box, the greater the loss; as great as the ball it is `ibp` itself."""
    batch = digits.train_inputs[:200], digits.train_labels[:200]
    losses = [
        loss("sabr", classifier.model, *batch, 0.05, ratio=ratio) for ratio in (0.01, 0.3, 0.7, 1)
    ]
    assert losses == sorted(losses)
    attacked = loss("pgd", classifier.model, *batch, 0.05)
    assert losses[0] == pytest.approx(attacked, rel=0.05)
    assert losses[-1] == pytest.approx(loss("ibp", classifier.model, *batch, 0.05), rel=1e-5)


def test_trades_is_the_divergence_at_its_worst(classifier: Classifier, digits: Dataset) -> None:
    """Its robust term is at least the divergence at any other point of the balls."""
    images, labels = digits.train_inputs[:50], digits.train_labels[:50]
    model = classifier.model
    clean = loss("trades", model, images, labels, 0.05, weight=0.0)
    drift = loss("trades", model, images, labels, 0.05, weight=1.0) - clean
    generator = np.random.default_rng(0)
    before = tf.nn.log_softmax(model(images)).numpy().astype(np.float64)
    for _ in range(20):
        moved = np.clip(images + generator.choice([-0.05, 0.05], images.shape), 0, 1)
        after = tf.nn.log_softmax(model(moved.astype(np.float32))).numpy()
        assert (np.exp(before) * (before - after)).sum(axis=1).mean() < drift


def test_balls_stay_within_the_pixel_range() -> None:
    images = np.array([[0.0, 0.4, 1.0]], np.float32)
    ball = Balls.of(pixels(images)).around(images, 0.3)
    np.testing.assert_allclose(ball.lower, [[0.0, 0.1, 0.7]], atol=1e-6)
    np.testing.assert_allclose(ball.upper, [[0.3, 0.7, 1.0]], atol=1e-6)


def test_warmup_penalty_by_hand() -> None:
    """Centers 3, -1, -1, -1 and radius 2 over an input radius of 0.5, tau = 1/2.

    Tightness 0.5/2 lacks 1/4 of tau: penalty 1/2. Active 3 against inactive 3: balanced, 0. The
    mean is 0, the spreads 9 against 3: ratio 1/3, penalty (1/2 - 1/3) / (1/2) = 1/3.
    """
    center = np.array([[3.0, -1.0, -1.0, -1.0]], np.float32)
    ball = BoxTensors(np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32))
    penalty = float(warmup_penalty([BoxTensors(center - 2, center + 2)], ball))
    assert penalty == pytest.approx(1 / 2 + 1 / 3)


def test_initial_weights_have_the_papers_deviation() -> None:
    model = build("cnn_small", (28, 28), 10, (100,), seed=0)
    initialise_for_intervals(model, seed=1)
    kernels = [layer.kernel.numpy() for layer in model.layers if layer.weights]
    for kernel, fan_in in zip(kernels, (16, 256, 1568, 100), strict=True):
        assert kernel.std() == pytest.approx(np.sqrt(2 * np.pi) / fan_in, rel=0.1)
