"""VNN-LIB 1.0 files, as VNN-COMP writes them, to and from properties of a network.

A file describes the *unsafe* points: inputs X and outputs Y that satisfy every assertion. The
linear relations `<=`, `>=` and `=` may be nested in `and` and `or`. The strict ones are refused: a
closed region would call a point on its border unsafe. What SMT-LIB asks of a solver around the
assertions (`set-logic`, `check-sat`, …) is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from math import isfinite, prod
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from tasks.core.errors import CertiflowError
from tasks.core.files import read_text
from tasks.core.properties.box import Box
from tasks.core.properties.linear_relations import Relation, relations
from tasks.core.properties.s_expressions import Form, line_error, parsed
from tasks.core.properties.specification import Property, UnsafeRegion

MAX_REGIONS = 20_000

_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})")

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


def read_property(path: Path, num_inputs: int, num_outputs: int) -> Property:
    """The property of a network of this size that a VNN-LIB file describes.

    Every alternative of the file becomes one region. Bounds of single inputs make its box;
    alternatives whose box is empty are left out. All other relations become rows. When any of them
    mentions an input, the rows of *all* regions have num_outputs + num_inputs columns and speak of
    `ReluNetwork.with_inputs`; otherwise they have num_outputs. `relations` says how numbers become
    float64: where no region is reached, no point satisfies the file; a point of a region may miss
    a computed bound or constant by less than one step of float64. An alternative without rows is
    unsafe on its whole box and gets a row of zeros with offset -1. Raises `CertiflowError` naming
    the file and the line.

    Where the bounds contradict each other in every alternative, there are no regions.
    """
    try:
        forms = parsed(read_text(path))
        _check_declarations(forms, num_inputs, num_outputs)
        names = {f"X_{i}" for i in range(num_inputs)} | {f"Y_{j}" for j in range(num_outputs)}
        asserted = _assertions(forms)
        parts = [_alternatives(form.items[1], form.line, names) for form in asserted]
        common, choices = _conjunction(parts, asserted[-1].line)
        return _property(common, choices, num_inputs, num_outputs)
    except _EmptyBoxError as error:
        return Property((), contradiction=f"{path}: {error}")
    except CertiflowError as error:
        raise CertiflowError(f"{path}: {error}") from error
    except OSError as error:
        raise CertiflowError(
            f"{path}: {error.strerror}; give the path of a VNN-LIB file"
        ) from error


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
    asked = False
    for form in forms:
        match _as_constant(form.items):
            case ["declare-const", str() as name, "Real"] if found := _VARIABLE.fullmatch(name):
                letter, index = found[1], int(found[2])
                if index in declared[letter]:
                    raise line_error(form.line, f"{name} is declared twice")
                declared[letter].add(index)
            case ["declare-const" | "declare-fun", *_]:
                raise line_error(form.line, "expected (declare-const X_0 Real), with X or Y")
            case ["assert", *_]:
                if asked:
                    raise line_error(form.line, "the file asserts after 'check-sat' or 'exit'")
            case ["check-sat" | "exit"]:
                asked = True
            case ["set-logic" | "set-info" | "get-model", *_]:
                pass
            case ["vnnlib-version" | "declare-network", *_]:
                raise line_error(form.line, "VNN-LIB 2.0 is not read; expected VNN-LIB 1.0")
            case _:
                raise line_error(form.line, "unknown command; expected declare-const or assert")
    _check_sizes(declared, num_inputs, num_outputs)


def _as_constant(items: list[str | Form]) -> list[str | Form]:
    """A declaration of a function without arguments, written as the constant that it is."""
    match items:
        case ["declare-fun", name, Form(items=[]), kind]:
            return ["declare-const", name, kind]
        case _:
            return items


def _check_sizes(declared: dict[str, set[int]], num_inputs: int, num_outputs: int) -> None:
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
    return [relations(formula, names)]


def _conjunction(parts: list[Alternatives], line: int) -> tuple[list[Relation], list[Alternatives]]:
    """The relations that hold in any case, and the choices that are left."""
    common = list(chain.from_iterable(part[0] for part in parts if len(part) == 1))
    choices = [part for part in parts if len(part) > 1]
    count = prod(len(choice) for choice in choices)
    if count > MAX_REGIONS:
        raise line_error(line, f"{count:,} alternatives; at most {MAX_REGIONS:,} can be verified")
    return common, choices


def _property(
    common: list[Relation], choices: list[Alternatives], num_inputs: int, num_outputs: int
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


def _region(box: Box, relations: list[Relation], width: int, num_outputs: int) -> UnsafeRegion:
    rows = np.zeros((max(len(relations), 1), width))
    offsets = np.array([relation.constant for relation in relations] or [-1.0])
    for row, relation in zip(rows, relations, strict=False):
        for name, weight in relation.weights.items():
            row[_index(name) + (num_outputs if name.startswith("X") else 0)] = weight
    return UnsafeRegion(box, rows, offsets)


def _index(name: str) -> int:
    return int(name[2:])
