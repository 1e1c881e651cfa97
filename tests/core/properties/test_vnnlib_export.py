"""A property as VNN-LIB: our reader and the package `vnnlib` find the same regions, exactly."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import vnnlib

from tasks.core.errors import CertiflowError
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.properties.vnnlib import read_property
from tasks.core.properties.vnnlib_export import vnnlib_text
from tests.core.properties.test_vnnlib_differential import Point, compared
from tests.networks import ball_around, box, random_network, random_property

ENDS = (5e-324, 1.7976931348623157e308)


def ball(seed: int, num_inputs: int = 6) -> Box:
    """A float32 point's ball within [0, 1], some inputs at the ends."""
    rng = np.random.default_rng(seed)
    center = rng.random(num_inputs).astype(np.float32) * (rng.random(num_inputs) < 0.7)
    return ball_around(center[None], float(rng.choice([0.1, 0.02, 1 / 255])))


def region(rows: list[list[float]], offsets: list[float], of: Box | None = None) -> UnsafeRegion:
    return UnsafeRegion(ball(0) if of is None else of, np.array(rows), np.array(offsets))


PROPERTIES = {
    "one ball": Property.robustness(ball(1), 1, 4),
    "two classes": Property.robustness(ball(1), 1, 2),
    "several boxes": Property.robustness(
        Box(
            *(
                np.concatenate([getattr(ball(s), side) for s in (2, 3)])
                for side in ("lower", "upper")
            )
        ),
        0,
        3,
    ),
    "conjunctions": Property(
        (
            region([[1, -1, 0], [0.1, 2, 0], [0, 0, 1]], [0, -0.3, 0.7]),
            region([[-1, 0, 0], [0, -0.3, 0], [0.5, 0.5, 0.1]], [1e-3, 0, -0.0]),
        )
    ),
    "one region": Property((region([[1, -1, 0], [0, 1, 0]], [0.0, -0.1]),)),
    "always": Property((region([[0, 0, 0]], [-1]), region([[0, 1, 0]], [2]))),
    "never": Property((region([[0, 0, 0]], [0.5]),)),
    "of inputs, too": Property(
        (region([[1, 0, 0, -1, 0, 0, 0, 0, 0], [0, 0.1, 0, 0, 0, 0.7, 0, 0, 2]], [0, 0.3]),)
    ),
    "the ends of float64": Property(
        (
            UnsafeRegion(
                box([-ENDS[1], -ENDS[0]], [ENDS[0], ENDS[1]]),
                np.array([[1.0, 0.0], [1e-9, 1e300]]),
                np.array([ENDS[0], -1e-300]),
            ),
        )
    ),
}


def same(one: Property, other: Property) -> bool:
    """Number by number; -0 is 0."""
    return len(one.unsafe) == len(other.unsafe) and all(
        np.array_equal(first, second)
        for a, b in zip(one.unsafe, other.unsafe, strict=True)
        for first, second in (
            (a.box.lower, b.box.lower),
            (a.box.upper, b.box.upper),
            (a.rows, b.rows),
            (a.offsets, b.offsets),
        )
    )


def read_back(folder: Path, prop: Property, num_outputs: int) -> Property:
    path = folder / "p.vnnlib"
    path.write_text(vnnlib_text(prop, num_outputs))
    return read_property(path, prop.unsafe[0].box.lower.shape[1], num_outputs)


def num_outputs_of(prop: Property) -> int:
    columns, inputs = prop.unsafe[0].rows.shape[1], prop.unsafe[0].box.lower.shape[1]
    return columns - inputs if columns > inputs else columns


@pytest.mark.parametrize("name", PROPERTIES)
def test_our_reader_gives_the_property_back(name: str, tmp_path: Path) -> None:
    prop = PROPERTIES[name]
    assert same(read_back(tmp_path, prop, num_outputs_of(prop)), prop)


def test_random_properties_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        network = random_network(rng, (3, 2, 4))
        prop = random_property(rng, network)
        assert same(read_back(tmp_path, prop, network.num_outputs), prop)


