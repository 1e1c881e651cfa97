"""Formulas of VNN-LIB, whose variables are X_0, X_1, … and Y_0, Y_1, …, as a property."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from math import isfinite, prod

import numpy as np

from tasks.core.errors import CertiflowError
from tasks.core.properties.box import Box
from tasks.core.properties.linear_relations import Relation, relations
from tasks.core.properties.s_expressions import Form, line_error
from tasks.core.properties.specification import Property, UnsafeRegion

MAX_REGIONS = 20_000

Alternatives = list[list[Relation]]  # any of the lists, of each all relations


class _EmptyBoxError(CertiflowError):
    """Bounds that no input satisfies."""


@dataclass(frozen=True, eq=False)
class _Bounds:
    """The bounds of every input known so far, infinite where there is none."""

    lower: list[float]
    upper: list[float]

    def tightened(self, relations: Iterable[Relation]) -> _Bounds:
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
    def box(self) -> Box:
        """One box; raises `CertiflowError` where an input is unbounded."""
        for side, bounds in (("lower", self.lower), ("upper", self.upper)):
            for index, bound in enumerate(bounds):
                if not isfinite(bound):
                    raise CertiflowError(f"X_{index} has no {side} bound; assert one")
        return Box(np.array([self.lower]), np.array([self.upper]))


def alternatives(formula: str | Form, line: int, names: set[str]) -> Alternatives:
    """The formula in disjunctive normal form."""
    if isinstance(formula, str) or not formula.items:
        found = formula if isinstance(formula, str) else "()"
        raise line_error(line, f"'{found}' is no formula; expected <=, >=, =, and, or")
    operator, *operands = formula.items
    line = formula.line
    if operator in {"and", "or"}:
        if not operands:
            raise line_error(line, f"'{operator}' needs a formula")
        parts = [alternatives(operand, line, names) for operand in operands]
        if operator == "or":
            return list(chain.from_iterable(parts))
        common, choices = conjunction(parts, line)
        return [common + list(chain.from_iterable(choice)) for choice in product(*choices)]
    return [relations(formula, names)]


def conjunction(parts: list[Alternatives], line: int) -> tuple[list[Relation], list[Alternatives]]:
    """The relations that hold in any case, and the choices that are left."""
    common = list(chain.from_iterable(part[0] for part in parts if len(part) == 1))
    choices = [part for part in parts if len(part) > 1]
    count = prod(len(choice) for choice in choices)
    if count > MAX_REGIONS:
        raise line_error(line, f"{count:,} alternatives; at most {MAX_REGIONS:,} can be verified")
    return common, choices


def property_of(
    common: list[Relation], choices: list[Alternatives], num_inputs: int, num_outputs: int
) -> Property:
    """The points that satisfy what is common and one alternative of every choice.

    Without regions where the bounds contradict each other in all of them. Raises `CertiflowError`
    where an input is unbounded.
    """
    try:
        return Property(tuple(_regions(common, choices, num_inputs, num_outputs)))
    except _EmptyBoxError as error:
        return Property((), contradiction=str(error))


def _regions(
    common: list[Relation], choices: list[Alternatives], num_inputs: int, num_outputs: int
) -> list[UnsafeRegion]:
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
    return regions


def _region(box: Box, relations: list[Relation], width: int, num_outputs: int) -> UnsafeRegion:
    rows = np.zeros((max(len(relations), 1), width))
    offsets = np.array([relation.constant for relation in relations] or [-1.0])
    for row, relation in zip(rows, relations, strict=False):
        for name, weight in relation.weights.items():
            row[_index(name) + (num_outputs if name.startswith("X") else 0)] = weight
    return UnsafeRegion(box, rows, offsets)


def _index(name: str) -> int:
    return int(name[2:])
