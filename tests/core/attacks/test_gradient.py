"""Attacks stay inside the ball, repeat, and find the optimum where it is known."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.attacks.gradient import Attacked, fgsm, fgsm_points, pgd
from tasks.core.data.datasets import Dataset
from tasks.core.models.runtimes import Classifier
from tasks.core.properties.specification import margins
from tests.networks import ball_around, pixels


def run(
    attack: str, classifier: Classifier, data: Dataset, epsilon: float, seed: int = 0
) -> Attacked:
    images, labels = data.test_inputs[:100], data.test_labels[:100]
    if attack == "fgsm":
        return fgsm_points(classifier, images, labels, pixels(images), epsilon)
    return pgd(
        classifier, images, labels, pixels(images), epsilon, num_steps=10, num_restarts=2, seed=seed
    )


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
@pytest.mark.parametrize("epsilon", [0.0, 1e-7, 0.03, 0.1, 0.7, 1.0])
def test_points_lie_in_ball_and_pixel_range(
    attack: str, epsilon: float, classifier: Classifier, digits: Dataset
) -> None:
    attacked = run(attack, classifier, digits, epsilon)
    # compared in float64, where x + epsilon rounded to float32 would lie outside
    assert ball_around(digits.test_inputs[:100], epsilon).contains(attacked.points).all()
    labels = digits.test_labels[:100]
    np.testing.assert_array_equal(
        attacked.broken, classifier.predictions(attacked.points) != labels
    )


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_seeded_runs_repeat(attack: str, classifier: Classifier, digits: Dataset) -> None:
    first, second = (run(attack, classifier, digits, 0.1) for _ in range(2))
    np.testing.assert_array_equal(first.points, second.points)


def test_grid_is_fgsm_at_each_epsilon(classifier: Classifier, digits: Dataset) -> None:
    images, labels = digits.test_inputs[:100], digits.test_labels[:100]
    epsilons = [0.0, 0.05, 0.2]
    predictions, vanished = fgsm(classifier, images, labels, pixels(images), epsilons)
    for row, epsilon in zip(predictions, epsilons, strict=True):
        points = fgsm_points(classifier, images, labels, pixels(images), epsilon).points
        np.testing.assert_array_equal(row, classifier.predictions(points))
    np.testing.assert_array_equal(predictions[0], classifier.predictions(images))
    assert not vanished.any()


def test_vanished_gradients_are_seen(digits: Dataset) -> None:
    """A network whose hidden units are all dead has no gradient: FGSM's failure says nothing."""
    import keras

    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    weights = model.get_weights()
    model.set_weights([weights[0], np.full(4, -1e3, dtype=np.float32), *weights[2:]])
    _, vanished = fgsm(
        Classifier(model),
        digits.test_inputs[:9],
        digits.test_labels[:9],
        digits.perturbation,
        [0.1],
    )
    assert vanished.all()


@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_exact_optimum_on_a_linear_model(attack: str, linear: Classifier) -> None:
    """Least margin: margin(x) - epsilon * L1 norm of the weights' difference, in the interior."""
    image = np.full((1, 2, 2), 0.5, dtype=np.float32)
    weight, bias = linear.model.get_weights()
    difference = (weight[:, 0] - weight[:, 1]).astype(float)
    clean = difference @ np.full(4, 0.5) + float(bias[0] - bias[1])
    label = int(linear.predictions(image)[0])
    sign = 1 if label == 0 else -1
    expected = sign * clean - 0.1 * np.abs(difference).sum()
    labels = np.array([label])
    if attack == "fgsm":
        point = fgsm_points(linear, image, labels, pixels(image), 0.1).points
    else:
        point = pgd(
            linear, image, labels, pixels(image), 0.1, num_steps=20, num_restarts=1, seed=0
        ).points
    np.testing.assert_allclose(margins(linear.logits(point), labels)[0, 0], expected, atol=1e-5)


def test_pgd_breaks_all_that_fgsm_breaks(classifier: Classifier, digits: Dataset) -> None:
    weak, strong = (run(attack, classifier, digits, 0.1) for attack in ("fgsm", "pgd"))
    assert strong.broken[weak.broken].all()
    assert strong.broken.sum() > weak.broken.sum()


def test_no_images_no_attack(classifier: Classifier, digits: Dataset) -> None:
    attacked = pgd(
        classifier,
        digits.test_inputs[:0],
        digits.test_labels[:0],
        digits.perturbation,
        0.1,
        num_steps=3,
        num_restarts=1,
        seed=0,
    )
    assert attacked.broken.shape == (0,)
