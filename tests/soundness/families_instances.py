"""Models and properties through their files: the whole of `certiflow verify` but its processes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from tasks.core.queries.input_files import InputFile
from tasks.core.queries.property_solver import (
    InstanceResult,
    PropertyJob,
    PropertySolver,
)
from tests.soundness import families_dense, families_edges, findings
from tests.soundness.cases import Case
from tests.soundness.findings import Finding
from tests.soundness.float32 import is_single
from tests.soundness.writing import written_onnx, written_vnnlib

FAMILIES = (
    families_dense.plain,
    families_dense.near_ties,
    families_dense.kinks,
    families_edges.constant_rows,
    families_edges.regions,
    families_edges.cancelling,
)
SECONDS = 0.5


@lru_cache(maxsize=1)
def _solver() -> PropertySolver:
    return PropertySolver("ladder", 0, {})


def instances(rng: np.random.Generator, folder: Path) -> list[Finding]:
    """A case of another family, written, read, decided and replayed in onnxruntime."""
    case = FAMILIES[rng.integers(len(FAMILIES))](rng)
    if not is_single(case.network):
        return [Finding("instances", "undecided", "the weights are no float32 numbers")]
    model = written_onnx(folder, case.network)
    prop = written_vnnlib(folder, case.property, case.network)
    job = PropertyJob(0, InputFile.of(model), InputFile.of(prop), SECONDS)
    _solver().prepare(job)
    result = _solver()(job)
    if result.verdict == "unsat":
        return [findings.proof(case, "instances", None)]
    if result.verdict == "sat":
        return [_replayed(case, model, result)]
    if result.verdict == "error":
        return [Finding("instances", "wrong", f"error: {result.reason}")]
    return [Finding("instances", "undecided", f"{result.verdict}: {result.reason}")]


def _replayed(case: Case, model: Path, result: InstanceResult) -> Finding:
    """Whether X lies in a region's box, and onnxruntime takes it to Y, and Y lies in the region."""
    import onnxruntime

    x, y = (np.array(result.counterexample[name]) for name in ("X", "Y"))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"x": x[None].astype(np.float32)})[0][0]
    if not np.array_equal(outputs.astype(np.float64), y):
        return Finding("instances", "wrong", f"sat, yet onnxruntime gives {outputs}, not {y}")
    for region in case.property.unsafe:
        values = np.concatenate([y, x])[None, : region.rows.shape[1]]
        inside = (x >= region.box.lower[0]) & (x <= region.box.upper[0])
        if inside.all() and region.excess(values)[0] <= 0:
            return Finding("instances", "right")
    return Finding("instances", "wrong", "sat by a point that reaches no region")
