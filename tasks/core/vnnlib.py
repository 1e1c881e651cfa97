"""VNN-LIB 1.0 files, as VNN-COMP writes them, to and from properties of a network.

A file describes the *unsafe* points: inputs X and outputs Y that satisfy every assertion. The
linear relations `<=`, `>=` and `=` may be nested in `and` and `or`. The strict ones are refused: a
closed region would call a point on its border unsafe.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from math import isfinite, prod
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from tasks.core.errors import CertiflowError
from tasks.core.s_expressions import Form, line_error, parsed
from tasks.core.specification import LinfBall, Property, UnsafeRegion

MAX_REGIONS = 20_000

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_VARIABLE = re.compile(r"([XY])_(0|[1-9]\d*)")


Term = tuple[dict[str, float], float]  # weights of variables, and a constant


@dataclass(frozen=True, slots=True)
class _Relation:
    """`sum(weights * variables) + constant <= 0`."""

    weights: dict[str, float]
    constant: float
    line: int

    @property
    def bounds_input(self) -> bool:
        """Whether it bounds one input and nothing else."""
        return len(self.weights) == 1 and next(iter(self.weights)).startswith("X")


Alternatives = list[list[_Relation]]  # any of the lists, of each all relations


class _EmptyBoxError(CertiflowError):
    """Bounds that no input satisfies."""


@dataclass(frozen=True, eq=False)
class _Bounds:
    """The bounds of every input known so far, infinite where there is none."""

    lower: list[float]
    upper: list[float]

    def tightened(self, relations: Iterable[_Relation]) -> _Bounds:
        """These bounds and those of `relations`, each of which bounds one input."""
        lower, upper = self.lower.copy(), self.upper.copy()
        for relation in relations:
            ((name, weight),) = relation.weights.items()
            index, bound = _index(name), 0.0 - relation.constant / weight
            if weight > 0:
                upper[index] = min(upper[index], bound)
            else:
                lower[index] = max(lower[index], bound)
            if lower[index] > upper[index]:
                raise _EmptyBoxError(
                    f"line {relation.line}: {name} is to be at least {lower[index]} and at most "
                    f"{upper[index]}; no input is both"
                )
        return _Bounds(lower, upper)

    @cached_property
    def box(self) -> LinfBall:
        """One box; raises `CertiflowError` where an input is unbounded."""
        for side, bounds in (("lower", self.lower), ("upper", self.upper)):
            for index, bound in enumerate(bounds):
                if not isfinite(bound):
                    raise CertiflowError(f"X_{index} has no {side} bound; assert one")
        return LinfBall(np.array([self.lower]), np.array([self.upper]))


def read_property(path: Path, num_inputs: int, num_outputs: int) -> Property:
    """The property of a network of this size that a VNN-LIB file describes.

    Every alternative of the file becomes one region. Bounds of single inputs make its box, where
    decimals are read as the nearest float64 numbers; alternatives whose box is empty are left out.
    All other relations become rows. When any of them mentions an input, the rows of *all* regions
    have num_outputs + num_inputs columns and speak of `ReluNetwork.with_inputs`; otherwise they
    have num_outputs. An alternative without rows is unsafe on its whole box and gets a row of
    zeros with offset -1. Raises `CertiflowError` naming the file and the line.
    """
    try:
        forms = parsed(path.read_text(encoding="utf-8"))
        _check_declarations(forms, num_inputs, num_outputs)
        names = {f"X_{i}" for i in range(num_inputs)} | {f"Y_{j}" for j in range(num_outputs)}
        asserted = _assertions(forms)
        parts = [_alternatives(form.items[1], form.line, names) for form in asserted]
        common, choices = _conjunction(parts, asserted[-1].line)
        return _property(common, choices, num_inputs, num_outputs)
    except CertiflowError as error:
        raise CertiflowError(f"{path}: {error}") from error
    except OSError as error:
        raise CertiflowError(
            f"{path}: {error.strerror}; give the path of a VNN-LIB file"
        ) from error
    except UnicodeDecodeError as error:
        raise CertiflowError(f"{path}: not a text file; give a VNN-LIB file") from error


def format_counterexample(inputs: ArrayLike, outputs: ArrayLike) -> str:
    """An input and its outputs in VNN-COMP's format, without the `sat` that goes before."""
    values = [
        f"({letter}_{index} {float(value)!r})"
        for letter, array in (("X", inputs), ("Y", outputs))
        for index, value in enumerate(np.ravel(array))
    ]
    return "(" + "\n ".join(values) + ")"


def _assertions(forms: list[Form]) -> list[Form]:
    found = [form for form in forms if form.items[0] == "assert"]
    for form in found:
        if len(form.items) != 2:
            raise line_error(form.line, "expected one formula in 'assert'")
    if not found:
        raise CertiflowError("the file asserts nothing; expected bounds of all inputs")
    return found


def _check_declarations(forms: list[Form], num_inputs: int, num_outputs: int) -> None:
    declared: dict[str, set[int]] = {"X": set(), "Y": set()}
    for form in forms:
        match form.items:
            case ["declare-const", str() as name, "Real"] if found := _VARIABLE.fullmatch(name):
                letter, index = found[1], int(found[2])
                if index in declared[letter]:
                    raise line_error(form.line, f"{name} is declared twice")
                declared[letter].add(index)
            case ["declare-const", *_]:
                raise line_error(form.line, "expected (declare-const X_0 Real), with X or Y")
            case ["assert", *_]:
                pass
            case _:
                raise line_error(form.line, "unknown command; expected declare-const or assert")
    for letter, size, what in (("X", num_inputs, "inputs"), ("Y", num_outputs, "outputs")):
        count = len(declared[letter])
        if count != size:
            raise CertiflowError(f"declares {count} {what}, the network has {size}")
        if missing := set(range(size)) - declared[letter]:
            raise CertiflowError(f"{letter}_{min(missing)} is not declared")


