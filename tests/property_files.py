"""A small model of known truth and VNN-LIB properties of it, which tests share."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx.helper import make_node

from tasks.core.attacks.falsification import descend
from tasks.core.models import loading
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
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


def saved_hard_question(folder: Path) -> None:
    """`hard/model.onnx`, deep and random, and `hard/safe.vnnlib`, which nothing settles soon.

    The region lies a fiftieth of the output's spread below the least value that descent finds: no
    point that is easily found reaches it, and no bound excludes it without very many splits.
    """
    place = folder / "hard"
    place.mkdir()
    generator, widths = np.random.default_rng(9), (20, 40, 40, 40, 1)
    constants: dict[str, NDArray[np.float32]] = {}
    nodes, before = [], "x"
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        weight = generator.normal(size=(inputs, outputs)) * np.sqrt(2 / inputs)
        constants[f"w{index}"] = weight.astype(np.float32)
        last = index == len(widths) - 2
        after = "y" if last else f"z{index}"
        nodes.append(make_node("MatMul", [before, f"w{index}"], [after], name=f"layer{index}"))
        if not last:
            before = f"a{index}"
            nodes.append(make_node("Relu", [after], [before], name=f"relu{index}"))
    model = loading.load(saved_onnx(place, nodes, constants, shape=(1, 20)))
    box = Box(np.full((1, 20), -1.0), np.ones((1, 20)))
    region = UnsafeRegion(box, np.eye(1), np.zeros(1))
    starts = generator.uniform(-1, 1, (200, 20))
    spread = float(np.ptp(model.network(starts)))
    _, found = descend(model.network, box, region, starts, num_steps=100)
    threshold = float(found.min()) - spread / 50
    saved_property(
        place / "safe.vnnlib", f"(<= Y_0 {threshold!r})", box=((-1.0, 1.0),) * 20, num_outputs=1
    )


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
