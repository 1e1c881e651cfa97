"""Properties written as VNN-LIB 1.0, in the form of VNN-COMP's files."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from math import isfinite

from tasks.core.errors import CertiflowError
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion

_HEADING = (
    "; unsafe inputs and outputs; every number is the float64 number itself, in all its digits"
)


def vnnlib_text(prop: Property, num_outputs: int) -> str:
    """The file's text, for a network of this many outputs.

    Every float64 number is written in all the digits of its exact value. So a reader that takes the
    nearest float64 and one that calculates exactly find the same regions, which `read_property`
    gives back. The alternatives of one box stand in one `or` beside its bounds; with several boxes,
    each alternative has its own.

    Raises:
        CertiflowError: it asks for nothing, or of valid rows of a table only, which VNN-LIB cannot
            say; or a number is infinite.
    """
    if not prop.unsafe:
        raise CertiflowError(
            f"a property without a region cannot be written as VNN-LIB ({prop.contradiction}); "
            "expected at least one"
        )
    if prop.domain is not None:
        raise CertiflowError(
            "a property of valid rows only cannot be written as VNN-LIB, which has no whole "
            "numbers and no implications; expected one of all points of its boxes: leave out its "
            "domain"
        )
    inputs = [f"X_{i}" for i in range(prop.unsafe[0].box.lower.shape[1])]
    outputs = [f"Y_{j}" for j in range(num_outputs)]
    lines = [_HEADING, *(f"(declare-const {name} Real)" for name in (*inputs, *outputs))]
    regions = [_rows(region, [*outputs, *inputs]) for region in prop.unsafe]
    if len(prop.by_box()) == 1:
        asserted = _bounds(prop.unsafe[0].box, inputs)
    else:
        asserted = []
        regions = [
            _bounds(region.box, inputs) + rows
            for region, rows in zip(prop.unsafe, regions, strict=True)
        ]
    if len(regions) == 1:
        asserted += regions[0]
    else:
        alternatives = "\n".join(f"  (and {' '.join(region)})" for region in regions)
        asserted.append(f"(or\n{alternatives}\n)")
    return "\n".join([*lines, *(f"(assert {each})" for each in asserted)]) + "\n"


def _bounds(box: Box, names: Sequence[str]) -> list[str]:
    sides = zip(names, box.lower[0].tolist(), box.upper[0].tolist(), strict=True)
    return [
        bound
        for name, lower, upper in sides
        for bound in (f"(>= {name} {_decimal(lower)})", f"(<= {name} {_decimal(upper)})")
    ]


def _rows(region: UnsafeRegion, names: Sequence[str]) -> list[str]:
    """Of each row the relation, in the simplest of its forms."""
    return [
        _relation(
            [(weight, name) for weight, name in zip(row, names, strict=False) if weight], offset
        )
        for row, offset in zip(region.rows.tolist(), region.offsets.tolist(), strict=True)
    ]


def _relation(terms: list[tuple[float, str]], offset: float) -> str:
    """`sum of terms + offset <= 0`."""
    match sorted(terms):
        case [(-1.0, greater), (1.0, lesser)] if offset == 0:
            return f"(<= {lesser} {greater})"
        case [(-1.0, name)]:
            return f"(>= {name} {_decimal(offset)})"
    products = [name if w == 1 else f"(* {_decimal(w)} {name})" for w, name in terms]
    total = f"(+ {' '.join(products)})" if len(products) > 1 else "".join(products) or "0.0"
    return f"(<= {total} {_decimal(-offset)})"


def _decimal(value: float) -> str:
    """The exact value, without an exponent."""
    if not isfinite(value):
        raise CertiflowError(
            f"the number {value} cannot be written as VNN-LIB; expected finite ones"
        )
    text = f"{Decimal(value + 0.0):f}"  # never -0
    return text if "." in text else f"{text}.0"
