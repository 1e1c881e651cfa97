"""Mends of the product, each with the patch that takes it back: the laboratory must notice.

`python -m tests.soundness --without NAME` applies the patch in every process that answers, and
looks for a wrong answer. A patch is a function of no arguments that changes modules of the product.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def not_mended() -> None:
    """The product has no such mend yet: as it is, it is without it."""


def rounding_errors() -> None:
    """Bounds without what rounding may have added to them."""
    _everywhere("gamma", lambda terms: 0.0)


def _everywhere(name: str, value: Any) -> None:
    """Replaces what every module of the product that is loaded knows by this name."""
    for module in [m for key, m in sys.modules.items() if key.startswith("tasks.")]:
        if hasattr(module, name):
            setattr(module, name, value)


MENDS: dict[str, Callable[[], None]] = {
    "marabou_unsat_is_a_proof": not_mended,
    "constant_rows": not_mended,
    "overflow": not_mended,
    "underflow": not_mended,
    "carried_bounds": not_mended,
    "onnx_attributes": not_mended,
    "keras_types": not_mended,
    "load_check": not_mended,
    "vnnlib_rationals": not_mended,
    "deployed_error": not_mended,
    "rounding_errors": rounding_errors,
}
