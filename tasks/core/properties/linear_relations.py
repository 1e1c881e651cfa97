"""Linear relations of VNN-LIB: read in exact arithmetic, then rounded to float64 soundly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import gcd, inf, isfinite, lcm, nextafter

from tasks.core.errors import CertiflowError
from tasks.core.properties.numerals import NUMERAL
from tasks.core.properties.s_expressions import Form, line_error

MAX_DIGITS = 1100  # of a number in arithmetic, and the greatest exponent: float64 in full has 1,077
MAX_BITS = 10_000  # of a product: a file of factors would take hours to multiply

LEAST_NORMAL = 2.0**-1022


@dataclass(frozen=True, slots=True)
class Relation:
    """`sum(weights * variables) + constant <= 0`; the weight of a single input is 1 or -1."""

    weights: dict[str, float]
    constant: float
    line: int

    @property
    def bounds_input(self) -> bool:
        """Whether it bounds one input and nothing else."""
        return len(self.weights) == 1 and next(iter(self.weights)).startswith("X")


@dataclass(frozen=True, eq=False, slots=True)
class Written:
    """A decimal that stands in the file, or its negative, with the float64 number nearest to it.

    It is not zero. Arithmetic makes a Fraction of it.
    """

    text: str
    nearest: float

    def __neg__(self) -> Written:
        text = self.text[1:] if self.text[0] == "-" else f"-{self.text.removeprefix('+')}"
        return Written(text, -self.nearest)


Exact = int | Fraction
Number = Written | Exact
Term = tuple[dict[str, Number], Number]  # weights of variables, and a constant


def relations(formula: Form, names: set[str]) -> list[Relation]:
    """What `(<= a b)`, `(>= a b)` or `(= a b)` asserts, over the variables `names`.

    A decimal that stands alone as a bound, a weight or a constant is read as the nearest float64
    number, as VNN-COMP's tools read it. What arithmetic makes of decimals is exact, and rounded
    outwards where float64 does not hold it: all points that satisfy the text, so read, satisfy the
    relations. The converse fails only between a computed number and the next float64 one, where
    a point may be called a counterexample. Weights cannot be rounded outwards: computed ones that
    float64 does not hold are made whole by a common factor of the row, and refused where that does
    not help. Raises `CertiflowError` naming the line.
    """
    operator, *operands = formula.items
    line = formula.line
    if operator not in {"<=", ">=", "="}:
        shown = operator if isinstance(operator, str) else "("
        raise line_error(line, f"'{shown}' is not supported; expected <=, >=, =, and, or")
    if len(operands) != 2:
        raise line_error(line, f"'{operator}' compares two terms, found {len(operands)}")
    left, right = operands
    pairs = {"<=": [(left, right)], ">=": [(right, left)], "=": [(left, right), (right, left)]}
    return [_relation(a, b, line, names) for a, b in pairs[operator]]


def _relation(lesser: str | Form, greater: str | Form, line: int, names: set[str]) -> Relation:
    """`lesser <= greater`."""
    variables = [item for item in (lesser, greater) if isinstance(item, str) and item in names]
    if isinstance(lesser, str) and isinstance(greater, str) and variables and lesser != greater:
        relation = _without_arithmetic(lesser, greater, line, names)
    else:
        a, b = (_term(item, line, names) for item in (lesser, greater))
        relation = _rounded(_sum([a, _times(b, -1)]), line)
    if not all(map(isfinite, (*relation.weights.values(), relation.constant))):
        raise _too_large(line)
    return relation


def _without_arithmetic(lesser: str, greater: str, line: int, names: set[str]) -> Relation:
    """The same as exact arithmetic gives, for the form that nearly all relations have."""
    weights, constant = {}, 0.0
    for item, sign in ((lesser, 1.0), (greater, -1.0)):
        if item in names:
            weights[item] = sign
        else:
            constant += sign * float(_numeral(item, line))
    return Relation(weights, constant, line)


def _rounded(term: Term, line: int) -> Relation:
    weights = {name: weight for name, weight in term[0].items() if weight != 0}
    constant = term[1]
    if (factor := _factor(weights)) != 1:
        weights = {name: _product(factor, weight) for name, weight in weights.items()}
        constant = _product(factor, constant)
    for name, weight in weights.items():
        if not _holds(weight):
            raise line_error(
                line,
                f"the weight of {name} is computed, and float64 cannot hold it; write it as one "
                "decimal",
            )
    return Relation(
        {name: _nearest(weight) for name, weight in weights.items()}, _lowered(constant), line
    )


def _factor(weights: dict[str, Number]) -> Exact:
    """A positive number that makes the weights float64 ones; 1 where they are.

    A single input's weight becomes 1 or -1: it is a bound.
    """
    if len(weights) == 1 and next(iter(weights)).startswith("X"):
        return 1 / abs(Fraction(*map(_exact, weights.values())))
    if all(map(_holds, weights.values())):
        return 1
    values = [_exact(weight) for weight in weights.values()]
    return Fraction(
        lcm(*(value.denominator for value in values)), gcd(*(value.numerator for value in values))
    )


def _holds(weight: Number) -> bool:
    """Whether float64 holds the number, or reads it from a decimal that stands in the file."""
    nearest = _nearest(weight)
    if isinstance(weight, Written):
        return LEAST_NORMAL <= abs(nearest) < inf
    return nearest == weight


def _lowered(constant: Number) -> float:
    """The greatest float64 number up to the constant, or the nearest to a decimal of the file.

    A lower constant makes a relation weaker. Infinite beyond float64's range.
    """
    nearest = _nearest(constant)
    if isinstance(constant, Written) or not isfinite(nearest) or nearest <= constant:
        return nearest
    return nextafter(nearest, -inf)


def _nearest(number: Number) -> float:
    """The nearest float64 number, infinite beyond its range."""
    if isinstance(number, Written):
        return number.nearest
    try:
        return float(number)
    except OverflowError:
        return inf if number > 0 else -inf


def _term(item: str | Form, line: int, names: set[str]) -> Term:
    if isinstance(item, str):
        return ({item: 1}, 0) if item in names else ({}, _written(item, line))
    line = item.line
    operator, *operands = item.items or [""]
    if not isinstance(operator, str) or operator not in _ARITHMETIC or not operands:
        shown = operator if isinstance(operator, str) else "("
        raise line_error(line, f"'{shown}' is no linear term; expected +, -, * with terms")
    return _ARITHMETIC[operator]([_term(operand, line, names) for operand in operands], line)


def _written(item: str, line: int) -> Number:
    """A number of the file; zero and short whole ones, of which there are many, as `int`."""
    nearest = float(_numeral(item, line))
    mantissa, _, exponent = item.lower().partition("e")
    if not mantissa.strip("+-.0"):
        return 0
    if len(item) <= 15 and nearest.is_integer() and not exponent:
        return int(nearest)
    if len(item) > MAX_DIGITS or abs(int(exponent or "0")) > MAX_DIGITS:
        raise line_error(
            line,
            f"'{item[:40]}' is too long for arithmetic; expected at most {MAX_DIGITS:,} digits "
            "and no greater exponent",
        )
    return Written(item, nearest)


def _numeral(item: str, line: int) -> str:
    if not NUMERAL.fullmatch(item):
        raise line_error(line, f"'{item}' is neither a declared variable nor a number")
    return item


def _plus(terms: list[Term], line: int) -> Term:
    return _sum(terms)


def _minus(terms: list[Term], line: int) -> Term:
    first, *others = terms
    negated = [_times(term, -1) for term in (others or [first])]
    return _sum([first, *negated]) if others else negated[0]


def _multiplied(terms: list[Term], line: int) -> Term:
    variable = [term for term in terms if term[0]]
    if len(variable) > 1:
        raise line_error(
            line, "a product of variables is not linear; only numbers may multiply one"
        )
    factor: Number = 1
    for weights, constant in terms:
        if not weights:
            factor = _product(factor, constant)
            if not isinstance(factor, Written) and _bits(factor) > MAX_BITS:
                raise _too_large(line)
    return _times(variable[0], factor) if variable else ({}, factor)


_ARITHMETIC: dict[str, Callable[[list[Term], int], Term]] = {
    "+": _plus,
    "-": _minus,
    "*": _multiplied,
}


def _sum(terms: Sequence[Term]) -> Term:
    weights: dict[str, Number] = {}
    for term, _ in terms:
        for name, weight in term.items():
            weights[name] = _added(weights[name], weight) if name in weights else weight
    return weights, reduce(_added, (constant for _, constant in terms))


def _times(term: Term, factor: Number) -> Term:
    weights, constant = term
    return {name: _product(w, factor) for name, w in weights.items()}, _product(constant, factor)


def _added(a: Number, b: Number) -> Number:
    """The sum; what is added to 0 stays the decimal it is."""
    if a == 0:
        return b
    return a if b == 0 else _exact(a) + _exact(b)


def _product(a: Number, b: Number) -> Number:
    """The product; what is multiplied by 1 or -1 stays the decimal it is."""
    for factor, other in ((a, b), (b, a)):
        if factor == 1:
            return other
        if factor == -1:
            return -other
        if factor == 0:
            return 0
    return _exact(a) * _exact(b)


def _exact(number: Number) -> Exact:
    return Fraction(number.text) if isinstance(number, Written) else number


def _bits(number: Exact) -> int:
    return max(number.numerator.bit_length(), number.denominator.bit_length())


def _too_large(line: int) -> CertiflowError:
    return line_error(line, "a number is too large; expected one that float64 can hold")
