"""Perturbations: the boxes are those that the features' own words say, held against enumeration."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tasks.core.errors import CertiflowError
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import Perturbation

FEATURES = [
    Feature(name="rate", lower=0, upper=1),
    Feature(name="amount", kind="integer", lower=0, upper=1000, direction="up"),
    Feature(name="debt", kind="integer", lower=-50, upper=50, direction="down", scale=10),
    Feature(name="fixed", lower=0, upper=9, mutable=False),
    Feature(name="kind", kind="category", categories=("x", "y", "z")),
    Feature(name="sex", kind="category", categories=("m", "f"), mutable=False),
    Feature(name="place", kind="category", categories=("a", "b")),
]
DOMAIN = Domain.of_table(FEATURES)
TRAIN = np.array(
    [[0.2, 100, -20, 3, 1, 0, 0, 1, 0, 1, 0], [0.8, 300, 30, 5, 0, 1, 0, 0, 1, 0, 1]], np.float32
)


def table(**options: object) -> Perturbation:
    return Perturbation.of_table(DOMAIN, TRAIN, **options)  # type: ignore[arg-type]


def test_each_feature_moves_by_its_own_scale_in_its_direction() -> None:
    box = table().box(TRAIN[:1], 0.1)
    assert box.lower[0, :4] == pytest.approx([0.14, 100, -21, 3])
    assert box.upper[0, :4] == pytest.approx([0.26, 120, -20, 3])
    np.testing.assert_array_equal(box.lower[0, 4:], TRAIN[0, 4:])
    np.testing.assert_array_equal(box.upper[0, 4:], TRAIN[0, 4:])


def test_the_neighbourhood_holds_what_nobody_can_change_as_well() -> None:
    """By the scale both ways: the rate's range is 0.6, the amount's 200, that of `fixed` 2."""
    box = table().neighbourhood(TRAIN[:1], 0.5)
    assert box.lower[0, :4] == pytest.approx([0, 0, -25, 2])
    assert box.upper[0, :4] == pytest.approx([0.5, 200, -15, 4])
    np.testing.assert_array_equal(box.lower[0, 4:], TRAIN[0, 4:])
    np.testing.assert_array_equal(box.upper[0, 4:], TRAIN[0, 4:])


def test_boxes_stay_within_the_domain() -> None:
    box = table().box(TRAIN, 1e6)
    assert box.lower[:, :3].tolist() == [[0, 100, -50], [0, 300, -50]]
    assert box.upper[:, :3].tolist() == [[1, 1000, -20], [1, 1000, 30]]


def test_whole_numbers_are_exactly_those_within_reach() -> None:
    """Whatever float64 makes of epsilon times the scale: 0.29 * 100 is below 29."""
    feature = Feature(name="n", kind="integer", lower=-1000, upper=1000, scale=100)
    domain = Domain.of_table([feature])
    perturbation = Perturbation.of_table(domain, np.zeros((2, 1), np.float32))
    for hundredths in range(101):
        box = perturbation.box(np.array([[7.0]], np.float32), hundredths / 100)
        reach = int(Fraction(hundredths, 100) * 100)
        assert (box.lower[0, 0], box.upper[0, 0]) == (7 - reach, 7 + reach)


def test_scales_by_deviation_and_in_own_units() -> None:
    assert table(scale="std").box(TRAIN[:1], 1).upper[0, 0] == pytest.approx(0.2 + 0.3)
    assert table(scale="absolute").box(TRAIN[:1], 5).upper[0, 1] == 105
    assert table(scale="absolute").box(TRAIN[:1], 1).lower[0, 2] == -30  # its own scale


def test_choices_of_categories_are_enumerated() -> None:
    for most, count in ((0, 1), (1, 1 + 2 + 1), (2, 1 + 2 + 1 + 2 * 1)):
        perturbation = table(most_changes=most)
        centers, owners = perturbation.alternatives(TRAIN, 0.1)
        assert perturbation.most_alternatives == count
        assert owners.tolist() == [0] * count + [1] * count
        first = centers[owners == 0]
        assert len(np.unique(first, axis=0)) == count
        np.testing.assert_array_equal(first[0], TRAIN[0])
        assert DOMAIN.contains(centers).all()
        np.testing.assert_array_equal(first[:, :4], np.repeat(TRAIN[:1, :4], count, axis=0))
        np.testing.assert_array_equal(first[:, 7:9], np.repeat(TRAIN[:1, 7:9], count, axis=0))
        assert len(perturbation.alternatives(TRAIN, 0.0)[0]) == 2


def test_float32_bounds_lie_in_the_box() -> None:
    generator = np.random.default_rng(0)
    images = generator.random((50, 3, 3), dtype=np.float32)
    for perturbation, points in ((table(), TRAIN), (Perturbation.of_images((3, 3)), images)):
        for epsilon in (0.0, 1e-9, 0.01, 0.1, 0.3, 1.0):
            box = perturbation.box(points, epsilon)
            for bound in perturbation.float32_bounds(points, epsilon):
                assert bound.dtype == np.float32
                assert bound.shape == points.shape
                assert box.contains(bound).all()


def test_the_distance_is_the_least_radius_that_reaches_a_point() -> None:
    perturbation = table(most_changes=1)
    generator = np.random.default_rng(1)
    for epsilon in (0.01, 0.05, 0.2):
        box = perturbation.box(TRAIN[:1], epsilon)
        points = box.lower + generator.random((20, 11)) * (box.upper - box.lower)
        distances = perturbation.distance(TRAIN[0], points)
        assert (distances <= epsilon * (1 + 1e-9)).all()
        for point, distance in zip(points, distances, strict=True):
            assert perturbation.box(TRAIN[:1], distance).upper[0, 0] >= point[0]
    changed = TRAIN[:1].astype(float).copy()
    changed[0, 4:7] = [0, 0, 1]
    assert perturbation.distance(TRAIN[0], changed).tolist() == [0]
    changed[0, 3] += 1
    assert np.isinf(perturbation.distance(TRAIN[0], changed)).all()
    down = TRAIN[:1].astype(float) - np.eye(11)[1]
    assert np.isinf(perturbation.distance(TRAIN[0], down)).all()


def test_a_table_in_which_nothing_can_change() -> None:
    domain = Domain.of_table([Feature(name="a", mutable=False)])
    with pytest.raises(CertiflowError, match="no feature can change"):
        Perturbation.of_table(domain, np.array([[0.0], [1.0]], np.float32))


@pytest.mark.parametrize(("place", "value"), [(0, 1.5), (1, -1), (3, np.nan), (7, 0.5)])
def test_a_row_out_of_bounds_has_no_box(place: int, value: float) -> None:
    """It would be empty, and then everything true of it."""
    row = TRAIN[:1].copy()
    row[0, place] = value
    with pytest.raises(CertiflowError, match=f"row 0: input {place} is {value:g}: expected"):
        table().box(row, 0.0)


def test_no_scale_leads_beyond_the_domain() -> None:
    feature = Feature(name="n", kind="integer", lower=-3, upper=5, scale=1e15)
    perturbation = Perturbation.of_table(Domain.of_table([feature]), np.zeros((1, 1), np.float32))
    box = perturbation.box(np.zeros((1, 1), np.float32), 1.0)
    assert (box.lower[0, 0], box.upper[0, 0]) == (-3, 5)
