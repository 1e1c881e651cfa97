"""Two networks, one nearly the other: as twins, and through files of VNN-LIB 2.0."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.networks.side_by_side import side_by_side
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.verification.input_files import InputFile
from tasks.core.verification.property_solver import InstanceResult, PropertyJob, PropertySolver
from tasks.core.verification.twin import twin
from tests.soundness import findings
from tests.soundness.cases import (
    Case,
    dense,
    known,
    random_box,
    random_gap,
    random_shape,
    random_sums,
    shifted,
    single,
    spread,
)
from tests.soundness.findings import Finding
from tests.soundness.writing import written_onnx

SECONDS = 0.5
NUM_POINTS = 50


def twins(rng: np.random.Generator) -> Case:
    """The twin network, its regions known of the two networks side by side."""
    networks, case = _drawn(rng)
    box = case.property.unsafe[0].box
    same = np.arange(networks[0].num_inputs)
    points = box.lower + rng.random((NUM_POINTS, len(same))) * (box.upper - box.lower)
    outputs = np.hstack([network(points) for network in networks])
    carried = twin(networks, [same, same], box)
    return Case(carried, case.property, case.reached, samples=(points, outputs))


def two_networks(rng: np.random.Generator, folder: Path) -> list[Finding]:
    """Two models and a question in VNN-LIB 2.0, decided and replayed in onnxruntime."""
    networks, case = _drawn(rng)
    models = {}
    for name, network in zip(("f", "g"), networks, strict=True):
        models[name] = written_onnx(folder, network).rename(folder / f"{name}.onnx")
    prop = folder / "p.vnnlib"
    prop.write_text(_version_two(case.property, networks[0]))
    files = {name: InputFile.of(path) for name, path in models.items()}
    job = PropertyJob(0, files, InputFile.of(prop), SECONDS)
    _solver().prepare(job)
    result = _solver()(job)
    if result.verdict == "unsat":
        return [findings.proof(case, "two_networks", result.margin)]
    if result.verdict == "sat":
        return [_replayed(case, models, result)]
    status = "wrong" if result.verdict == "error" else "undecided"
    return [Finding("two_networks", status, f"{result.verdict}: {result.reason}")]


@lru_cache(maxsize=1)
def _solver() -> PropertySolver:
    return PropertySolver("ladder", 0, {})


def _drawn(rng: np.random.Generator) -> tuple[list[ReluNetwork], Case]:
    """A network and one near it, of float32 weights, and what they reach side by side.

    One region of one or two rows: how far outputs are apart, or anything of both.
    """
    inputs, count, widths = random_shape(rng)
    sums = random_sums(rng, inputs, count)
    network = dense(rng, sums, widths)
    networks = [network, _near(rng, network, sums)]
    same = np.arange(inputs)
    side, box = side_by_side(networks, [same, same]), random_box(rng, inputs)
    rows = single(rng.normal(size=(int(rng.integers(1, 3)), 2 * widths[-1])))
    if rng.random() < 0.75:
        apart = np.hstack([np.eye(widths[-1]), -np.eye(widths[-1])])
        rows = apart[rng.permutation(len(apart))[: len(rows)]] * rng.choice([-1.0, 1.0])
    case = known(side, [UnsafeRegion(box, rows, np.zeros(len(rows)))], sums)
    return networks, shifted(case, random_gap(rng, spread(case)), sums)


def _near(rng: np.random.Generator, network: ReluNetwork, sums: FloatArray) -> ReluNetwork:
    """With weights moved a little or much, some of them to what lies far below the others.

    The difference of two such weights is no float64 number.
    """
    moved = 10.0 ** rng.uniform(-6, 0)
    layers = []
    for place, layer in enumerate(network.layers):
        shape = (len(layer.bias), len(sums)) if place == 0 else layer.weight.shape
        change = rng.normal(size=shape) * moved / np.sqrt(shape[1])
        change = change @ (sums != 0) * np.abs(sums).sum(axis=0) if place == 0 else change
        weight = single(layer.weight + change * (rng.random(layer.weight.shape) < 0.5))
        tiny = single(weight * 1e-12)
        if place > 0:
            weight = np.where(rng.random(weight.shape) < 0.1, tiny, weight)
        layers.append(Affine(weight, single(layer.bias + moved * rng.normal(size=len(layer.bias)))))
    return ReluNetwork(tuple(layers))


def _version_two(prop: Property, network: ReluNetwork) -> str:
    """The one region, the inputs of both networks equal; every number in all its digits."""
    inputs, outputs = network.num_inputs, network.num_outputs
    (region,) = prop.unsafe
    lines = ["(vnnlib-version <2.0>)"]
    for name, like, x, y in (("f", "", "X", "Y"), ("g", "(isomorphic-to f)", "A", "B")):
        lines.append(
            f"(declare-network {name} {like} (declare-input {x} float32 [1,{inputs}]) "
            f"(declare-output {y} float32 [1,{outputs}]))"
        )
    for place, (low, high) in enumerate(zip(region.box.lower[0], region.box.upper[0], strict=True)):
        lines.append(f"(assert (== X[0,{place}] A[0, {place}]))")
        lines.append(
            f"(assert (and (>= X[0,{place}] {_text(low)}) (<= A[0,{place}] {_text(high)})))"
        )
    names = [f"{letter}[0,{place}]" for letter in "YB" for place in range(outputs)]
    for row, offset in zip(region.rows, region.offsets, strict=True):
        terms = " ".join(f"(* {_text(w)} {n})" for w, n in zip(row, names, strict=True) if w)
        lines.append(f"(assert (<= (+ {terms or '0.0'}) {_text(-offset)}))")
    return "\n".join(lines) + "\n"


def _text(value: float) -> str:
    return f"{float(value):.1100f}".rstrip("0") + "0"


def _replayed(case: Case, models: dict[str, Path], result: InstanceResult) -> Finding:
    """Whether both inputs are one point of the box that onnxruntime takes into the region."""
    import onnxruntime

    x, y = (np.array(result.counterexample[name]) for name in ("X", "Y"))
    first, second = np.split(x, 2)
    (region,) = case.property.unsafe
    inside = (first >= region.box.lower[0]) & (first <= region.box.upper[0])
    if not (np.array_equal(first, second) and inside.all()):
        return Finding("two_networks", "wrong", "sat by inputs that are unlike, or outside")
    outputs = [
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(
            None, {"x": first[None].astype(np.float32)}
        )[0][0]
        for model in models.values()
    ]
    if not np.array_equal(np.concatenate(outputs).astype(np.float64), y):
        return Finding("two_networks", "wrong", f"sat, yet onnxruntime gives {outputs}, not {y}")
    if region.excess(y[None])[0] > 0:
        return Finding("two_networks", "wrong", "sat by a point that does not reach the region")
    return Finding("two_networks", "right")
