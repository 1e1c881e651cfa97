"""Relations between a table's features, which every valid row satisfies.

    length_hostname <= length_url
    3 * nb_www + 4 * nb_com <= length_url + 1
    nb_redirection > 0 -> nb_slash > 0
    protocol[udp] == 1 -> tcp_flags == 0

Sums of features times numbers, compared; an arrow says that the right side holds where the left one
does. A category is one of its one-hot columns, `feature[category]`, 0 or 1.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import FloatArray, Mask
from tasks.core.errors import CertiflowError
from tasks.core.properties.box import Box

ARROW = "->"
ROUNDING = 2.0**-50  # of a sum of few terms, times their size: wider than any order of summation
EXACT = 2.0**52  # sums of whole numbers up to here are not rounded at all
INPUT_ROUNDING = 2.0**-24  # a float32 number stands for all that are rounded to it
MOST_FACTOR = 10**9  # by which decimals are made whole
GREATEST = 1e30  # of a number in a relation
MOST_SHOWN = 60  # letters of one that cannot be read

Exact = NDArray[np.object_]  # of fractions


@dataclass(frozen=True, eq=False)
class Comparison:
    """`weights @ x + constant <= 0`, or `< 0` where it is strict; weights of shape (inputs,).

    Of whole numbers it is exact, if its own numbers `are_whole` as they are written. Others are
    float32, which a file's decimals are rounded to: a box counts as excluded only where all numbers
    that its points may stand for break the comparison.
    """

    weights: FloatArray
    constant: float
    strict: bool
    are_whole: bool

    @classmethod
    def of(cls, weights: Exact, constant: Fraction, *, strict: bool) -> Comparison:
        """All multiplied so that decimals are whole: else 0.1 * 3 <= 0.3 fails by rounding."""
        factor = lcm(constant.denominator, *(weight.denominator for weight in weights))
        factor = factor if factor <= MOST_FACTOR else 1
        whole, shift = weights * factor, constant * factor
        are_whole = all(each.denominator == 1 for each in (*whole, shift))
        return cls(whole.astype(np.float64), float(shift), strict, are_whole)

    def after(self, matrix: FloatArray) -> Comparison:
        """As `Relation.after`."""
        return replace(self, weights=self.weights @ matrix)

    def holds(self, points: FloatArray) -> Mask:
        """Of points of shape (n, inputs), without tolerance."""
        values = points @ self.weights + self.constant
        return values < 0 if self.strict else values <= 0

    def is_excluded(self, boxes: Box) -> Mask:
        """Whether it holds nowhere in each box: sound."""
        least, error = self._least(boxes)
        return least - error >= 0 if self.strict else least - error > 0

    def is_certain(self, boxes: Box) -> Mask:
        """Whether it holds everywhere in each box: sound."""
        greatest, error = replace(self, weights=-self.weights, constant=-self.constant)._least(
            boxes
        )
        return -greatest + error < 0 if self.strict else -greatest + error <= 0

    def _least(self, boxes: Box) -> tuple[FloatArray, FloatArray]:
        """The least value over each box, and how far off it may be; ends that are whole are."""
        used = self.weights != 0
        weights = self.weights[used]
        ends = np.where(weights > 0, boxes.lower[:, used], boxes.upper[:, used])
        terms, whole = ends * weights, ends == np.round(ends)
        sizes = np.abs(terms)
        size = sizes.sum(axis=1) + abs(self.constant)
        error = ROUNDING * max(used.sum(), 1) * size
        error += INPUT_ROUNDING * np.where(whole, 0, sizes).sum(axis=1)
        is_exact = self.are_whole & whole.all(axis=1) & (size <= EXACT)
        return terms.sum(axis=1) + self.constant, np.where(is_exact, 0, error)


@dataclass(frozen=True, eq=False)
class Relation:
    """Where all `premises` hold, all `conclusions` do; `text` is how it was written."""

    text: str
    premises: tuple[Comparison, ...]
    conclusions: tuple[Comparison, ...]

    def after(self, matrix: FloatArray) -> Relation:
        """The relation for points p of which `matrix @ p` are the inputs: (inputs, parts of p).

        Every column of the matrix has at most a single 1 and zeros, so that no weight is rounded.
        """
        premises = tuple(each.after(matrix) for each in self.premises)
        conclusions = tuple(each.after(matrix) for each in self.conclusions)
        return Relation(self.text, premises, conclusions)

    def holds(self, points: FloatArray) -> Mask:
        """Of points of shape (n, inputs)."""
        return ~_all(self.premises, points) | _all(self.conclusions, points)

    def is_excluded(self, boxes: Box) -> Mask:
        """Whether no point of each box satisfies it: sound; of single whole points complete."""
        applies = np.ones(len(boxes), dtype=bool)
        for premise in self.premises:
            applies &= premise.is_certain(boxes)
        broken = np.zeros(len(boxes), dtype=bool)
        for conclusion in self.conclusions:
            broken |= conclusion.is_excluded(boxes)
        return applies & broken


def _all(comparisons: tuple[Comparison, ...], points: FloatArray) -> Mask:
    held = np.ones(len(points), dtype=bool)
    for comparison in comparisons:
        held &= comparison.holds(points)
    return held


def parse(text: str, columns: Mapping[str, int], num_inputs: int) -> Relation:
    """A relation as it is written; `columns` has the place of every name that it may use.

    Raises:
        CertiflowError: what is not of the grammar, or no name of a feature, quoted.
    """
    parts = text.split(ARROW)
    if len(parts) > 2:
        raise CertiflowError(f"relation '{text}': expected at most one '{ARROW}'")
    reader = _Reader(text, columns, num_inputs)
    try:
        *premise, conclusion = [reader.comparisons(part) for part in parts]
    except (OverflowError, RecursionError, MemoryError) as error:
        raise CertiflowError(
            f"relation '{text[:MOST_SHOWN]}' is too long, or has too great a product of numbers: "
            f"expected numbers up to {GREATEST:g}"
        ) from error
    return Relation(text, premise[0] if premise else (), conclusion)


class _Reader:
    """Python's own grammar of comparisons, of which only sums, products and names are taken."""

    def __init__(self, text: str, columns: Mapping[str, int], num_inputs: int) -> None:
        self.text, self.columns, self.num_inputs = text, columns, num_inputs

    def comparisons(self, part: str) -> tuple[Comparison, ...]:
        try:
            tree = ast.parse(part.strip(), mode="eval").body
        except SyntaxError as error:
            raise self._error(f"'{part.strip()}' cannot be read", "sums compared") from error
        if not isinstance(tree, ast.Compare) or len(tree.ops) != 1:
            raise self._error(f"'{part.strip()}' is no comparison", "one of <, <=, ==, >=, >")
        sides = self._sum(tree.left), self._sum(tree.comparators[0])
        (weights, constant), (others, other) = sides
        below, above = (weights - others, constant - other), (others - weights, other - constant)
        match tree.ops[0]:
            case ast.LtE():
                return (Comparison.of(*below, strict=False),)
            case ast.GtE():
                return (Comparison.of(*above, strict=False),)
            case ast.Lt():
                return (Comparison.of(*below, strict=True),)
            case ast.Gt():
                return (Comparison.of(*above, strict=True),)
            case ast.Eq():
                return (Comparison.of(*below, strict=False), Comparison.of(*above, strict=False))
        raise self._error(f"'{part.strip()}' compares otherwise", "one of <, <=, ==, >=, >")

    def _sum(self, node: ast.expr) -> tuple[Exact, Fraction]:
        """Weights of the inputs, and a constant, as they are written."""
        nothing = np.full(self.num_inputs, Fraction(0))
        match node:
            case ast.Constant(value=int() | float() as value) if _is_number(value):
                return nothing, Fraction(repr(value))  # the decimal, not the float64 next to it
            case ast.Name(id=name):
                return self._feature(name), Fraction(0)
            case ast.Subscript(value=ast.Name(id=name), slice=place):
                return self._feature(f"{name}[{_word(place)}]"), Fraction(0)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                weights, constant = self._sum(operand)
                return -weights, -constant
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as operator, right=right):
                (weights, constant), (others, other) = self._sum(left), self._sum(right)
                sign = 1 if isinstance(operator, ast.Add) else -1
                return weights + sign * others, constant + sign * other
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                (weights, constant), (others, other) = self._sum(left), self._sum(right)
                if weights.any() and others.any():
                    raise self._error(f"'{ast.unparse(node)}' multiplies features", "linear sums")
                return weights * other + others * constant, constant * other
        raise self._error(f"'{ast.unparse(node)}' cannot be read", "features, numbers, +, - and *")

    def _feature(self, name: str) -> Exact:
        if name not in self.columns:
            known = ", ".join(list(self.columns)[:8])
            raise self._error(f"there is no feature '{name}'", f"one of {known}, …")
        weights = np.full(self.num_inputs, Fraction(0))
        weights[self.columns[name]] = Fraction(1)
        return weights

    def _error(self, what: str, expected: str) -> CertiflowError:
        return CertiflowError(f"relation '{self.text}': {what}; expected {expected}")


def _is_number(value: float) -> bool:
    return not isinstance(value, bool) and abs(value) <= GREATEST


def _word(node: ast.expr) -> str:
    """A category as it is written between brackets."""
    return str(node.value) if isinstance(node, ast.Constant) else ast.unparse(node)
