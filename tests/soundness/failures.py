"""A wrong answer as files that repeat it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import ReluNetwork
from tests.soundness.cases import Case
from tests.soundness.families import READERS, Job
from tests.soundness.findings import Finding
from tests.soundness.float32 import is_single
from tests.soundness.writing import written_onnx, written_vnnlib

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
    written_vnnlib(place, case.property, case.network)
    points = {f"point{number}": [float(v) for v in reached.point]
              for number, reached in enumerate(case.reached)}  # fmt: skip
    np.savez(place / "case.npz", **points, **_arrays(case.network))
    lines = [
        f"region {number}: exact excess {float(reached.excess)!r} at point{number} of case.npz"
        for number, reached in enumerate(case.reached)
    ]
    if any(mask.any() for mask in case.network.linear) or not is_single(case.network):
        return [*lines, "no m.onnx: its weights are no float32 numbers, or units are linear"]
    written_onnx(place, case.network)
    asked = engine if engine in ENGINES else "ladder"
    command = f"certiflow verify --model m.onnx --property p.vnnlib --engine {asked}"
    return [*lines, command if engine in ENGINES else f"{command} (asks not {engine} itself)"]


def _arrays(network: ReluNetwork) -> dict[str, FloatArray]:
    arrays = {}
    for number, layer in enumerate(network.layers):
        arrays |= {f"weight{number}": layer.weight, f"bias{number}": layer.bias}
    masks = {f"linear{number}": mask for number, mask in enumerate(network.linear)}
    return arrays | masks
