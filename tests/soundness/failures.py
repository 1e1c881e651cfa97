"""A wrong answer as files that repeat it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from onnx.helper import make_node

from tasks.core.network import ReluNetwork
from tasks.core.specification import FloatArray, Property, UnsafeRegion
from tests.model_files import Constants, saved_onnx
from tests.soundness.cases import Case
from tests.soundness.families import READERS, Job
from tests.soundness.findings import Finding
from tests.soundness.float32 import is_single

ENGINES = {"ladder", "marabou", "bounds"}  # of the command


def write(folder: Path, job: Job, finding: Finding) -> Path:
    """The case's files, and how to ask again, in a folder of its own."""
    place = folder / f"{job.family}_{job.seed}_{finding.engine}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    again = f"Job({job.family!r}, {job.seed}, {job.group!r}).findings(Path('.'))"
    lines = [f"{finding.engine}: {finding.words}", f"again: tests.soundness.families.{again}"]
    if job.family in READERS:
        job.findings(place)
    else:
        lines += _written(place, job.case(), finding.engine)
    (place / "README").write_text("\n".join(lines) + "\n")
    return place


def _written(place: Path, case: Case, engine: str) -> list[str]:
    """Model and property, and the lines of the README about them."""
    (place / "p.vnnlib").write_text(_vnnlib(case.property, case.network))
    points = {f"point{number}": [float(v) for v in reached.point]
              for number, reached in enumerate(case.reached)}  # fmt: skip
    np.savez(place / "case.npz", **points, **_arrays(case.network))
    lines = [
        f"region {number}: exact excess {float(reached.excess)!r} at point{number} of case.npz"
        for number, reached in enumerate(case.reached)
    ]
    if any(mask.any() for mask in case.network.linear) or not is_single(case.network):
        return [*lines, "no m.onnx: its weights are no float32 numbers, or units are linear"]
    _onnx(place, case.network)
    asked = engine if engine in ENGINES else "ladder"
    command = f"certiflow verify --model m.onnx --property p.vnnlib --engine {asked}"
    return [*lines, command if engine in ENGINES else f"{command} (asks not {engine} itself)"]


def _arrays(network: ReluNetwork) -> dict[str, FloatArray]:
    arrays = {}
    for number, layer in enumerate(network.layers):
        arrays |= {f"weight{number}": layer.weight, f"bias{number}": layer.bias}
    masks = {f"linear{number}": mask for number, mask in enumerate(network.linear)}
    return arrays | masks


def _onnx(place: Path, network: ReluNetwork) -> None:
    constants: Constants = {}
    nodes, value = [], "x"
    for number, layer in enumerate(network.layers):
        last = number == len(network.layers) - 1
        constants |= {
            f"w{number}": layer.weight.astype(np.float32),
            f"b{number}": layer.bias.astype(np.float32),
        }
        after = "y" if last else f"z{number}"
        nodes.append(make_node("Gemm", [value, f"w{number}", f"b{number}"], [after], transB=1))
        if not last:
            value = f"h{number}"
            nodes.append(make_node("Relu", [after], [value]))
    saved_onnx(place, nodes, constants, shape=(1, network.num_inputs)).rename(place / "m.onnx")


def _vnnlib(prop: Property, network: ReluNetwork) -> str:
    """The property, its numbers in the shortest form that reads as the same float64."""
    inputs = [f"X_{i}" for i in range(network.num_inputs)]
    outputs = [f"Y_{j}" for j in range(network.num_outputs)]
    lines = [f"(declare-const {name} Real)" for name in (*inputs, *outputs)]
    regions = [_region(region, inputs, outputs) for region in prop.unsafe]
    lines.append(f"(assert (or {' '.join(regions)}))")
    return "\n".join(lines) + "\n"


def _region(region: UnsafeRegion, inputs: list[str], outputs: list[str]) -> str:
    parts = []
    bounds = zip(inputs, region.box.lower[0].tolist(), region.box.upper[0].tolist(), strict=True)
    for name, lower, upper in bounds:
        parts.append(f"(>= {name} {lower!r}) (<= {name} {upper!r})")
    names = [*outputs, *inputs][: region.rows.shape[1]]
    for row, offset in zip(region.rows.tolist(), region.offsets.tolist(), strict=True):
        products = [f"(* {w!r} {name})" for w, name in zip(row, names, strict=True) if w]
        parts.append(f"(<= (+ {' '.join([*products, repr(offset)])}) 0)")
    return f"(and {' '.join(parts)})"