def alternatives(
    text: str, num_inputs: int, num_outputs: int
) -> list[list[list[vnnlib.Comparison]]]:
    """Of each assertion its alternatives, by the package, which reads the spelling of 2.0."""
    asserted = re.sub(r"([XY])_([0-9]+)", r"\1[\2]", text[text.index("(assert") :])
    variables = f"(declare-input X real [{num_inputs}]) (declare-output Y real [{num_outputs}])"
    query = vnnlib.parse_query_string(
        f"(vnnlib-version <2.0>)\n(declare-network f {variables})\n{asserted}"
    )
    return [assertion.expr.to_dnf() for assertion in query.assertions]


def is_unsafe(prop: Property, x: list[Fraction], y: list[Fraction]) -> bool:
    """By the definition, in exact numbers."""
    for each in prop.unsafe:
        sides = zip(each.box.lower[0].tolist(), x, each.box.upper[0].tolist(), strict=True)
        inside = all(Fraction(lower) <= value <= Fraction(upper) for lower, value, upper in sides)
        rows = zip(each.rows.tolist(), each.offsets.tolist(), strict=True)
        if inside and all(
            sum(Fraction(w) * v for w, v in zip(row, [*y, *x], strict=False)) + Fraction(c) <= 0
            for row, c in rows
        ):
            return True
    return False


@pytest.mark.parametrize("name", [name for name in PROPERTIES if name not in {"always", "never"}])
def test_the_other_reader_finds_the_same_points(name: str) -> None:
    """Also at bounds as float64 has them, and by 10^-400 beyond: there nothing is rounded."""
    prop, rng = PROPERTIES[name], np.random.default_rng(0)
    num_inputs, num_outputs = prop.unsafe[0].box.lower.shape[1], num_outputs_of(prop)
    assertions = alternatives(vnnlib_text(prop, num_outputs), num_inputs, num_outputs)
    found = []
    for number in range(120):
        of = prop.unsafe[rng.integers(len(prop.unsafe))].box
        corner = np.where(rng.random(num_inputs) < 0.5, of.lower[0], of.upper[0])
        x = [Fraction(value) for value in corner.tolist()]
        if number % 3 == 0:
            x[rng.integers(num_inputs)] += Fraction(int(rng.choice([-1, 1])), 10**400)
        y = [Fraction(value) for value in rng.normal(scale=10, size=num_outputs).tolist()]
        if number % 2:
            y[0] = y[1]  # a tie is unsafe
        values: Point = {f"X_{i}": value for i, value in enumerate(x)}
        values |= {f"Y_{j}": value for j, value in enumerate(y)}
        theirs = all(
            any(all(compared(each, values) for each in choice) for choice in choices)
            for choices in assertions
        )
        assert theirs == is_unsafe(prop, x, y), (x, y)
        found.append(theirs)
    assert name == "the ends of float64" or 0 < sum(found) < len(found)


def test_a_ball_is_one_or_beside_its_bounds() -> None:
    text = vnnlib_text(Property.robustness(box([0.5, 0.0], [1.0, 0.1]), 1, 3), 3)
    assert text.splitlines()[6:] == [
        "(assert (>= X_0 0.5))",
        "(assert (<= X_0 1.0))",
        "(assert (>= X_1 0.0))",
        "(assert (<= X_1 0.1000000000000000055511151231257827021181583404541015625))",
        "(assert (or",
        "  (and (<= Y_1 Y_0))",
        "  (and (<= Y_1 Y_2))",
        "))",
    ]


def test_what_vnnlib_cannot_say_is_refused() -> None:
    prop = PROPERTIES["one ball"]
    with pytest.raises(CertiflowError, match="a property of valid rows only cannot be written"):
        vnnlib_text(replace(prop, domain=Domain((6,))), 4)
    with pytest.raises(CertiflowError, match=r"without a region .* \(X_0 is empty\)"):
        vnnlib_text(Property((), contradiction="X_0 is empty"), 4)
    with pytest.raises(CertiflowError, match="the number inf cannot be written"):
        vnnlib_text(Property((region([[1, 0, 0]], [0], box([0], [np.inf])),)), 3)
