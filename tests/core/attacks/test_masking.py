"""Signs of gradient masking: none on an honest network, some on one that hides its gradient."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.core.attacks.gradient import pgd
from tasks.core.attacks.masking import MaskingEvidence, measure, signs_of_masking
from tasks.core.data.datasets import Dataset
from tasks.core.models.runtimes import Classifier
from tests.networks import ball_around

HONEST = MaskingEvidence(
    epsilons=(0.05, 0.1, 0.2, 1.0),
    is_cube_free=True,
    pgd_success=(0.1, 0.3, 0.8, 1.0),
    fgsm_success=0.25,
    gradient_loss=(0.1, 0.3, 0.6, 1.0, 1.5),
    random_loss=(0.1, 0.1, 0.1, 0.1, 0.12),
)


class Rounded(keras.layers.Layer):
    """Pixels in steps of a quarter: the gradient is zero wherever there is one."""

    def call(self, images: Any) -> Any:
        return tf.round(images * 4) / 4


def test_an_honest_network_shows_none(classifier: Classifier, digits: Dataset) -> None:
    evidence = measure(
        classifier, digits.test_inputs, digits.test_labels, digits.perturbation, 0.1, seed=0
    )
    assert evidence is not None
    assert signs_of_masking(evidence) == []
    assert evidence.pgd_success[-1] == 1.0
    assert evidence.epsilons == (0.05, 0.1, 0.2, 1.0)


def test_a_network_that_hides_its_gradient_is_seen(classifier: Classifier, digits: Dataset) -> None:
    hidden = Classifier(keras.Sequential([keras.Input((8, 8)), Rounded(), classifier.model]))
    evidence = measure(
        hidden, digits.test_inputs, digits.test_labels, digits.perturbation, 0.1, seed=0
    )
    assert evidence is not None
    signs = "; ".join(signs_of_masking(evidence))
    assert "with every pixel free PGD breaks" in signs
    assert "than along random signs" in signs


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"fgsm_success": 0.35}, "at epsilon 0.1 FGSM breaks 35.0%, PGD from random .* 30.0%"),
        ({"fgsm_success": 0.31}, None),  # within the noise
        ({"pgd_success": (0.4, 0.3, 0.8, 1.0)}, "PGD breaks 40.0% at epsilon 0.05, but only 30.0%"),
        ({"pgd_success": (0.1, 0.3, 0.8, 0.9)}, "with every pixel free PGD breaks 90.0%"),
        ({"gradient_loss": (0.1, 2, 1, 1, 1)}, "falls again before epsilon 0.1, from 2 to 1"),
        ({"random_loss": (0.1, 1, 1, 1, 2.0)}, "to 1.5, than along random signs, to 2"),
    ],
)
def test_each_check_by_hand(changes: dict[str, Any], said: str | None) -> None:
    signs = signs_of_masking(replace(HONEST, **changes))
    assert len(signs) == (said is not None)
    if said is not None:
        assert re.search(said, signs[0])


def test_without_a_right_label_there_is_nothing_to_measure(
    classifier: Classifier, digits: Dataset
) -> None:
    wrong = (classifier.predictions(digits.test_inputs[:20]) + 1) % 10
    assert (
        measure(classifier, digits.test_inputs[:20], wrong, digits.perturbation, 0.1, seed=0)
        is None
    )


def test_pgd_from_random_owes_nothing_to_fgsm(classifier: Classifier, digits: Dataset) -> None:
    """Without a step it stays where it started: at a random point of the ball."""
    images, labels = digits.test_inputs[:50], digits.test_labels[:50]
    found = pgd(
        classifier,
        images,
        labels,
        digits.perturbation,
        0.1,
        num_steps=0,
        num_restarts=1,
        seed=3,
        from_fgsm=False,
    ).points
    assert ball_around(images, 0.1).contains(found).all()
    inside = np.abs(found - images)[(images > 0.1) & (images < 0.9)]
    assert 0.04 < inside.mean() < 0.06  # a uniform point's mean distance is half of the radius
