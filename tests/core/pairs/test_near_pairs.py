"""Near pairs: which they are, and that the twin network of them has no rounding in it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tasks.core.data.datasets import Dataset
from tasks.core.pairs.near_pairs import NearPairs, near_pairs
from tasks.core.pairs.twin_network import twin_network
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import Perturbation
from tests.networks import box, exactly, random_network

FEATURES = [
    Feature(name="rate", upper=10),
    Feature(name="months", kind="integer", upper=9),
    Feature(name="age", kind="integer", upper=9),
    Feature(name="sex", kind="category", categories=("m", "f")),
]
ROWS = box([1.0, 2.0, 3.0, 1.0, 0.0], [4.0, 5.0, 3.0, 1.0, 0.0])


def near(*delta: float, relations: tuple[str, ...] = ()) -> NearPairs:
    domain = Domain.of_table(FEATURES, relations)
    return NearPairs.within(ROWS, np.array(delta), domain)


def test_only_what_can_differ_has_a_change_and_whole_numbers_by_whole_ones() -> None:
    pairs = near(0.5, 2.9, 7, 0, 0)  # the age is the same in all rows of the box
    assert pairs.columns.tolist() == [0, 1]
    assert pairs.most.tolist() == [0.5, 2.0]
    assert pairs.points.lower[0].tolist() == [1, 2, 3, 1, 0, -0.5, -2]
    assert near(0.5, 0.9, 0, 0, 0).columns.tolist() == [0]


def test_whole_deltas_are_not_lost_to_rounding() -> None:
    assert near(0.29 * 100, 0.29 * 100, 0, 0, 0).most.tolist() == [0.29 * 100, 29.0]


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ([2, 3, 3, 1, 0], [2.5, 5, 3, 1, 0], True),
        ([2.5, 5, 3, 1, 0], [2, 3, 3, 1, 0], True),
        ([2, 3, 3, 1, 0], [2.6, 3, 3, 1, 0], False),  # too far
        ([2, 3, 3, 1, 0], [2, 3.5, 3, 1, 0], False),  # not whole
        ([4, 3, 3, 1, 0], [4.1, 3, 3, 1, 0], False),  # outside the box
        ([2, 3, 3, 0, 0], [2, 3, 3, 0, 0], False),  # of no sex
        ([2, 5, 3, 1, 0], [2, 4, 3, 1, 0], False),  # months <= 4 holds of one alone
    ],
)
def test_pairs_are_two_valid_rows(first: list[float], second: list[float], is_one: bool) -> None:
    relations = ("months <= 4",) if not is_one else ()
    pairs = near(0.5, 2.9, 0, 0, 0, relations=relations)
    assert pairs.contains(np.array(first, float), np.array(second, float)) is is_one


def test_points_are_valid_where_both_rows_are() -> None:
    """Every whole change of every row, with a relation that bounds one feature by another."""
    pairs = near(0.5, 2.0, 0, 0, 0, relations=("months <= rate + 1",))
    assert pairs.valid is not None
    count = 0
    for months in range(2, 6):
        for change in (-2, -1, 0, 1, 2):
            for rate, move in ((1.0, 0.5), (2.5, -0.5), (4.0, 0.0)):
                first = np.array([rate, months, 3, 1, 0])
                second = first + np.array([move, change, 0, 0, 0])
                point = np.append(first, [move, change])
                both = bool(pairs.domain.contains(np.stack([first, second])).all())
                found = bool(pairs.valid.contains(point[None])[0])
                if 2 <= second[1] <= 5 and 1 <= second[0] <= 4:
                    assert found is both
                    assert not (both and pairs.valid.excludes(Box(point[None], point[None]))[0])
                    count += both
    assert count > 10


def test_images_need_no_domain_of_pairs() -> None:
    pairs = NearPairs.within(box([0.0] * 4, [1.0] * 4), np.full(4, 0.1), Domain((2, 2)))
    assert pairs.valid is None


@pytest.mark.parametrize("clipped", [True, False])
@pytest.mark.parametrize("widths", [(3, 2), (3, 5, 2), (3, 5, 4, 2)])
def test_the_twin_is_the_difference_without_any_rounding(
    widths: tuple[int, ...], clipped: bool
) -> None:
    """In rational arithmetic, at float64 points, with a delta of no short decimal form."""
    where = box([0.1, 0.3, 0.2], [0.9, 0.3, 0.7])
    pairs = NearPairs.within(where, np.full(3, 1 / 3), Domain((3,)))
    for seed in range(10):
        generator = np.random.default_rng(seed)
        network = random_network(generator, widths)
        twin = twin_network(network, pairs, clipped=clipped)
        for point in generator.uniform(pairs.points.lower[0], pairs.points.upper[0], (10, 5)):
            exact = [Fraction(value) for value in point.tolist()]
            first, second = exact[:3], exact[:3]
            for column, change in zip(pairs.columns.tolist(), exact[3:], strict=True):
                second[column] += change
                if clipped:
                    ends = (Fraction(float(end[0, column])) for end in (where.lower, where.upper))
                    low, high = ends
                    second[column] = min(max(second[column], low), high)
            values = [exactly(network, each) for each in (first, second)]
            differences = [after - before for before, after in zip(*values, strict=True)]
            assert exactly(twin, exact) == differences


def test_what_a_number_is_held_against_is_no_input_of_pairs() -> None:
    """But relations between the features stay."""
    features = [Feature(name="a"), Feature(name="b"), Feature(name="y", mutable=False)]
    domain = Domain.of_table(features, ["a <= b"])
    rows = np.float32([[0, 1, 0.5], [1, 1, 0.5]])
    labels, names = np.zeros(2, np.int64), ("within", "too high", "too low")
    moves = Perturbation.of_table(domain, rows, "absolute")
    data = Dataset("numbers", rows, labels, rows, labels, names, moves, tolerance=1.0)
    pairs = near_pairs(data, domain_radius=0.5, delta=0.25)
    assert [feature.name for feature in pairs.domain.features] == ["a", "b"]
    np.testing.assert_array_equal(pairs.box.upper, [[1, 1]])
    np.testing.assert_array_equal(pairs.most, [0.25, 0.25])
    first, second = np.array([0.5, 0.75]), np.array([0.75, 0.75])
    assert pairs.contains(first, second)
    assert not pairs.contains(second, second + np.array([0.25, 0]))