def _alternatives(formula: str | Form, line: int, names: set[str]) -> Alternatives:
    """The formula in disjunctive normal form."""
    if isinstance(formula, str) or not formula.items:
        found = formula if isinstance(formula, str) else "()"
        raise line_error(line, f"'{found}' is no formula; expected <=, >=, =, and, or")
    operator, *operands = formula.items
    line = formula.line
    if operator in {"and", "or"}:
        if not operands:
            raise line_error(line, f"'{operator}' needs a formula")
        parts = [_alternatives(operand, line, names) for operand in operands]
        if operator == "or":
            return list(chain.from_iterable(parts))
        common, choices = _conjunction(parts, line)
        return [common + list(chain.from_iterable(choice)) for choice in product(*choices)]
    if operator not in {"<=", ">=", "="}:
        shown = operator if isinstance(operator, str) else "("
        raise line_error(line, f"'{shown}' is not supported; expected <=, >=, =, and, or")
    if len(operands) != 2:
        raise line_error(line, f"'{operator}' compares two terms, found {len(operands)}")
    left, right = (_term(operand, line, names) for operand in operands)
    pairs = {"<=": [(left, right)], ">=": [(right, left)], "=": [(left, right), (right, left)]}
    return [[_relation(_sum([a, _times(b, -1.0)]), line) for a, b in pairs[operator]]]


def _conjunction(
    parts: list[Alternatives], line: int
) -> tuple[list[_Relation], list[Alternatives]]:
    """The relations that hold in any case, and the choices that are left."""
    common = list(chain.from_iterable(part[0] for part in parts if len(part) == 1))
    choices = [part for part in parts if len(part) > 1]
    count = prod(len(choice) for choice in choices)
    if count > MAX_REGIONS:
        raise line_error(line, f"{count:,} alternatives; at most {MAX_REGIONS:,} can be verified")
    return common, choices


def _relation(term: Term, line: int) -> _Relation:
    weights = {name: weight for name, weight in term[0].items() if weight}
    if not all(map(isfinite, (*weights.values(), term[1]))):
        raise line_error(line, "a number is too large; expected one that float64 can hold")
    return _Relation(weights, term[1], line)


def _term(item: str | Form, line: int, names: set[str]) -> Term:
    if isinstance(item, str):
        if item in names:
            return {item: 1.0}, 0.0
        if _NUMBER.fullmatch(item):
            return {}, float(item)
        raise line_error(line, f"'{item}' is neither a declared variable nor a number")
    line = item.line
    operator, *operands = item.items or [""]
    if not isinstance(operator, str) or operator not in _ARITHMETIC or not operands:
        shown = operator if isinstance(operator, str) else "("
        raise line_error(line, f"'{shown}' is no linear term; expected +, -, * with terms")
    return _ARITHMETIC[operator]([_term(operand, line, names) for operand in operands], line)


def _plus(terms: list[Term], line: int) -> Term:
    return _sum(terms)


def _minus(terms: list[Term], line: int) -> Term:
    first, *others = terms
    negated = [_times(term, -1.0) for term in (others or [first])]
    return _sum([first, *negated] if others else negated)


def _multiplied(terms: list[Term], line: int) -> Term:
    variable = [term for term in terms if term[0]]
    if len(variable) > 1:
        raise line_error(
            line, "a product of variables is not linear; only numbers may multiply one"
        )
    factor = prod(constant for weights, constant in terms if not weights)
    return _times(variable[0], factor) if variable else ({}, factor)


_ARITHMETIC: dict[str, Callable[[list[Term], int], Term]] = {
    "+": _plus,
    "-": _minus,
    "*": _multiplied,
}


def _sum(terms: Sequence[Term]) -> Term:
    weights: dict[str, float] = {}
    for term, _ in terms:
        for name, weight in term.items():
            weights[name] = weights.get(name, 0.0) + weight
    return weights, sum(constant for _, constant in terms)


def _times(term: Term, factor: float) -> Term:
    return {name: factor * weight for name, weight in term[0].items()}, factor * term[1]


def _property(
    common: list[_Relation], choices: list[Alternatives], num_inputs: int, num_outputs: int
) -> Property:
    everywhere = _Bounds([-np.inf] * num_inputs, [np.inf] * num_inputs)
    bounds = everywhere.tightened(relation for relation in common if relation.bounds_input)
    rows = [relation for relation in common if not relation.bounds_input]
    mixed = any(
        name.startswith("X")
        for relation in chain(rows, *chain.from_iterable(choices))
        if not relation.bounds_input
        for name in relation.weights
    )
    width = num_outputs + (num_inputs if mixed else 0)
    regions, empty = [], None
    for choice in product(*choices):
        relations = list(chain.from_iterable(choice))
        own = [relation for relation in relations if relation.bounds_input]
        others = [relation for relation in relations if not relation.bounds_input]
        try:
            box = (bounds.tightened(own) if own else bounds).box
        except _EmptyBoxError as error:
            empty = error
            continue
        regions.append(_region(box, rows + others, width, num_outputs))
    if empty and not regions:
        raise empty
    return Property(tuple(regions))


def _region(
    box: LinfBall, relations: list[_Relation], width: int, num_outputs: int
) -> UnsafeRegion:
    rows = np.zeros((max(len(relations), 1), width))
    offsets = np.array([relation.constant for relation in relations] or [-1.0])
    for row, relation in zip(rows, relations, strict=False):
        for name, weight in relation.weights.items():
            row[_index(name) + (num_outputs if name.startswith("X") else 0)] = weight
    return UnsafeRegion(box, rows, offsets)


def _index(name: str) -> int:
    return int(name[2:])
