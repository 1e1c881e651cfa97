"""Decimal numbers as files of other programs write them."""

from __future__ import annotations

import re

# Python's float() also takes other scripts' digits, underscores, "nan" and "infinity".
NUMERAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def float_of(text: str) -> float:
    """The nearest float64, infinite beyond its range; spaces around are allowed.

    Raises `ValueError` for anything but a decimal in ASCII.
    """
    if not NUMERAL.fullmatch(text.strip()):
        raise ValueError(f"could not convert to a decimal number: '{text.strip()}'")
    return float(text)
