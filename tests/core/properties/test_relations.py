"""Relations: read as they are written, held exactly, excluded soundly."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tasks.core.errors import CertiflowError
from tasks.core.properties.box import Box
from tasks.core.properties.relations import parse

COLUMNS = {"a": 0, "b": 1, "kind[x]": 2, "kind[y]": 3, "kind[1]": 3}


def held(text: str, *point: float) -> bool:
    return bool(parse(text, COLUMNS, 4).holds(np.array([point], dtype=float))[0])


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("a <= b", (1, 1, 0, 0), (2, 1, 0, 0)),
        ("a < b", (1, 2, 0, 0), (1, 1, 0, 0)),
        ("a >= 2 * b - 1", (1, 1, 0, 0), (0, 1, 0, 0)),
        ("a > -b", (1, 0, 0, 0), (0, 0, 0, 0)),
        ("3 * a + 4 * (b - 1) <= 7 - a", (0, 2, 0, 0), (1, 3, 0, 0)),
        ("a == b * 2", (4, 2, 0, 0), (4, 3, 0, 0)),
        ("a > 0 -> b > 0", (0, 0, 0, 0), (1, 0, 0, 0)),
        ("a > 0 -> b > 0", (1, 1, 0, 0), (0.5, 0, 0, 0)),
        ("0.1 * a <= 0.3", (3, 0, 0, 0), (4, 0, 0, 0)),
        ("0.1 * a + 0.7 * b >= 0.8", (1, 1, 0, 0), (0, 1, 0, 0)),
        ("kind[x] == 1 -> a <= 2", (3, 0, 0, 1), (3, 0, 1, 0)),
        ("kind[1] == 1 -> a == 2", (2, 0, 0, 1), (3, 0, 0, 1)),
    ],
)
def test_holds_where_it_says(
    text: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    assert held(text, *inside)
    assert not held(text, *outside)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a <= c", "there is no feature 'c'; expected one of a, b"),
        ("a * b <= 1", "multiplies features"),
        ("a", "is no comparison"),
        ("a <= b <= 1", "is no comparison"),
        ("a != b", "compares otherwise"),
        ("a / 2 <= b", "cannot be read"),
        ("a <= ", "cannot be read"),
        ("a <= 1e400", "cannot be read"),
        ("a > 0 -> b > 0 -> a > 1", "at most one '->'"),
        ("__import__('os') == 1", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_quoted(text: str, said: str) -> None:
    with pytest.raises(CertiflowError) as caught:
        parse(text, COLUMNS, 4)
    assert f"relation '{text}'" in str(caught.value)
    assert said in str(caught.value)


def test_a_box_is_excluded_only_where_no_point_of_it_satisfies_the_relation() -> None:
    generator = np.random.default_rng(0)
    texts = ["a <= b", "a + b < 2", "a > 1 -> b > 1", "2 * a - b == 1", "kind[x] == 1 -> a > b"]
    excluded = 0
    for text, _ in itertools.product(texts, range(200)):
        relation = parse(text, COLUMNS, 4)
        lower = generator.integers(-2, 3, 4).astype(float)
        upper = lower + generator.integers(0, 3, 4)
        box = Box(lower[None], upper[None])
        axes = [np.arange(a, b + 0.5, 0.5) for a, b in zip(lower, upper, strict=True)]
        points = np.array(list(itertools.product(*axes)))
        if relation.is_excluded(box)[0]:
            excluded += 1
            assert not relation.holds(points).any()
    assert excluded > 50


@pytest.mark.parametrize(
    "text", ["0.1 * a <= 0.3", "a < b", "a == 0.5 * b", "a > 0 -> 0.3 * b <= 0.9"]
)
def test_of_single_whole_points_exactly_those_that_break_it_are_excluded(text: str) -> None:
    relation = parse(text, COLUMNS, 4)
    points = np.array(list(itertools.product(range(-2, 6), range(-2, 6), [1], [0])), dtype=float)
    excluded = relation.is_excluded(Box(points, points))
    np.testing.assert_array_equal(excluded, ~relation.holds(points))
    assert 0 < excluded.sum() < len(points)


@pytest.mark.parametrize("text", ["a <= 0.3", "a + b == 0.5", "b == 0.2 -> a <= 0.3"])
def test_what_float32_rounds_across_a_relation_is_not_left_out(text: str) -> None:
    """0.3 in a file is a little more in float32, and no proof may leave that row out."""
    point = np.array([[0.3, 0.2, 0, 0]], np.float32).astype(float)
    relation = parse(text, COLUMNS, 4)
    assert not relation.is_excluded(Box(point, point))[0]
    beyond = point + np.array([1e-6, 0, 0, 0])
    assert relation.is_excluded(Box(beyond, beyond))[0] == ("->" not in text)


@pytest.mark.parametrize(
    "text", ["a < 5 + 0.0000000000000001", "a - 0.00000000000000001 * a < 5", "0.5 * a < 2.5"]
)
def test_numbers_that_rounding_makes_whole_are_not_exact(text: str) -> None:
    """5 satisfies the first two, by less than float64 can tell from nothing."""
    relation = parse(text, {"a": 0}, 1)
    point = Box(np.full((1, 1), 5.0), np.full((1, 1), 5.0))
    assert relation.is_excluded(point)[0] == (text == "0.5 * a < 2.5")


@pytest.mark.parametrize(
    "text", ["a * " + "1e30 * " * 12 + "1 < 5", " + ".join(["a"] * 5000) + " < 5"]
)
def test_what_is_too_long_or_too_great_is_said(text: str) -> None:
    with pytest.raises(CertiflowError, match="is too long, or has too great a product"):
        parse(text, {"a": 0}, 1)
