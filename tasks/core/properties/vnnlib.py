"""VNN-LIB files, 1.0 as VNN-COMP writes them and 2.0 (`vnnlib_two`), as questions about networks.

A file describes the *unsafe* points: inputs X and outputs Y that satisfy every assertion. The
linear relations `<=`, `>=` and `=` may be nested in `and` and `or`. The strict ones are refused: a
closed region would call a point on its border unsafe. What SMT-LIB asks of a solver around the
assertions (`set-logic`, `check-sat`, …) is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from tasks.core.errors import CertiflowError
from tasks.core.files import read_text
from tasks.core.properties.formulas import alternatives, conjunction, property_of
from tasks.core.properties.query import Assigned, Interface, Query
from tasks.core.properties.s_expressions import Form, line_error, parsed
from tasks.core.properties.specification import Property
from tasks.core.properties.vnnlib_two import is_version_two, query_of

_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,8})")


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
    return read_query(path, {"": Interface((num_inputs,), num_outputs)}).prop


def read_query(path: Path, models: Mapping[str, Interface]) -> Query:
    """What a VNN-LIB file asks of models, by the names of its networks, as `read_property` says.

    A model alone needs no name. Raises `CertiflowError` naming the file and the line.
    """
    try:
        query = _query(read_text(path), models)
    except CertiflowError as error:
        raise CertiflowError(f"{path}: {error}") from error
    except OSError as error:
        raise CertiflowError(
            f"{path}: {error.strerror}; give the path of a VNN-LIB file"
        ) from error
    if not query.prop.contradiction:
        return query
    named = Property((), contradiction=f"{path}: {query.prop.contradiction}")
    return replace(query, prop=named)


def format_counterexample(
    inputs: ArrayLike, outputs: ArrayLike, assigned: Sequence[Assigned] = ()
) -> str:
    """An input and its outputs in VNN-COMP's format, without the `sat` that goes before.

    Of a file of VNN-LIB 2.0 its variables, in the format of the standard (chapter 3).
    """
    if assigned:
        return "\n".join(
            "\n".join(
                [
                    f"{each.name} {each.element} [{','.join(map(str, each.shape))}]",
                    *(repr(float(value)) for value in each.values),
                ]
            )
            for each in assigned
        )
    values = [
        f"({letter}_{index} {float(value)!r})"
        for letter, array in (("X", inputs), ("Y", outputs))
        for index, value in enumerate(np.ravel(array))
    ]
    return "(" + "\n ".join(values) + ")"


def _query(text: str, models: Mapping[str, Interface]) -> Query:
    if is_version_two(text):
        return query_of(text, models)
    if len(models) != 1:
        raise CertiflowError(
            f"VNN-LIB 1.0 speaks of one network, and {len(models)} are given; give one, or ask of "
            "several in VNN-LIB 2.0"
        )
    (model,) = models.values()
    return Query.of_one(_property(parsed(text), model), model.num_inputs)


def _property(forms: list[Form], model: Interface) -> Property:
    """Of a file of VNN-LIB 1.0."""
    _check_declarations(forms, model.num_inputs, model.num_outputs)
    names = {f"X_{i}" for i in range(model.num_inputs)}
    names |= {f"Y_{j}" for j in range(model.num_outputs)}
    asserted = _assertions(forms)
    parts = [alternatives(form.items[1], form.line, names) for form in asserted]
    common, choices = conjunction(parts, asserted[-1].line)
    return property_of(common, choices, model.num_inputs, model.num_outputs)


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
                raise line_error(
                    form.line,
                    "VNN-LIB 2.0 begins with its version; expected (vnnlib-version <2.0>) before "
                    "all else",
                )
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
