"""What is asked: boxes of inputs, and the regions of outputs that none of their points may reach.

Decimals of a VNN-LIB 1.0 file are exact numbers; one that is no float64 makes its box or region
larger. Read are comparisons of an input with a number and of an output with another or a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .refused import RefusedError, needed

MOST_ALTERNATIVES = 20_000


@dataclass(frozen=True, eq=False)
class Part:
    """A box, (inputs,), and its unsafe regions: in all rows of one, `rows @ y + offsets <= 0`."""

    lower: Any
    upper: Any
    regions: list[tuple[Any, Any]] = field(default_factory=list)


def robustness(lower: Any, upper: Any, label: int, outputs: int) -> Part:
    """A region for each other class, in ascending order: its logit is at least the label's."""
    needed(not (lower > upper).any(), "a box is empty, of which all is true")
    needed(0 <= label < outputs >= 2, f"label {label} of {outputs} outputs is no choice")
    rows = np.eye(outputs)[label] - np.delete(np.eye(outputs), label, axis=0)
    return Part(lower, upper, [(row[None], np.zeros(1)) for row in rows])


def read_property(path: Path, inputs: int, outputs: int) -> list[Part]:
    """A part for each box, the regions in the order of the file; raises `RefusedError`."""
    try:
        forms: list[list[Any]] = [[]]
        for word in re.findall(r";[^\n]*|[()]|[^\s();]+", path.read_text(errors="replace")):
            if word == "(":
                forms.append([])
            elif word[0] != ";":
                last = forms.pop() if word == ")" else word
                forms[-1].append(last)
        (top,) = forms
        needed(all(isinstance(form, list) for form in top), "there are words outside brackets")
        formulas = [form[1:] for form in top if form[0] == "assert"]
        asserted = [_alternatives(formula) for (formula,) in formulas]
        needed(prod(map(len, asserted)) <= MOST_ALTERNATIVES, "there are too many alternatives")
        parts: dict[bytes, Part] = {}
        for choice in product(*asserted):
            one = _alternative([each for some in choice for each in some], inputs, outputs)
            part = parts.setdefault(one.lower.tobytes() + one.upper.tobytes(), one)
            part.regions.extend(one.regions if part is not one else [])
        return list(parts.values())
    except Exception as error:  # of a file that is something else, of any class
        raise RefusedError(f"{path}: cannot be read as VNN-LIB 1.0 ({error!r})") from error


def _alternatives(form: Any) -> list[list[tuple[str, str]]]:
    """Any of the lists, of each every pair (a, b): a <= b."""
    head, *parts = form
    if head == "or":
        return [pairs for part in parts for pairs in _alternatives(part)]
    if head == "and":
        chosen = product(*map(_alternatives, parts))
        return [[pair for pairs in choice for pair in pairs] for choice in chosen]
    one, other = parts
    return {"<=": [[(one, other)]], ">=": [[(other, one)]]}[head]


def _alternative(pairs: list[tuple[str, str]], inputs: int, outputs: int) -> Part:
    """A box and its one region."""
    lower, upper = np.full(inputs, -np.inf), np.full(inputs, np.inf)
    rows, offsets = [], []
    for less, more in pairs:
        if less[0] == "X":
            place = _place(less)
            upper[place] = min(upper[place], -_below(more, -1))
        elif more[0] == "X":
            place = _place(more)
            lower[place] = max(lower[place], _below(less))
        else:
            row, constant = np.zeros(outputs), Fraction()
            for word, sign in ((less, 1), (more, -1)):
                if word[0] == "Y":
                    row[_place(word)] += sign
                else:
                    constant += sign * Fraction(word)
            rows.append(row)
            offsets.append(_below(constant))
    if not rows:  # all of the box is unsafe
        rows, offsets = [np.zeros(outputs)], [-1.0]
    return Part(lower, upper, [(np.array(rows), np.array(offsets))])


@cache
def _place(word: str) -> int:
    needed(re.fullmatch(r"[XY]_(0|[1-9][0-9]*)", word), f"{word} is no variable")
    return int(word[2:])


@cache
def _below(number: str | Fraction, sign: int = 1) -> float:
    """The greatest float64 that is not above a number times a sign."""
    value = sign * Fraction(number)
    near = float(value)
    return near if Fraction(near) <= value else float(np.nextafter(near, -np.inf))
