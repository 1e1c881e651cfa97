"""Two networks, one nearly the other: as twins, and through files of VNN-LIB 2.0."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from tasks.core.arrays import FloatArray, IntArray
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.networks.side_by_side import side_by_side
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.queries.changes import plain
from tasks.core.queries.input_files import InputFile
from tasks.core.queries.property_solver import InstanceResult, PropertyJob, PropertySolver
from tasks.core.queries.twin import twin
from tests.networks import random_network
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
    singled,
    spread,
)
from tests.soundness.exact import Plane, least_excess
from tests.soundness.findings import Finding
from tests.soundness.writing import written_onnx

SECONDS = 0.5
NUM_POINTS = 50


@dataclass(frozen=True, eq=False)
class _Two:
    """Two networks, the places of their inputs, and one region with what they reach side by side.

    `relations` are the rows on inputs, in VNN-LIB 2.0.
    """

    networks: list[ReluNetwork]
    columns: list[IntArray]
    region: UnsafeRegion
    case: Case
    relations: tuple[str, ...] = ()


def twins(rng: np.random.Generator) -> Case:
    """The twin network, its regions known of the two networks side by side."""
    two = _equal_inputs(rng)
    box = two.region.box
    points = box.lower + rng.random((NUM_POINTS, box.lower.shape[1])) * (box.upper - box.lower)
    outputs = np.hstack([network(points) for network in two.networks])
    form = plain(two.columns, two.case.property)
    carried = twin(two.networks, form.maps, form.boxes)
    return Case(carried, two.case.property, two.case.reached, samples=(points, outputs))


def two_networks(rng: np.random.Generator, folder: Path) -> list[Finding]:
    """Two models and a question in VNN-LIB 2.0, decided and replayed in onnxruntime."""
    two = _equal_inputs(rng) if rng.random() < 0.5 else _related_inputs(rng)
    models = {}
    for name, network in zip(("f", "g"), two.networks, strict=True):
        models[name] = written_onnx(folder, network).rename(folder / f"{name}.onnx")
    prop = folder / "p.vnnlib"
    prop.write_text(_version_two(two))
    files = {name: InputFile.of(path) for name, path in models.items()}
    job = PropertyJob(0, files, InputFile.of(prop), SECONDS)
    _solver().prepare(job)
    result = _solver()(job)
    if result.verdict == "unsat":
        return [findings.proof(two.case, "two_networks", None)]
    if result.verdict == "sat":
        return [_replayed(two, models, result)]
    status = "wrong" if result.verdict == "error" else "undecided"
    return [Finding("two_networks", status, f"{result.verdict}: {result.reason}")]


@lru_cache(maxsize=1)
def _solver() -> PropertySolver:
    return PropertySolver("ladder", 0, {})


def _equal_inputs(rng: np.random.Generator) -> _Two:
    """One region of one or two rows: how far outputs are apart, or anything of both."""
    inputs, count, widths = random_shape(rng)
    sums = random_sums(rng, inputs, count)
    network = dense(rng, sums, widths)
    networks, columns = [network, _near(rng, network, sums)], [np.arange(inputs)] * 2
    side, box = side_by_side(networks, columns), random_box(rng, inputs)
    rows = _rows(rng, widths[-1])
    case = known(side, [UnsafeRegion(box, rows, np.zeros(len(rows)))], sums)
    case = shifted(case, random_gap(rng, spread(case)), sums)
    return _Two(networks, columns, case.property.unsafe[0], case)


def _related_inputs(rng: np.random.Generator) -> _Two:
    """The first inputs alone have any width; the second network's is above, or near, the other."""
    inputs = int(rng.integers(1, 7))
    widths = [*rng.integers(2, 6, size=int(rng.integers(0, 3))).tolist(), int(rng.integers(1, 4))]
    network = singled(random_network(rng, (inputs, *widths)))
    networks = [network, _near(rng, network, np.eye(inputs))]
    columns = [np.arange(inputs), np.append(inputs, np.arange(1, inputs))]
    side, box = side_by_side(networks, columns), random_box(rng, inputs + 1)
    upper = box.lower.copy()
    upper[0, [0, inputs]] = box.upper[0, [0, inputs]]
    box = Box(box.lower, upper)
    apart = np.eye(inputs + 1)[inputs] - np.eye(inputs + 1)[0]
    most = float(single(rng.uniform(0.05, 0.5)))
    related, offsets, relations = (
        (-apart[None], [0.0], ("(>= A[0,0] X[0,0])",))
        if rng.random() < 0.5
        else (
            np.array([apart, -apart]),
            [-most, -most],
            (f"(<= (- A[0,0] X[0,0]) {_text(most)})", f"(<= X[0,0] (+ A[0,0] {_text(most)}))"),
        )
    )
    rows = _rows(rng, widths[-1])
    both = np.vstack(
        [
            np.hstack([rows, np.zeros((len(rows), inputs + 1))]),
            np.hstack([np.zeros((len(related), rows.shape[1])), related]),
        ]
    )
    points = box.lower + rng.random((NUM_POINTS, inputs + 1)) * (box.upper - box.lower)
    reached = (side(points) @ rows.T).max(axis=1)
    shift = -float(rng.choice(reached)) + random_gap(rng, float(np.ptp(reached)) + 1e-3)
    region = UnsafeRegion(box, both, np.array([shift] * len(rows) + offsets))
    steps = tuple(_exact_step(box, place) for place in (0, inputs))
    plane = Plane([Fraction(float(low)) for low in box.lower[0]], steps)
    case = Case(side, Property((region,)), (least_excess(side, region, plane),))
    return _Two(networks, columns, region, case, relations)


