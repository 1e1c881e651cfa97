"""A small model of known truth and VNN-LIB properties of it, which tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx.helper import make_node

from tests.model_files import saved_onnx


def saved_distance(folder: Path) -> Path:
    """Y_0 = |X_0 - X_1| and Y_1 = X_0, exact in float32 where the inputs are short fractions."""
    folder.mkdir(exist_ok=True)
    first = np.array([[1, -1, 1], [-1, 1, 0]], dtype=np.float32)
    second = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    nodes = [
        make_node("MatMul", ["x", "first"], ["sums"], name="sums"),
        make_node("Relu", ["sums"], ["hidden"], name="relu"),
        make_node("MatMul", ["hidden", "second"], ["y"], name="out"),
    ]
    return saved_onnx(folder, nodes, {"first": first, "second": second}, shape=(1, 2))


def saved_property(
    path: Path,
    *assertions: str,
    box: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.0, 1.0)),
    num_outputs: int = 2,
) -> Path:
    """Inputs in `box` whose outputs satisfy every assertion."""
    lines = [f"(declare-const X_{i} Real)" for i in range(len(box))]
    lines += [f"(declare-const Y_{j} Real)" for j in range(num_outputs)]
    for i, (lower, upper) in enumerate(box):
        lines += [f"(assert (>= X_{i} {lower!r}))", f"(assert (<= X_{i} {upper!r}))"]
    lines += [f"(assert {assertion})" for assertion in assertions]
    path.write_text("\n".join(lines) + "\n")
    return path
