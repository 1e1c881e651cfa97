"""Random formulas of VNN-LIB: what they mean exactly, and what the package `vnnlib` reads."""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import prod

import numpy as np
import vnnlib

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
    variables: tuple[str, ...] = ("X_0", "X_1", "Y_0", "Y_1")


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
    return str(rng.choice(family.variables))


def random_number(rng: np.random.Generator, family: Family) -> Tree:
    first, second = (str(number) for number in rng.choice(family.numbers, size=2))
    return ("+", first, second) if family.computed else first


def random_points(rng: np.random.Generator, family: Family, count: int) -> list[Point]:
    ends, names = (-2 * family.denominator, 3 * family.denominator), family.variables
    return [
        {
            name: Fraction(int(value), family.denominator)
            for name, value in zip(names, row, strict=True)
        }
        for row in rng.integers(*ends, size=(count, len(names)))
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


def spelled(formula: Tree) -> str:
    """In VNN-LIB 2.0, which writes X[0] for X_0 and == for =."""
    return re.sub(r"([A-Z])_([0-9]+)", r"\1[\2]", written(formula)).replace("(= ", "(== ")


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
