"""What differs from the test set is seen within two windows, and the same is not."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.core.guard.drift import WINDOW, Drift, Profile, stability_index
from tasks.core.properties.domain import Domain, Feature

IMAGES = Domain((8, 8))


def images(generator: np.random.Generator, count: int) -> np.ndarray:
    bright = generator.uniform(0.2, 0.6, (count, 1, 1))
    return np.clip(bright + generator.normal(0, 0.1, (count, 8, 8)), 0, 1).astype(np.float32)


def labels(generator: np.random.Generator, count: int) -> np.ndarray:
    return generator.choice(3, count, p=[0.6, 0.3, 0.1])


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def profile(generator: np.random.Generator) -> Profile:
    return Profile.of(IMAGES, images(generator, 2000), labels(generator, 2000), 3)


def test_the_index_is_as_by_hand() -> None:
    """0.1 log 2 + 0.1 log(4 / 3) of shares (0.2, 0.3, 0.5) against (0.1, 0.4, 0.5)."""
    found = stability_index(np.array([0.2, 0.3, 0.5]), np.array([0.1, 0.4, 0.5]))
    assert found == pytest.approx(0.1 * np.log(2) + 0.1 * np.log(4 / 3))


def test_the_same_is_no_shift(profile: Profile, generator: np.random.Generator) -> None:
    drift = Drift(Profile.model_validate_json(profile.model_dump_json()), IMAGES)
    for count in (*[1] * 40, 960, 5000, 14_000):
        assert drift.observe(images(generator, count), labels(generator, count)) == []
    assert max(drift.indices.values()) < 0.1


def test_a_shift_is_told_once(profile: Profile, generator: np.random.Generator) -> None:
    drift = Drift(profile, IMAGES)
    drift.observe(images(generator, WINDOW // 2), labels(generator, WINDOW // 2))
    darker = 0.6 * images(generator, 2 * WINDOW)
    found = drift.observe(darker, labels(generator, 2 * WINDOW))
    assert "brightness" in found
    assert "labels" not in found
    assert drift.observe(darker[:WINDOW], labels(generator, WINDOW)) == []
    drift.observe(images(generator, 2 * WINDOW), labels(generator, 2 * WINDOW))
    assert "brightness" in drift.observe(darker, labels(generator, 2 * WINDOW))


def test_other_labels_are_a_shift(profile: Profile, generator: np.random.Generator) -> None:
    drift = Drift(profile, IMAGES)
    rare = generator.choice(3, WINDOW, p=[0.2, 0.3, 0.5])
    assert drift.observe(images(generator, WINDOW), rare) == ["labels"]


def test_a_table_s_columns_are_told_by_name(generator: np.random.Generator) -> None:
    domain = Domain.of_table(
        [
            Feature(name="amount", upper=1000),
            Feature(name="months", kind="integer", upper=12),
            Feature(name="job", kind="category", categories=("A", "B")),
        ]
    )

    def rows(share: float) -> np.ndarray:
        job = generator.random(2000) < share
        columns = generator.uniform(0, 1000, 2000), generator.integers(0, 13, 2000), job, ~job
        return np.stack(columns, axis=1).astype(np.float32)

    profile = Profile.of(domain, rows(0.5), labels(generator, 2000), 3)
    drift = Drift(profile, domain)
    assert drift.observe(rows(0.5), labels(generator, 2000)) == []
    assert drift.observe(rows(0.9), labels(generator, 2000)) == ["job[A]", "job[B]"]
