"""Relations between two networks' inputs as bounds of changes: the same points, and verdicts."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.networks.side_by_side import fed, side_by_side
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.queries.changes import Form, by_changes
from tasks.core.queries.several import decide_of_several
from tasks.core.verdicts import Verdict
from tests.networks import box, random_network
from tests.oracle import least_excess

COLUMNS = [np.array([0, 1]), np.array([2, 1])]  # x, a shared input, and y in the place of x
RISING = [([1.0, 0.0, -1.0], 0.0)]  # y >= x
NEAR = [([-1.0, 0.0, 1.0], -0.125), ([1.0, 0.0, -1.0], -0.25)]  # x - 1/4 <= y <= x + 1/8
OUTPUTS = 2  # of both networks


def asked(
    where: Box, related: list[tuple[list[float], float]], *rows: tuple[list[float], float]
) -> Property:
    """Regions that have the related inputs in common, each with one row of all columns."""
    common = [([0.0] * OUTPUTS + row, offset) for row, offset in related]
    regions = []
    for row in rows:
        both = [row, *common]
        weights = np.array([weights for weights, _ in both])
        regions.append(UnsafeRegion(where, weights, np.array([offset for _, offset in both])))
    return Property(tuple(regions))


def reaches(prop: Property, outputs: list[Fraction], inputs: list[Fraction]) -> bool:
    """Exactly, whether any region holds."""
    values = [*outputs, *inputs]
    return any(
        all(
            Fraction(float(low)) <= value <= Fraction(float(high))
            for low, value, high in zip(r.box.lower[0], inputs, r.box.upper[0], strict=True)
        )
        and all(
            sum(Fraction(float(w)) * v for w, v in zip(row, values, strict=True)) <= -offset
            for row, offset in zip(r.rows, map(Fraction, r.offsets.tolist()), strict=True)
        )
        for r in prop.unsafe
    )


def form_of(prop: Property) -> Form:
    form = by_changes(COLUMNS, prop, OUTPUTS)
    assert form is not None
    return form


@pytest.mark.parametrize("related", [RISING, NEAR, NEAR[:1]])
def test_points_of_both_forms_are_the_same(related: list[tuple[list[float], float]]) -> None:
    """On a grid that holds every bound, with rows that mention y and one that is not of all."""
    where = box([-0.5, 0.0, -0.25], [0.75, 1.0, 1.0])
    prop = asked(
        where,
        related,
        ([1.0, -1.0, 0.0, 0.0, 0.0], 0.25),
        ([0.0, 1.0, 0.5, 0.0, -2.0], 0.5),
        ([0.0, 0.0, -1.0, 0.0, 1.0], -0.5),
    )
    form = form_of(prop)
    generator = np.random.default_rng(0)
    inside = 0
    for values in generator.integers(-10, 11, (4000, 5)).tolist():
        y0, y1, x, shared, y = (Fraction(value, 8) for value in values)
        expected = reaches(prop, [y0, y1], [x, shared, y])
        assert reaches(form.prop, [y0, y1], [x, shared, y - x]) == expected
        inside += expected
    assert inside > 50
    points = generator.integers(-10, 11, (20, 3)) / 8
    np.testing.assert_array_equal(form.joined(points)[:, 2], points[:, 0] + points[:, 2])
    np.testing.assert_array_equal(form.joined(points)[:, :2], points[:, :2])


def test_the_change_has_the_bounds_that_the_rows_give_it() -> None:
    where = box([0.0] * 3, [1.0] * 3)
    row = ([1.0, -1.0, 0.0, 0.0, 0.0], 0.0)
    near = form_of(asked(where, NEAR, row)).prop.unsafe[0]
    np.testing.assert_array_equal(near.box.lower[0], [0, 0, -0.25])
    np.testing.assert_array_equal(near.box.upper[0], [1, 1, 0.125])
    rising = form_of(asked(where, RISING, row)).prop.unsafe[0]
    assert rising.box.lower[0, 2] == 0
    assert 1 <= rising.box.upper[0, 2] <= 1 + 1e-15
    np.testing.assert_array_equal(rising.rows, [row[0], [0, 0, 1, 0, 1]])  # y >= 0 is implied


def test_networks_get_their_own_inputs() -> None:
    networks = [random_network(np.random.default_rng(seed), (2, 4, 1)) for seed in range(2)]
    form = form_of(asked(box([0.0] * 3, [1.0] * 3), RISING, ([1.0, -1.0, 0.0, 0.0, 0.0], 0.0)))
    points = np.random.default_rng(2).random((10, 3))
    expected = side_by_side(networks, COLUMNS)(form.joined(points))
    np.testing.assert_allclose(fed(networks, form.maps)(points), expected, atol=1e-12)


@pytest.mark.parametrize(
    "rows",
    [
        [([1.0, 0.0, -2.0], 0.0)],  # not the difference
        [([1.0, 0.0, 1.0], 0.0)],
        [([1.0, -1.0, 0.0], 0.0)],  # with the shared input
        [([-1.0, 0.0, 1.0], -0.125), ([0.1, 0.0, 1e-17], 0.0)],  # 0.1 + 1e-17 is no float64
    ],
)
def test_what_bounds_no_change_is_left_alone(rows: list[tuple[list[float], float]]) -> None:
    prop = asked(box([0.0] * 3, [1.0] * 3), rows, ([1.0, -1.0, 0.0, 0.0, 0.0], 0.0))
    assert by_changes(COLUMNS, prop, OUTPUTS) is None
    assert by_changes([COLUMNS[0]], prop, OUTPUTS) is None


def test_a_relation_of_one_alternative_alone_is_no_bound() -> None:
    where = box([0.0] * 3, [1.0] * 3)
    row = ([1.0, -1.0, 0.0, 0.0, 0.0], 0.0)
    (first,), (second,) = asked(where, RISING, row).unsafe, asked(where, [], row).unsafe
    assert by_changes(COLUMNS, Property((first, second)), OUTPUTS) is None


def test_a_question_of_outputs_alone_bounds_no_change() -> None:
    """A row that compares two outputs of the second network is none of its inputs."""
    networks = [
        ReluNetwork(
            (
                Affine(np.array([[0.25], [0.75]]), np.array([-0.75, 0.25])),
                Affine(np.array([[-1.75, -0.5], [-0.25, -0.5]]), np.array([-2.0, -0.25])),
            )
        ),
        ReluNetwork(
            (
                Affine(np.array([[-1.75], [0.5], [0.75]]), np.array([-0.5, 0.0, 2.0])),
                Affine(np.array([[-1.25, -2.25, 0.5], [-1, 2, 0]]), np.array([-0.25, -1.0])),
            )
        ),
    ]
    columns = [np.array([0]), np.array([1])]
    where = box([0.0, 0.25], [1.0, 0.75])
    rows, offsets = np.array([[1.0, -1, 0, 0], [0, 0, -1, 1]]), np.array([0.0, 0.25])
    prop = Property((UnsafeRegion(where, rows, offsets),))  # Y0 <= Y1 and B0 >= B1 + 1/4
    assert by_changes(columns, prop, 4) is None
    reached = side_by_side(networks, columns)(np.array([[0.0, 0.25]]))
    assert prop.unsafe[0].excess(reached)[0] < 0
    answer = decide_of_several(networks, columns, prop, engine="ladder", timeout_seconds=20, seed=0)
    assert answer.verdict is Verdict.FALSIFIED


@pytest.mark.parametrize("related", [RISING, NEAR])
def test_verdicts_are_those_of_mixed_integer_programming(
    related: list[tuple[list[float], float]],
) -> None:
    """Of the exact least fall of the output, a little more and a little less."""
    for seed in range(2):
        generator = np.random.default_rng(seed)
        networks = [random_network(generator, (2, 5, 4, 1)) for _ in range(2)]
        networks[1] = networks[0] if seed else networks[1]
        side, where = side_by_side(networks, COLUMNS), box([0.0] * 3, [1.0] * 3)
        fall = [1.0, -1.0, 0.0, 0.0, 0.0]
        least = least_fall(side.with_inputs(), asked(where, related, (fall, 0.0)).unsafe[0])
        for gap, verdict in ((0.02, Verdict.ROBUST), (-0.02, Verdict.FALSIFIED)):
            prop = asked(where, related, (fall, gap - least))
            answer = decide_of_several(
                networks, COLUMNS, prop, engine="ladder", timeout_seconds=20, seed=0
            )
            assert answer.verdict is verdict, (seed, answer.reason)
            assert answer.candidates.shape[1] == 3
            if verdict is Verdict.FALSIFIED:
                point: FloatArray = answer.candidates[:1]
                (region,) = prop.unsafe
                assert region.excess(side.with_inputs()(point))[0] <= 1e-9


def least_fall(network: ReluNetwork, region: UnsafeRegion) -> float:
    """The least value of the first row where the others hold, by bisection of its offset."""
    low, high = -4.0, 4.0
    while high - low > 1e-2:
        middle = (low + high) / 2
        offsets = region.offsets + np.eye(len(region.rows))[0] * -middle
        is_reached = least_excess(network, UnsafeRegion(region.box, region.rows, offsets)) <= 1e-6
        low, high = (low, middle) if is_reached else (middle, high)
    return low
