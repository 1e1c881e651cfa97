"""Random formulas mean what exact evaluation and the package `vnnlib` say that they mean.

The package reads VNN-LIB 2.0, where the spelling of formulas differs, and of several networks.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import vnnlib

from tasks.core.properties.query import Interface
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.properties.vnnlib import read_property, read_query
from tests.formulas import (
    FAMILIES,
    Point,
    Tree,
    compared,
    holds,
    random_formula,
    random_points,
    spelled,
    written,
)

NUM_INPUTS, NUM_OUTPUTS = 2, 2
FORMULAS, POINTS = 100, 40
VARIABLES = ("X_0", "X_1", "Y_0", "Y_1")
OF_BOTH = ("X_0", "X_1", "A_0", "A_1", "Y_0", "Y_1", "B_0", "B_1")


@pytest.mark.parametrize("name", FAMILIES)
def test_regions_hold_where_the_formula_holds(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    rng = np.random.default_rng(sorted(FAMILIES).index(name))
    inside = 0
    for _ in range(FORMULAS):
        formula = random_formula(rng, family, depth=3)
        regions = read_regions(tmp_path / "p.vnnlib", ("and", *box_of_inputs(), formula))
        for point in random_points(rng, family, POINTS):
            sides = [point["X_0"], point["X_1"]], [point["Y_0"], point["Y_1"]]
            found = any(region.holds(*sides) for region in regions)
            boxed = all(holds(bound, point, Fraction(0)) for bound in box_of_inputs())
            assert found or not (boxed and holds(formula, point, family.inner)), (formula, point)
            assert not found or (boxed and holds(formula, point, family.outer)), (formula, point)
            inside += found
    assert 0.1 < inside / (FORMULAS * POINTS) < 0.9


def box_of_inputs(names: str = "X") -> list[Tree]:
    return [
        (relation, f"{name}_{i}", bound)
        for name in names
        for i in range(2)
        for relation, bound in ((">=", "-2.0"), ("<=", "2.0"))
    ]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_other_reader_evaluates_the_same(name: str) -> None:
    family = FAMILIES[name]
    rng = np.random.default_rng(sorted(FAMILIES).index(name))
    for _ in range(FORMULAS):
        formula = random_formula(rng, family, depth=3)
        theirs = their_alternatives(version_two([formula]))
        for point in random_points(rng, family, POINTS):
            assert is_theirs(theirs, point) == holds(formula, point, Fraction(0)), (formula, point)


@pytest.mark.parametrize("name", FAMILIES)
def test_both_versions_are_read_alike(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(sorted(FAMILIES).index(name))
    one, two = tmp_path / "one.vnnlib", tmp_path / "two.vnnlib"
    for _ in range(FORMULAS // 2):
        formula = ("and", *box_of_inputs(), random_formula(rng, FAMILIES[name], depth=3))
        one.write_text(version_one(formula))
        two.write_text(version_two([formula]))
        found, other = (read_property(path, NUM_INPUTS, NUM_OUTPUTS) for path in (one, two))
        assert found.sha256 == other.sha256
        assert bool(found.contradiction) == bool(other.contradiction)


EQUALITIES: tuple[tuple[Tree, ...], ...] = (
    (("=", "X_0", "A_0"),),
    (("=", "A_1", "X_1"),),
    (("=", "X_1", "A_0"),),
    (("<=", "X_0", "A_0"), ("<=", "A_0", "X_0")),
    (("=", ("-", "A_1", "X_1"), "0.0"),),
    (("and", ("=", "X_0", "A_1"), ("=", "X_1", "A_1")),),  # of one network only one is merged
    (("=", "X_0", ("+", "A_0", "0.5")),),
)


def test_two_networks_are_read_as_the_other_reader_evaluates_them(tmp_path: Path) -> None:
    """Points at which inputs are equal by chance are many: their values are few."""
    family = replace(FAMILIES["float64 holds every number"], denominator=2, variables=OF_BOTH)
    rng, inside, merged = np.random.default_rng(0), 0, 0
    models = {name: Interface((2,), 2) for name in ("f", "g")}
    path = tmp_path / "p.vnnlib"
    for _ in range(FORMULAS):
        chosen = rng.permutation(len(EQUALITIES))[: int(rng.integers(3))]
        equal = [each for number in chosen for each in EQUALITIES[number]]
        formulas = [*box_of_inputs("XA"), *equal, random_formula(rng, family, depth=2)]
        text = version_two(formulas, "(isomorphic-to f)")
        path.write_text(text)
        query = read_query(path, models)
        places = np.concatenate(query.columns).tolist()
        merged += len(set(places)) < 4
        theirs = their_alternatives(text)
        regions = [ExactRegion.of(region) for region in query.prop.unsafe]
        for point in random_points(rng, family, POINTS):
            inputs, outputs = (
                [point[name] for name in names] for names in (OF_BOTH[:4], OF_BOTH[4:])
            )
            joined = dict(zip(places, inputs, strict=True))
            found = inputs == [joined[place] for place in places] and any(
                region.holds([joined[place] for place in sorted(joined)], outputs)
                for region in regions
            )
            assert found == is_theirs(theirs, point), (text, point)
            inside += found
    assert merged > FORMULAS / 4
    assert inside > FORMULAS


Alternatives = list[list[vnnlib.Comparison]]


def their_alternatives(text: str) -> list[Alternatives]:
    """Of every assertion, as the package has them."""
    return [each.expr.to_dnf() for each in vnnlib.parse_query_string(text).assertions]


def is_theirs(assertions: list[Alternatives], point: Point) -> bool:
    return all(
        any(all(compared(each, point) for each in choice) for choice in alternatives)
        for alternatives in assertions
    )


def version_one(formula: Tree) -> str:
    declarations = "".join(f"(declare-const {name} Real)\n" for name in VARIABLES)
    return f"{declarations}(assert {written(formula)})\n"


def version_two(formulas: Sequence[Tree], like: str = "") -> str:
    """Of one network, or of another one `like` it."""
    networks = "(declare-network f (declare-input X real [2]) (declare-output Y real [2]))\n"
    if like:
        other = networks.replace(" f ", f" g {like} ").replace("X", "A").replace("Y", "B")
        networks += other
    assertions = "".join(f"(assert {spelled(formula)})\n" for formula in formulas)
    return f"(vnnlib-version <2.0>)\n{networks}{assertions}"


@dataclass(frozen=True)
class ExactRegion:
    """A region with its numbers as they are, for `lower <= x <= upper` and `rows`."""

    lower: list[Fraction]
    upper: list[Fraction]
    rows: list[list[Fraction]]

    @classmethod
    def of(cls, region: UnsafeRegion) -> ExactRegion:
        numbered = np.column_stack([region.rows, region.offsets])
        sides = exact(region.box.lower[0]), exact(region.box.upper[0])
        return cls(*sides, [exact(row) for row in numbered])

    def holds(self, inputs: list[Fraction], outputs: list[Fraction]) -> bool:
        terms = [*outputs, *inputs]
        return (
            all(map(operator.le, self.lower, inputs))
            and all(map(operator.le, inputs, self.upper))
            and all(sum(map(operator.mul, row, terms)) + offset <= 0 for *row, offset in self.rows)
        )


def read_regions(path: Path, formula: Tree) -> list[ExactRegion]:
    """The file's regions, none where all alternatives contradict themselves."""
    path.write_text(version_one(formula))
    found = read_property(path, NUM_INPUTS, NUM_OUTPUTS).unsafe
    return [ExactRegion.of(region) for region in found]


def exact(numbers: Iterable[float]) -> list[Fraction]:
    return [Fraction(float(number)) for number in numbers]
