"""VNN-LIB 2.0 (github.com/VNNLIB/VNNLIB-Standard, 2.1 of April 2026): one network or several.

Read are networks of one input and one output tensor of type `Real` or `float32`, a network that is
`equal-to` another or `isomorphic-to` it, and linear comparisons by <=, >= and == in `and` and `or`.
Numbers are what they are in VNN-LIB 1.0, whatever the type: the nearest float64 ones. Refused by
name: hidden nodes, several tensors, other types, what is strict, and what is not linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from tasks.core.errors import CertiflowError
from tasks.core.properties.declarations import declared_networks, models_of
from tasks.core.properties.formulas import Alternatives, alternatives, conjunction, property_of
from tasks.core.properties.linear_relations import Relation
from tasks.core.properties.numerals import NUMERAL
from tasks.core.properties.query import Interface, Query, Variable
from tasks.core.properties.s_expressions import INDEXED, Form, line_error, parsed

# No way back: what is skipped could be parted in as many ways as 2 to the number of semicolons.
_HEADER = re.compile(r"(?:[^\S\r\n]|[\r\n]|;[^\r\n]*+)*+\(\s*vnnlib-version\b")
_VERSION = re.compile(r"<2\.[0-9]+>")
_INDICES = re.compile(r"\[\s*[0-9]{1,9}\s*(,\s*[0-9]{1,9}\s*)*\]")
_NAMED = re.compile(r"\b[XY]_[0-9]+\b")
_OPERATORS = {word: word for word in ("and", "or", "<=", ">=", "+", "-", "*")} | {"==": "="}
_REFUSED = {
    "<": "strict, and a point on the border would be called unsafe; write <=",
    ">": "strict, and a point on the border would be called unsafe; write >=",
    "!=": "strict; write how far the two are to be apart, with or, <= and >=",
    "=": "VNN-LIB 1.0; write ==",
}


def is_version_two(text: str) -> bool:
    """Whether a file begins with a version, as those of VNN-LIB 1.0 do not."""
    return _HEADER.match(text) is not None


def query_of(text: str, models: Mapping[str, Interface]) -> Query:
    """What a file asks of models, by the names of its networks; a model alone needs no name.

    Inputs of different networks that the file says are equal are one input of the property. Raises
    `CertiflowError`, naming the line where there is one.
    """
    declarations, asserted = _parts(parsed(text, INDEXED))
    networks = declared_networks(declarations)
    places = models_of(networks, models)
    inputs = [network.input for network in networks]
    outputs = [network.output for network in networks]
    names = _Names.of(inputs, outputs)
    formulas = [(names.named(form.items[1], form.line), form.line) for form in asserted]
    with names.as_written():
        common, choices = _read(formulas, names)
        same = _same(common, inputs)
        if 1 + max(same) < len(same):
            formulas = [(_merged(formula, same), line) for formula, line in formulas]
            names = names.merged(same)
            common, choices = _read(formulas, names)
            common = [each for each in common if each.weights or each.constant > 0]
        prop = property_of(common, choices, 1 + max(same), sum(each.size for each in outputs))
    prop = replace(prop, contradiction=names.as_in_file(prop.contradiction))
    columns = (np.array(same[start : start + each.size]) for start, each in _starts(inputs))
    return Query(prop, tuple(columns), places, tuple(inputs), tuple(outputs))


def _parts(forms: list[Form]) -> tuple[list[Form], list[Form]]:
    """The declarations of networks, and the assertions after them, each of one formula."""
    version, *rest = forms
    match version.items:
        case ["vnnlib-version", str() as number] if _VERSION.fullmatch(number):
            pass
        case _:
            shown = " ".join(item for item in version.items[1:] if isinstance(item, str))
            raise line_error(
                version.line, f"version '{shown[:40]}' is not read; expected (vnnlib-version <2.0>)"
            )
    words = [form.items[0] if form.items else "" for form in rest]
    count = next((place for place, word in enumerate(words) if word == "assert"), len(rest))
    for form, word in zip(rest[:count], words, strict=False):
        if word != "declare-network":
            raise line_error(form.line, "unknown command; expected declare-network, then assert")
    for form, word in zip(rest[count:], words[count:], strict=True):
        if word != "assert" or len(form.items) != 2:
            raise line_error(form.line, "expected (assert formula), after all declarations")
    if not count:
        raise line_error(version.line, "no network is declared; expected declare-network after it")
    if count == len(rest):
        raise CertiflowError("the file asserts nothing; expected bounds of all inputs")
    return rest[:count], rest[count:]


def _read(
    formulas: Sequence[tuple[str | Form, int]], names: _Names
) -> tuple[list[Relation], list[Alternatives]]:
    known = set(names.written)
    parts = [alternatives(formula, line, known) for formula, line in formulas]
    return conjunction(parts, formulas[-1][1])


def _same(common: Sequence[Relation], inputs: Sequence[Variable]) -> list[int]:
    """For every input of all networks its place among those that are left: equal ones are one.

    At most one input of each network becomes the same one, so that no weights are added; an
    equality that would need more stays a relation.
    """
    network_of = [number for number, each in enumerate(inputs) for _ in range(each.size)]
    classes = [[place] for place in range(len(network_of))]
    for one, other in _equalities(common):
        if classes[one] is classes[other]:
            continue
        both = classes[one] + classes[other]
        if len({network_of[place] for place in both}) == len(both):
            for place in both:
                classes[place] = both
    first = sorted({min(members) for members in classes})
    places = {place: number for number, place in enumerate(first)}
    return [places[min(members)] for members in classes]


def _equalities(common: Sequence[Relation]) -> Iterator[tuple[int, int]]:
    """Pairs of inputs of which each is at most the other."""
    seen = set[tuple[int, int]]()
    for relation in common:
        if relation.constant or sorted(relation.weights.values()) != [-1.0, 1.0]:
            continue
        greater, lesser = sorted(relation.weights, key=lambda name: relation.weights[name])
        if greater.startswith("X") and lesser.startswith("X"):
            pair = int(lesser[2:]), int(greater[2:])
            seen.add(pair)
            if pair[::-1] in seen:
                yield pair


@dataclass(frozen=True)
class _Names:
    """Elements of tensors, by the names that they have in VNN-LIB 1.0, counted over all networks.

    Attributes:
        tensors: by their names: the letter and the number of the first element, and the tensor.
        written: of each element's name how the file writes it.
    """

    tensors: Mapping[str, tuple[str, int, Variable]]
    written: Mapping[str, str]

    @classmethod
    def of(cls, inputs: Sequence[Variable], outputs: Sequence[Variable]) -> _Names:
        tensors, written = dict[str, tuple[str, int, Variable]](), dict[str, str]()
        for letter, variables in (("X", inputs), ("Y", outputs)):
            for start, variable in _starts(variables):
                tensors[variable.name] = letter, start, variable
                for flat, indices in enumerate(np.ndindex(variable.shape)):
                    shown = f"[{','.join(map(str, indices))}]" if indices else ""
                    written[f"{letter}_{start + flat}"] = variable.name + shown
        return cls(tensors, written)

    def merged(self, same: Sequence[int]) -> _Names:
        """With one name for inputs that are the same: the first one's."""
        written = dict[str, str]()
        for name, shown in self.written.items():
            written.setdefault(_merged_name(name, same), shown)
        return _Names(self.tensors, written)

    def as_in_file(self, message: str) -> str:
        """With the file's own words for elements."""
        return _NAMED.sub(lambda found: self.written.get(found[0], found[0]), message)

    @contextmanager
    def as_written(self) -> Iterator[None]:
        """What is refused in the block is told in the file's own words."""
        try:
            yield
        except CertiflowError as error:
            raise CertiflowError(self.as_in_file(str(error))) from error

    def named(self, formula: str | Form, line: int) -> str | Form:
        """The formula as VNN-LIB 1.0 writes it; raises `CertiflowError` for what 2.0 has not."""
        if isinstance(formula, str) or not formula.items:
            return formula
        operator, *operands = formula.items
        if not isinstance(operator, str) or operator not in _OPERATORS:
            shown = operator if isinstance(operator, str) else "("
            reason = _REFUSED.get(shown, "no operator; expected and, or, <=, >=, ==, +, - or *")
            raise line_error(formula.line, f"'{shown[:40]}' is {reason}")
        items: list[str | Form] = [_OPERATORS[operator]]
        waiting = list(reversed(operands))
        while waiting:
            item = waiting.pop()
            if isinstance(item, Form):
                items.append(self.named(item, formula.line))
                continue
            indices = ""
            if waiting and isinstance(waiting[-1], str) and waiting[-1].startswith("["):
                indices = str(waiting.pop())
            items.append(self._element(item, indices, formula.line))
        return Form(formula.line, items)

    def _element(self, name: str, indices: str, line: int) -> str:
        """A number, or the element of a tensor."""
        if NUMERAL.fullmatch(name) and not indices:
            return name
        shown = f"'{name[:40]}{indices[:40]}'"
        if name not in self.tensors:
            raise line_error(line, f"{shown} is neither a declared tensor's element nor a number")
        letter, start, variable = self.tensors[name]
        sizes = variable.shape
        if indices and not _INDICES.fullmatch(indices):
            raise line_error(line, f"{shown} has no indices; expected such as {name[:40]}[0,1]")
        found = [int(index) for index in indices.strip("[]").split(",") if indices]
        if len(found) != len(sizes) or any(i >= n for i, n in zip(found, sizes, strict=True)):
            raise line_error(line, f"{shown} is not in the shape {list(sizes)} of '{name[:40]}'")
        flat = int(np.ravel_multi_index(found, sizes)) if sizes else 0
        return f"{letter}_{start + flat}"


def _starts(variables: Sequence[Variable]) -> Iterator[tuple[int, Variable]]:
    """Each with the number of its first element, counted over all."""
    return zip(accumulate((each.size for each in variables), initial=0), variables, strict=False)


def _merged(formula: str | Form, same: Sequence[int]) -> str | Form:
    """With one name for inputs that are the same."""
    if isinstance(formula, str):
        return _merged_name(formula, same)
    return Form(formula.line, [_merged(item, same) for item in formula.items])


def _merged_name(name: str, same: Sequence[int]) -> str:
    return f"X_{same[int(name[2:])]}" if name.startswith("X_") else name
