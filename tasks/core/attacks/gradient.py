"""Attacks on the deployed float32 Keras model; every point they return lies inside its ball."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import Images, IntArray
from tasks.core.models.runtimes import Classifier

if TYPE_CHECKING:
    pass


PGD_STEP = 2.5  # times epsilon, over all steps together (Madry et al. 2018)


@dataclass(frozen=True, eq=False)
class Attacked:
    """Points, the images' shape, and whether the model mislabels each."""

    points: Images
    broken: NDArray[np.bool_]


def fgsm(
    classifier: Classifier,
    images: Images,
    labels: IntArray,
    epsilons: Sequence[float],
    *,
    on_batch: Callable[[int], None] = lambda count: None,
) -> tuple[IntArray, NDArray[np.bool_]]:
    """Labels after the fast gradient sign method (Goodfellow et al. 2015, eq. 1) at each epsilon.

    x' = clip(x + epsilon * sign(gradient)); the gradient does not depend on epsilon, so it is
    computed once per batch.

    Returns:
        Predictions, shape (epsilons, n), and whether a point's gradient vanished altogether, shape
        (n,): where it did the attack does nothing, and its failure says nothing.
    """
    predictions = np.empty((len(epsilons), len(images)), dtype=np.int64)
    vanished = np.empty(len(images), dtype=bool)
    for rows in classifier.batches(len(images)):
        direction = gradient_sign(classifier, images[rows], labels[rows])
        vanished[rows] = ~direction.reshape(len(direction), -1).any(axis=1)
        for index, epsilon in enumerate(epsilons):
            points = _step(images[rows], direction, epsilon)
            predictions[index, rows] = classifier.predictions(points)
        on_batch(len(direction))
    return predictions, vanished


def fgsm_points(
    classifier: Classifier, images: Images, labels: IntArray, epsilon: float
) -> Attacked:
    """The FGSM points themselves at one epsilon."""
    direction = gradient_sign(classifier, images, labels)
    points = _step(images, direction, epsilon)
    return Attacked(points, classifier.predictions(points) != labels)


def gradient_sign(classifier: Classifier, images: Images, labels: IntArray) -> Images:
    """The sign of the cross-entropy's gradient by the images; zero where it vanishes."""
    return np.sign(np.asarray(classifier.loss_gradient(images, labels)))


def _step(images: Images, direction: Images, epsilon: float) -> Images:
    points = images + _inward_radius(epsilon) * direction
    return np.clip(points, 0, 1, out=points)


def _inward_radius(epsilon: float) -> np.float32:
    """A radius for float32 arithmetic on [0, 1] that never leaves the ball of radius epsilon.

    Rounding the radius and the sum err by at most 2^-26 + 2^-25 < 2^-24.
    """
    return np.float32(max(epsilon - 2.0**-24, 0.0))


def pgd(
    classifier: Classifier,
    images: Images,
    labels: IntArray,
    epsilon: float,
    *,
    num_steps: int,
    num_restarts: int,
    seed: int,
    from_fgsm: bool = True,
) -> Attacked:
    """Projected gradient descent on the least margin (Madry et al. 2018).

    The first run starts at the FGSM point, so PGD breaks at least what FGSM breaks; the others
    start at seeded uniform points of the ball, and without `from_fgsm` all of them do. Points that
    stay unbroken keep their last run's end.
    """
    generator = np.random.default_rng(seed)
    radius = _inward_radius(epsilon)
    lower, upper = np.maximum(images - radius, 0), np.minimum(images + radius, 1)
    first = fgsm_points_batched(classifier, images, labels, epsilon if from_fgsm else 0.0)
    points, broken = first.points, first.broken.copy()
    for restart in range(num_restarts):
        left = np.flatnonzero(~broken)
        for batch in classifier.batches(len(left)):
            rows = left[batch]
            if restart > 0 or not from_fgsm:
                spread = generator.random(points[rows].shape, dtype=np.float32)
                start = lower[rows] + spread * (upper[rows] - lower[rows])
                points[rows] = np.clip(start, lower[rows], upper[rows])
            points[rows] = np.asarray(
                classifier.margin_descent(
                    points[rows],
                    labels[rows],
                    lower[rows],
                    upper[rows],
                    PGD_STEP * epsilon / max(num_steps, 1),
                    num_steps,
                )
            )
            broken[rows] = classifier.predictions(points[rows]) != labels[rows]
    return Attacked(points, broken)


def fgsm_points_batched(
    classifier: Classifier, images: Images, labels: IntArray, epsilon: float
) -> Attacked:
    """`fgsm_points` for any number of images."""
    parts = [
        fgsm_points(classifier, images[rows], labels[rows], epsilon)
        for rows in classifier.batches(len(images))
    ]
    if not parts:
        return Attacked(images.copy(), np.zeros(0, dtype=bool))
    return Attacked(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.broken for part in parts]),
    )
