"""Attacks on rows of tables: every point they break a model with is a valid row within reach."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tasks.core.attacks.gradient import Attacked, fgsm, fgsm_points, pgd
from tasks.core.models.runtimes import Classifier
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import Perturbation

FEATURES = [
    Feature(name="rate", upper=1),
    Feature(name="amount", kind="integer", lower=0, upper=10_000, direction="up"),
    Feature(name="count", kind="integer", lower=0, upper=9),
    Feature(name="age", kind="integer", lower=18, upper=99, mutable=False),
    Feature(name="kind", kind="category", categories=("x", "y", "z")),
]
RELATIONS = ["amount <= 1000 * count + 1000", "kind[z] == 1 -> rate <= 0.5"]
ROWS = 2000


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Some of which break a relation, as rows of real data do."""
    generator = np.random.default_rng(0)
    kinds = np.eye(3)[generator.integers(0, 3, ROWS)]
    columns = [
        generator.random(ROWS),
        generator.integers(0, 10_001, ROWS),
        generator.integers(0, 10, ROWS),
        generator.integers(18, 100, ROWS),
    ]
    return np.column_stack([*columns, kinds]).astype(np.float32)


@pytest.fixture(scope="module")
def classifier(rows: np.ndarray) -> Classifier:
    """A random network on rows that a first layer normalises."""
    keras.utils.set_random_seed(0)
    normal = keras.layers.Normalization(mean=rows.mean(axis=0), variance=rows.var(axis=0))
    dense = [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3)]
    return Classifier(keras.Sequential([keras.Input((7,)), normal, *dense]))


def attacked(
    kind: str, classifier: Classifier, rows: np.ndarray, table: Perturbation, epsilon: float
) -> Attacked:
    labels = classifier.predictions(rows)
    if kind == "fgsm":
        return fgsm_points(classifier, rows, labels, table, epsilon)
    return pgd(classifier, rows, labels, table, epsilon, num_steps=10, num_restarts=2, seed=0)


@pytest.mark.parametrize("most_changes", [0, 1])
@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
def test_what_breaks_is_a_valid_row_within_reach(
    kind: str, most_changes: int, classifier: Classifier, rows: np.ndarray
) -> None:
    domain = Domain.of_table(FEATURES, RELATIONS)
    table = Perturbation.of_table(domain, rows, "range", most_changes)
    before = rows.copy()
    broken = 0
    for epsilon in (0.01, 0.05, 0.2):
        found = attacked(kind, classifier, rows, table, epsilon)
        broken += found.broken.sum()
        points = found.points[found.broken]
        assert domain.contains(points).all()
        for center, point in zip(rows[found.broken], points, strict=True):
            boxes, _ = table.boxes(center[None], epsilon)
            inside = (point >= boxes.lower) & (point <= boxes.upper)
            assert inside.all(axis=1).any()
        np.testing.assert_array_equal(classifier.predictions(found.points), found.predictions)
        same = (found.points == rows).all(axis=1)
        assert (domain.contains(found.points) | same).all()
    assert broken > 200
    np.testing.assert_array_equal(rows, before)


def test_choices_of_categories_break_more(classifier: Classifier, rows: np.ndarray) -> None:
    domain = Domain.of_table(FEATURES, RELATIONS)
    found = [
        attacked("pgd", classifier, rows, Perturbation.of_table(domain, rows, "range", most), 0.02)
        for most in (0, 1)
    ]
    assert found[1].broken.sum() > found[0].broken.sum()
    assert found[1].broken[found[0].broken].all()


def test_predictions_of_fgsm_are_those_of_its_points(
    classifier: Classifier, rows: np.ndarray
) -> None:
    domain = Domain.of_table(FEATURES, RELATIONS)
    table = Perturbation.of_table(domain, rows, "range", 1)
    labels = classifier.predictions(rows)
    epsilons = [0.0, 0.05]
    predictions, _ = fgsm(classifier, rows, labels, table, epsilons)
    np.testing.assert_array_equal(predictions[0], labels)
    points = fgsm_points(classifier, rows, labels, table, 0.05)
    np.testing.assert_array_equal(predictions[1], points.predictions)
