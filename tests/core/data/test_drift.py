"""Drift: zero where nothing moved, the index by hand, and its words."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tasks.core.data.datasets import Dataset
from tasks.core.data.drift import DataProfile, Drift, drift, profile, stability_index
from tasks.core.properties.domain import Domain, Feature

PIXELS = Domain((8, 8))


def test_index_by_hand() -> None:
    expected = (0.5 - 0.25) * math.log(2) + (0.5 - 0.75) * math.log(2 / 3)
    assert stability_index((10, 10), (25, 75)) == pytest.approx(expected)
    assert stability_index((25, 75), (10, 10)) == pytest.approx(expected)


def test_an_empty_bin_is_finite() -> None:
    assert 0 < stability_index((10, 0), (5, 5)) < 10


def test_same_data_have_not_drifted(digits: Dataset) -> None:
    found = profile(digits.train_inputs, digits.train_labels, PIXELS)
    assert drift(found, found) == Drift(labels=0, brightness=0, contrast=0)
    assert drift(found, found).word == "none"


def test_halves_of_one_data_set_differ_little(digits: Dataset) -> None:
    half = len(digits.train_labels) // 2
    first = profile(digits.train_inputs[:half], digits.train_labels[:half], PIXELS)
    second = profile(digits.train_inputs[half:], digits.train_labels[half:], PIXELS)
    assert max(drift(first, second).parts().values()) < 0.1


def test_darker_images_and_missing_classes_are_major(digits: Dataset) -> None:
    old = profile(digits.train_inputs, digits.train_labels, PIXELS)
    darker = profile(digits.train_inputs * np.float32(0.5), digits.train_labels, PIXELS)
    moved = drift(darker, old)
    assert moved.labels == 0
    assert moved.brightness is not None
    assert moved.brightness > 0.25
    assert moved.word == "major"
    kept = digits.train_labels >= 5
    skewed = profile(digits.train_inputs[kept], digits.train_labels[kept], PIXELS)
    assert drift(skewed, old).labels > 0.25


def test_every_image_is_counted_and_the_profile_survives_json(digits: Dataset) -> None:
    found = profile(digits.train_inputs, digits.train_labels, PIXELS)
    count = len(digits.train_labels)
    assert sum(found.labels) == sum(found.brightness) == sum(found.contrast) == count
    assert DataProfile.model_validate_json(found.model_dump_json()) == found
    white = np.ones((4, 2, 2), dtype=np.float32)
    assert profile(white, np.array([0, 0, 1, 1]), PIXELS).brightness[-1] == 4


def test_the_feature_that_moved_most_is_named() -> None:
    generator = np.random.default_rng(0)
    table = Domain.of_table(
        [
            Feature(name="amount", upper=1e6),
            Feature(name="flag", kind="binary"),
            Feature(name="kind", kind="category", categories=("x", "y")),
        ]
    )
    kinds = np.eye(2)[generator.integers(0, 2, 2000)]
    amounts = generator.lognormal(8, 1, 2000)
    rows = np.column_stack([amounts, generator.integers(0, 2, 2000), kinds]).astype(np.float32)
    labels = np.arange(2000) % 2
    old = profile(rows[::2], labels[::2] * 0 + labels[:1000], table)
    assert [len(each.counts) for each in old.features.values()] == [10, 3, 3, 3]
    assert set(old.features["amount"].counts) == {100}
    same = drift(profile(rows[1::2], labels[:1000], table, old), old)
    assert same.word == "none"
    richer = rows[1::2] * np.array([3, 1, 1, 1], dtype=np.float32)
    moved = drift(profile(richer, labels[:1000], table, old), old)
    assert (moved.word, moved.feature) == ("major", "amount")
    assert moved.parts().keys() == {"labels", "features"}
    assert DataProfile.model_validate_json(old.model_dump_json()) == old