def _exact_step(box: Box, place: int) -> list[Fraction]:
    """From the least to the greatest value of one input."""
    step = [Fraction(0)] * box.lower.shape[1]
    step[place] = Fraction(float(box.upper[0, place])) - Fraction(float(box.lower[0, place]))
    return step


def _rows(rng: np.random.Generator, outputs: int) -> FloatArray:
    """One or two, float32."""
    rows = single(rng.normal(size=(int(rng.integers(1, 3)), 2 * outputs)))
    if rng.random() < 0.75:
        apart = np.hstack([np.eye(outputs), -np.eye(outputs)])
        rows = apart[rng.permutation(outputs)[: len(rows)]] * rng.choice([-1.0, 1.0])
    return rows


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


def _version_two(two: _Two) -> str:
    """Inputs of one place are equal; every number in all its digits."""
    inputs, outputs = two.networks[0].num_inputs, two.networks[0].num_outputs
    lines = ["(vnnlib-version <2.0>)"]
    for name, like, x, y in (("f", "", "X", "Y"), ("g", "(isomorphic-to f)", "A", "B")):
        lines.append(
            f"(declare-network {name} {like} (declare-input {x} float32 [1,{inputs}]) "
            f"(declare-output {y} float32 [1,{outputs}]))"
        )
    box = two.region.box
    for name, places in zip("XA", two.columns, strict=True):
        for number, place in enumerate(places.tolist()):
            low, high = _text(box.lower[0, place]), _text(box.upper[0, place])
            lines.append(
                f"(assert (and (>= {name}[0, {number}] {low}) (<= {name}[0,{number}] {high})))"
            )
    shared = np.flatnonzero(two.columns[0] == two.columns[1])
    lines += [f"(assert (== X[0,{place}] A[0, {place}]))" for place in shared]
    names = [f"{letter}[0,{place}]" for letter in "YB" for place in range(outputs)]
    count = len(two.region.rows) - len(two.relations)
    for row, offset in zip(two.region.rows[:count], two.region.offsets, strict=False):
        terms = " ".join(f"(* {_text(w)} {n})" for w, n in zip(row, names, strict=False) if w)
        lines.append(f"(assert (<= (+ {terms or '0.0'}) {_text(-offset)}))")
    lines += [f"(assert {relation})" for relation in two.relations]
    return "\n".join(lines) + "\n"


def _text(value: float) -> str:
    return f"{float(value):.1100f}".rstrip("0") + "0"


def _replayed(two: _Two, models: dict[str, Path], result: InstanceResult) -> Finding:
    """Whether inputs that are related as asked are taken into the region by onnxruntime."""
    import onnxruntime

    x, y = (np.array(result.counterexample[name]) for name in ("X", "Y"))
    outputs, box = [], two.region.box
    joined = np.full(box.lower.shape[1], np.nan)
    for model, places, own in zip(models.values(), two.columns, np.split(x, 2), strict=True):
        if not (np.isnan(joined[places]) | (joined[places] == own)).all():
            return Finding("two_networks", "wrong", "sat by unequal inputs that are to be equal")
        joined[places] = own
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {"x": own[None].astype(np.float32)})[0][0])
    if not ((joined >= box.lower[0]) & (joined <= box.upper[0])).all():
        return Finding("two_networks", "wrong", "sat by inputs outside of the box")
    if not np.array_equal(np.concatenate(outputs).astype(np.float64), y):
        return Finding("two_networks", "wrong", f"sat, yet onnxruntime gives {outputs}, not {y}")
    values = np.concatenate([y, joined])[None, : two.region.rows.shape[1]]
    if two.region.excess(values)[0] > 0:
        return Finding("two_networks", "wrong", "sat by a point that does not reach the region")
    return Finding("two_networks", "right")
