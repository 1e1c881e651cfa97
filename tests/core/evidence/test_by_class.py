"""Measures by class, held against scikit-learn's and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from tasks.core.evidence.by_class import (
    area_under_curve,
    balanced_accuracy,
    never_predicted,
    recalls,
    warning_of_never_predicted,
)

LABELS = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2, 2])
FOUND = np.array([0, 0, 0, 0, 0, 2, 0, 1, 2, 2])


def test_a_rare_class_counts_as_much_as_a_common_one() -> None:
    right = FOUND == LABELS
    assert recalls(LABELS, right, 3).tolist() == pytest.approx([5 / 6, 1 / 2, 1])
    assert recalls(LABELS, right, 3) == pytest.approx(recall_score(LABELS, FOUND, average=None))
    assert balanced_accuracy(LABELS, right, 3) == pytest.approx(
        balanced_accuracy_score(LABELS, FOUND)
    )


def test_always_the_common_class_is_no_better_than_chance() -> None:
    labels = np.array([0] * 98 + [1] * 2)
    assert balanced_accuracy(labels, labels == 0, 2) == 0.5
    assert never_predicted(np.zeros(100, dtype=np.int64), 2) == [1]
    assert "never predicts class phishing" in warning_of_never_predicted(["phishing"])


def test_a_class_without_points_is_left_out() -> None:
    labels = np.array([0, 0, 2])
    assert np.isnan(recalls(labels, labels == 0, 4)[[1, 3]]).all()
    assert balanced_accuracy(labels, labels == 0, 4) == 0.5


def test_area_under_the_curve_ranks_by_the_margin_of_one_class() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 200)
    logits = generator.normal(size=(200, 2)).astype(np.float32)
    logits[:, 1] += labels
    assert area_under_curve(labels, logits, 1) == pytest.approx(
        roc_auc_score(labels, logits[:, 1] - logits[:, 0])
    )
    assert area_under_curve(labels, logits, 0) == pytest.approx(area_under_curve(labels, logits, 1))
    assert area_under_curve(np.ones(3, dtype=np.int64), logits[:3], 1) is None
