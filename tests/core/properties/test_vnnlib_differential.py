"""Random formulas mean what exact evaluation and the package `vnnlib` say that they mean.

The package reads VNN-LIB 2.0, where only the spelling of the same formulas differs.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import prod
from pathlib import Path

import numpy as np
import pytest
import vnnlib

from tasks.core.properties.vnnlib import read_property

NUM_INPUTS, NUM_OUTPUTS = 2, 2
VARIABLES = ("X_0", "X_1", "Y_0", "Y_1")
FORMULAS, POINTS = 100, 40

Tree = str | tuple["Tree", ...]  # "X_0", "0.5", ("+", "X_0", "0.5"), ("<=", …), ("and", …)
Point = dict[str, Fraction]


@dataclass(frozen=True)
class Family:
    """Which numbers formulas have, at which points they are evaluated, and what may differ.

    Where the text holds with `inner` slack in every comparison, the regions must hold; where they
    do, the text must hold with `outer` slack. Points are multiples of 1 / `denominator`.
    """

    numbers: tuple[str, ...]
    denominator: int
    inner: Fraction
    outer: Fraction
    computed: bool = False  # every number is the sum of two
    operators: tuple[str, ...] = ("+", "-", "*")


EIGHTHS = ("0.0", "0.125", "-0.125", "0.5", "1.0", "-1.0", "2.0", "2.5", "-3.75")
TENTHS = ("0.1", "0.2", "0.3", "-0.7", "1.1", "2.0", "-1.3", "0.05")
TINY = Fraction(1, 10**12)
FAMILIES = {
    "float64 holds every number": Family(EIGHTHS, 8, Fraction(0), Fraction(0)),
    "decimals stand alone and in arithmetic": Family((*TENTHS, "0.0"), 20, -TINY, TINY),
    "all decimals are computed": Family(TENTHS, 20, Fraction(0), TINY, computed=True),
    "sums are longer than float64": Family(
        ("10000000000000000.0", "-10000000000000000.0", "1.0", "-1.0", "3.0"),
        2,
        Fraction(0),
        Fraction(1000),
        computed=True,
        operators=("+", "-"),  # a weight of 17 digits is refused
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_regions_hold_where_the_formula_holds(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    rng = np.random.default_rng(sorted(FAMILIES).index(name))
    inside = 0
    for _ in range(FORMULAS):
        formula = random_formula(rng, family, depth=3)
        regions = read_regions(tmp_path / "p.vnnlib", ("and", *box_of_inputs(), formula))
        for point in random_points(rng, family.denominator):
            found = any(point in region for region in regions)
            boxed = all(holds(bound, point, Fraction(0)) for bound in box_of_inputs())
            assert found or not (boxed and holds(formula, point, family.inner)), (formula, point)
            assert not found or (boxed and holds(formula, point, family.outer)), (formula, point)
            inside += found
    assert 0.1 < inside / (FORMULAS * POINTS) < 0.9


@pytest.mark.parametrize("name", FAMILIES)
def test_the_other_reader_evaluates_the_same(name: str) -> None:
    family = FAMILIES[name]
    rng = np.random.default_rng(sorted(FAMILIES).index(name))
    for _ in range(FORMULAS):
        formula = random_formula(rng, family, depth=3)
        (assertion,) = vnnlib.parse_query_string(version_two(formula)).assertions
        alternatives = assertion.expr.to_dnf()
        for point in random_points(rng, family.denominator):
            theirs = any(all(compared(c, point) for c in choice) for choice in alternatives)
            assert theirs == holds(formula, point, Fraction(0)), (formula, point)


def random_formula(rng: np.random.Generator, family: Family, depth: int) -> Tree:
    if depth == 0 or rng.random() < 0.2:
        relation = str(rng.choice(["<=", ">=", "<=", ">=", "="]))
        return (relation, random_term(rng, family, 2), random_term(rng, family, 2))
    parts = [random_formula(rng, family, depth - 1) for _ in range(rng.integers(1, 4))]
    return (str(rng.choice(["and", "or"])), *parts)


def random_term(rng: np.random.Generator, family: Family, depth: int) -> Tree:
    kinds = ("variable", "number", *(family.operators if depth else ()))
    kind = str(rng.choice(kinds))
    if kind == "number":
        return random_number(rng, family)
    if kind in {"+", "-"}:
        terms = [random_term(rng, family, depth - 1) for _ in range(rng.integers(1, 4))]
        return (kind, *terms)
    if kind == "*":
        factors = [random_number(rng, family) for _ in range(rng.integers(1, 3))]
        factors.insert(rng.integers(len(factors) + 1), random_term(rng, family, depth - 1))
        return ("*", *factors)
    return str(rng.choice(VARIABLES))


def random_number(rng: np.random.Generator, family: Family) -> Tree:
    first, second = (str(number) for number in rng.choice(family.numbers, size=2))
    return ("+", first, second) if family.computed else first


def random_points(rng: np.random.Generator, denominator: int) -> list[Point]:
    values = rng.integers(-2 * denominator, 3 * denominator, size=(POINTS, len(VARIABLES)))
    return [
        {
            name: Fraction(int(value), denominator)
            for name, value in zip(VARIABLES, row, strict=True)
        }
        for row in values
    ]


def box_of_inputs() -> list[Tree]:
    return [
        (relation, f"X_{i}", b) for i in range(2) for relation, b in ((">=", "-2"), ("<=", "2"))
    ]


def holds(formula: Tree, point: Point, slack: Fraction) -> bool:
    """Whether the formula is true, when each comparison may be missed by `slack`."""
    kind, *parts = formula
    if kind in {"and", "or"}:
        return (all if kind == "and" else any)(holds(part, point, slack) for part in parts)
    left, right = (value(part, point) for part in parts)
    return {
        "<=": left - right <= slack,
        ">=": right - left <= slack,
        "=": abs(left - right) <= slack,
    }[str(kind)]


def value(term: Tree, point: Point) -> Fraction:
    if isinstance(term, str):
        return point[term] if term in point else Fraction(term)
    kind, *parts = term
    values = [value(part, point) for part in parts]
    if kind == "-" and len(values) == 1:
        return -values[0]
    return reduce({"+": operator.add, "-": operator.sub, "*": operator.mul}[str(kind)], values)


def written(tree: Tree) -> str:
    return tree if isinstance(tree, str) else f"({' '.join(map(written, tree))})"


def version_two(formula: Tree) -> str:
    """An assertion of VNN-LIB 2.0, which writes X[0] for X_0 and == for =."""
    text = re.sub(r"([XY])_([0-9]+)", r"\1[\2]", written(formula)).replace("(= ", "(== ")
    network = "(declare-network f (declare-input X real [2]) (declare-output Y real [2]))"
    return f"(vnnlib-version <2.0>)\n{network}\n(assert {text})\n"


def compared(comparison: vnnlib.Comparison, point: Point) -> bool:
    left, right = (their_value(side, point) for side in (comparison.lhs, comparison.rhs))
    if isinstance(comparison, vnnlib.Equal):
        return left == right
    return left <= right if isinstance(comparison, vnnlib.LessEqual) else left >= right


def their_value(term: vnnlib.ArithExpr, point: Point) -> Fraction:
    match term:
        case vnnlib.Var():
            return point[f"{term.name}_{term.indices[0]}"]
        case vnnlib.Literal():
            return Fraction(term.lexeme)
        case vnnlib.Negate():
            return -their_value(term.expr, point)
        case vnnlib.Minus():
            rest = sum(their_value(part, point) for part in term.rest)
            return their_value(term.head, point) - rest
        case vnnlib.Plus():
            return sum((their_value(part, point) for part in term.args), Fraction(0))
        case vnnlib.Multiply():
            return prod((their_value(part, point) for part in term.args), start=Fraction(1))
    raise AssertionError(term)


@dataclass(frozen=True)
class ExactRegion:
    """A region with its numbers as they are, for `lower <= x <= upper` and `rows`."""

    lower: list[Fraction]
    upper: list[Fraction]
    rows: list[list[Fraction]]

    def __contains__(self, point: Point) -> bool:
        inputs, outputs = [point["X_0"], point["X_1"]], [point["Y_0"], point["Y_1"]]
        terms = [*outputs, *inputs]
        return (
            all(map(operator.le, self.lower, inputs))
            and all(map(operator.le, inputs, self.upper))
            and all(sum(map(operator.mul, row, terms)) + offset <= 0 for *row, offset in self.rows)
        )


def read_regions(path: Path, formula: Tree) -> list[ExactRegion]:
    """The file's regions, none where all alternatives contradict themselves."""
    declarations = "".join(f"(declare-const {name} Real)\n" for name in VARIABLES)
    path.write_text(f"{declarations}(assert {written(formula)})\n")
    found = read_property(path, NUM_INPUTS, NUM_OUTPUTS).unsafe
    return [
        ExactRegion(
            exact(region.box.lower[0]),
            exact(region.box.upper[0]),
            [
                exact([*row, offset])
                for row, offset in zip(region.rows, region.offsets, strict=True)
            ],
        )
        for region in found
    ]


def exact(numbers: Iterable[float]) -> list[Fraction]:
    return [Fraction(float(number)) for number in numbers]
