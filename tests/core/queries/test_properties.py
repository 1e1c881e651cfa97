"""Known truths are found, `sat` is believed on the deployed model only, and nothing is lost."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx.helper import make_node

from tasks.core.arrays import FloatArray
from tasks.core.errors import CertiflowError
from tasks.core.execution.asking import Resources
from tasks.core.execution.verdict_store import VerdictStore
from tasks.core.models import loading
from tasks.core.models.loading import LoadedModel
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.query import Query
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.queries import properties, property_solver
from tasks.core.queries.counterexamples import confirmed, reached
from tasks.core.queries.input_files import InputFile
from tasks.core.queries.properties import Instance, verify_instances
from tasks.core.queries.property_solver import (
    InstanceResult,
    PropertyJob,
    PropertySolver,
)
from tasks.core.search.answer import Answer
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Verdict
from tests.model_files import NNET_LINES, saved_nnet, saved_onnx
from tests.property_files import saved_distance, saved_property

Float32Array = np.ndarray[Any, np.dtype[np.float32]]


RESOURCES = Resources(num_workers=1, memory_limit_bytes=4 * 2**30)


def verify(
    instances: list[Instance], *, store: VerdictStore | None = None, **changes: Any
) -> list[InstanceResult]:
    settings: dict[str, Any] = {
        "engine": "ladder",
        "seed": 0,
        "fresh": False,
    }
    return verify_instances(instances, RESOURCES, store=store, **(settings | changes))


@pytest.mark.parametrize(
    ("assertions", "box", "verdict"),
    [
        (["(>= Y_0 0.9)"], ((0.0, 1.0), (0.0, 1.0)), "sat"),
        (["(>= Y_0 1.0)"], ((0.0, 1.0), (0.0, 1.0)), "sat"),  # at two corners only
        (["(>= Y_0 1.1)"], ((0.0, 1.0), (0.0, 1.0)), "unsat"),
        (["(>= Y_0 0.6)", "(<= Y_1 0.1)"], ((0.0, 0.5), (0.0, 1.0)), "sat"),
        (["(>= Y_0 0.6)", "(<= Y_1 0.1)"], ((0.0, 0.5), (0.0, 0.5)), "unsat"),
        (["(>= Y_0 (+ X_1 0.5))"], ((0.0, 1.0), (0.0, 1.0)), "sat"),  # inputs and outputs
        (["(>= Y_0 (+ X_1 1.5))"], ((0.0, 1.0), (0.0, 1.0)), "unsat"),
        (["(or (>= Y_0 2.0) (>= Y_1 0.75))"], ((0.0, 1.0), (0.0, 1.0)), "sat"),
        (["(>= Y_1 0.1)"], ((0.1, 0.1), (0.0, 1.0)), "sat"),  # 0.1 is no float32 number
    ],
)
def test_known_truth(
    assertions: list[str], box: tuple[tuple[float, float], ...], verdict: str, tmp_path: Path
) -> None:
    model = saved_distance(tmp_path)
    prop = saved_property(tmp_path / "p.vnnlib", *assertions, box=box)
    (result,) = verify([Instance(model, prop, 20)])
    assert (result.verdict, result.stored) == (verdict, False), result.reason
    assert result.decided_by is not None
    assert 0 < result.seconds < 20
    assert result.stage_seconds["read"] > 0
    assert (result.counterexample is not None) == (verdict == "sat")
    if result.counterexample is not None:
        x = np.array(result.counterexample["X"])
        assert (x >= [lower for lower, _ in box]).all()
        assert (x <= [upper for _, upper in box]).all()
        session = onnxruntime.InferenceSession(model)
        y = session.run(None, {"x": x.astype(np.float32)[None]})[0].ravel()
        np.testing.assert_array_equal(y.astype(np.float64), result.counterexample["Y"])


def test_float32_that_never_reaches_the_region_is_near_the_boundary(tmp_path: Path) -> None:
    """In float64 Y_1 = 0.1 exactly; the float32 number nearest to 0.1 is greater."""
    prop = saved_property(tmp_path / "p.vnnlib", "(<= Y_1 0.1)", box=((0.1, 0.1), (0.0, 1.0)))
    (result,) = verify([Instance(saved_distance(tmp_path), prop, 20)])
    assert (result.verdict, result.counterexample) == ("unknown", None)
    assert NEAR_BOUNDARY in result.reason


@dataclass(frozen=True)
class ShiftedRuntime:
    """The identity in float32 times `scale` plus `shift`: not what the float64 network says."""

    shift: float
    scale: float = 1.0
    delay_seconds: float = 0.0
    input_shape: tuple[int, ...] = (1,)

    def logits(self, points: Float32Array) -> Float32Array:
        if len(points) == 1:  # a candidate is replayed
            time.sleep(self.delay_seconds)
        return points * np.float32(self.scale) + np.float32(self.shift)


def identity(shift: float, scale: float = 1.0, delay_seconds: float = 0.0) -> LoadedModel:
    network = ReluNetwork((Affine(np.eye(1), np.zeros(1)),))
    return LoadedModel(network, ShiftedRuntime(shift, scale, delay_seconds))


def at_least(threshold: float) -> Property:
    box = Box(np.zeros((1, 1)), np.ones((1, 1)))
    return Property((UnsafeRegion(box, -np.eye(1), np.array([threshold])),))


def test_deployed_model_has_the_last_word() -> None:
    """Less by one unit in the last place, it never reaches 1."""
    agrees, differs = verify(
        [Instance(identity(0.0, scale), at_least(1.0), 20) for scale in (1.0, 1 - 2.0**-24)]
    )
    assert agrees.verdict == "sat"
    assert (differs.verdict, differs.reason) == ("unknown", NEAR_BOUNDARY)


def test_a_candidate_counts_in_whichever_region_it_reaches() -> None:
    """Not in the one that was left open: there Y would be at least 2."""
    prop = Property((*at_least(2.0).unsafe, *at_least(0.75).unsafe))
    answer = Answer(Verdict.UNKNOWN, DecidedBy.ATTACK, np.array([[0.75]]), region=0)
    asked = property_solver.Asked([identity(0.0)], Query.of_one(prop, 1))
    result = property_solver.believed(asked, answer)
    assert (result.verdict, result.counterexample) == ("sat", {"X": [0.75], "Y": [0.75]})
    short = replace(answer, candidates=np.array([[0.5]]))
    assert property_solver.believed(asked, short).verdict == "unknown"


def test_model_that_differs_from_its_network_is_refused() -> None:
    (result,) = verify([Instance(identity(1e-3), at_least(2.0), 20)])
    assert (result.verdict, result.decided_by) == ("error", None)
    assert "at the input (0.5) its runtime gives 0.500999987" in result.reason


@pytest.mark.parametrize("damage", ["gone", "elsewhere"])
def test_stored_counterexample_that_does_not_replay_is_computed_again(
    damage: str, tmp_path: Path
) -> None:
    instance = Instance(
        saved_distance(tmp_path), saved_property(tmp_path / "p.vnnlib", "(>= Y_0 0.9)"), 20
    )
    with VerdictStore(tmp_path / "v.db") as store:
        job = properties._job(0, instance, InputFile.of)
        key = properties._PropertyQuestion("ladder", 0, {}).key(job)
        (first,) = verify([instance], store=store)
        known = store.get(key)
        assert known is not None
        points = None if damage == "gone" else np.array([0.5, 0.5, np.nan, 1.0, 0.5])
        store.put(key, replace(known, points=points))
        (second,) = verify([instance], store=store)
        (third,) = verify([instance], store=store)
    assert [result.verdict for result in (first, second, third)] == ["sat", "sat", "sat"]
    assert [result.stored for result in (first, second, third)] == [False, False, True]
    assert second.counterexample is not None
    assert abs(np.subtract(*second.counterexample["X"])) >= 0.9


def test_loading_is_not_solving(tmp_path: Path) -> None:
    """TensorFlow alone takes longer to import than the question's limit."""
    import keras  # solver processes import this file, and need none of it

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.save(tmp_path / "m.keras")
    prop = saved_property(tmp_path / "p.vnnlib", "(>= Y_0 1000.0)")
    (result,) = verify([Instance(tmp_path / "m.keras", prop, 0.5)])
    assert (result.verdict, result.decided_by) == ("unsat", DecidedBy.INTERVAL)
    assert result.seconds < 0.5 < result.stage_seconds["read"]
    assert result.deployed


def test_candidate_is_followed_deeper_until_the_deployed_model_agrees() -> None:
    """The deployed model reaches the region in the outermost tenth of the box only."""
    candidate: FloatArray = np.array([[0.76]])
    model, region = identity(-0.15), at_least(0.75).unsafe[0]
    assert reached(model, region, candidate) is None
    found = confirmed(model, region, candidate)
    assert found is not None
    assert found["X"][0] >= 0.9


def test_replay_stays_inside_the_box() -> None:
    """The float32 number nearest to the box's end is outside."""
    box = Box(np.full((1, 1), -0.7), np.full((1, 1), 0.7 - 1.5e-8))
    assert np.float32(box.upper[0, 0]) > box.upper[0, 0]
    region = UnsafeRegion(box, -np.eye(1), np.zeros(1))
    found = reached(identity(0.0), region, box.upper)
    assert found is not None
    assert box.contains([found["X"]]).all()
    assert float(np.float32(found["X"][0])) == found["X"][0]


def test_process_that_overruns_is_a_timeout() -> None:
    started = time.monotonic()
    (result,) = verify([Instance(identity(0.0, delay_seconds=600), at_least(0.5), 1)])
    assert (result.verdict, result.decided_by) == (
        "timeout",
        DecidedBy.ATTACK,
    )  # which found the point
    assert "1 s" in result.reason
    assert time.monotonic() - started < 120  # of the 600 that it would take


def test_bad_rows_are_errors_with_a_reason_and_the_others_go_on(tmp_path: Path) -> None:
    model = saved_distance(tmp_path)
    good = saved_property(tmp_path / "good.vnnlib", "(>= Y_0 1.1)")
    bad = saved_property(tmp_path / "bad.vnnlib", "(>= Y_7 1.1)")
    empty = tmp_path / "empty.onnx"
    empty.write_bytes(b"nothing")
    seen: dict[int, InstanceResult] = {}
    with VerdictStore(tmp_path / "v.db") as store:
        pairs = [(model, bad), (empty, good), (tmp_path / "no.onnx", good), (model, good)]
        results = verify(
            [Instance(network, prop, 20) for network, prop in pairs],
            store=store,
            on_result=seen.__setitem__,
        )
        again = verify([Instance(model, bad, 20)], store=store)
    assert [result.verdict for result in results] == ["error", "error", "error", "unsat"]
    for result, said in zip(results, ["Y_7", "empty.onnx", "no.onnx: No such file"], strict=False):
        assert said in result.reason
        assert "\n" not in result.reason
        assert result.decided_by is None
    assert [seen[index] for index in range(4)] == results
    assert not again[0].stored


@pytest.mark.parametrize("name", ["model.onnx", "p.vnnlib"])
def test_a_file_that_changed_since_it_was_asked_about_has_no_verdict(
    name: str, tmp_path: Path
) -> None:
    model = saved_distance(tmp_path)
    prop = saved_property(tmp_path / "p.vnnlib", "(>= Y_0 1.1)")
    job = PropertyJob(0, InputFile.of(model), InputFile.of(prop), 20)
    with (tmp_path / name).open("a") as file:
        file.write("\n")
    solver = PropertySolver("ladder", 0, {})
    solver.prepare(job)
    assert solver(job).verdict == "error"
    assert f"{tmp_path / name}: changed since" in solver(job).reason


def test_a_file_that_changes_while_it_is_read_has_no_verdict(tmp_path: Path) -> None:
    model = saved_distance(tmp_path)
    changed = pytest.raises(CertiflowError, match="changed since")
    with changed, InputFile.of(model).opened(None) as path:
        path.write_bytes(path.read_bytes() + b"\n")


def test_nnet_file_in_its_physical_units(tmp_path: Path) -> None:
    model = saved_nnet(tmp_path, NNET_LINES)
    prop = saved_property(
        tmp_path / "p.vnnlib", "(>= Y_0 -1e6)", box=((0.0, 10.0), (-1.0, 1.0)), num_outputs=1
    )
    (result,) = verify([Instance(model, prop, 20)])
    assert result.verdict == "sat", result.reason


def test_probabilities_are_compared_by_their_logits(tmp_path: Path) -> None:
    """Of a softmax only which output is greater; the counterexample's are the file's own."""
    nodes = [make_node("MatMul", ["x", "a"], ["z"]), make_node("Softmax", ["z"], ["y"])]
    model = saved_onnx(tmp_path, nodes, {"a": np.eye(2, dtype=np.float32)}, shape=(1, 2))
    asked = {
        "sat": ("(<= Y_0 Y_1)", ((0.0, 1.0), (0.0, 1.0))),
        "unsat": ("(<= Y_0 Y_1)", ((0.6, 1.0), (0.0, 0.5))),
        "unsat, of probabilities": ("(>= Y_0 0.9)", ((0.0, 1.0), (0.0, 1.0))),
        "sat, of probabilities": ("(>= Y_0 0.7)", ((0.0, 1.0), (0.0, 1.0))),
    }
    found = verify(
        [
            Instance(model, saved_property(tmp_path / f"{name}.vnnlib", formula, box=box), 10)
            for name, (formula, box) in asked.items()
        ]
    )
    assert [result.verdict for result in found] == [name.split(",")[0] for name in asked]
    assert found[0].counterexample is not None
    x, y = (np.array(found[0].counterexample[name], dtype=np.float32) for name in "XY")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(y, session.run(None, {"x": x[None]})[0][0], rtol=1e-6)
    assert y[0] <= y[1]
    assert found[1].deployed
    assert not found[2].deployed  # how a float32 softmax rounds is nowhere promised


@pytest.mark.parametrize(
    ("ending", "logits"),
    [
        ("Softmax", (0.0, -200.0, -210.0)),
        ("Softmax", (300.0, 1e-5, 0.0)),
        ("LogSoftmax", (300.0, 1e-5, 0.0)),
    ],
)
def test_of_two_small_probabilities_nothing_is_said_of_the_deployed_model(
    ending: str, logits: tuple[float, ...], tmp_path: Path
) -> None:
    """In float32 both are 0, or as near to the greatest, whatever their logits are."""
    nodes = [
        make_node("MatMul", ["x", "w"], ["a"]),
        make_node("Add", ["a", "b"], ["z"]),
        make_node(ending, ["z"], ["y"]),
    ]
    weight = np.array([[0, 1, 1], [0, 0, 0]], dtype=np.float32)
    constants = {"w": weight, "b": np.array(logits, dtype=np.float32)}
    model = saved_onnx(tmp_path, nodes, constants, shape=(1, 2))
    given = {"num_outputs": 3, "box": ((0.0, 1.0), (0.0, 1.0))}
    small = saved_property(tmp_path / "small.vnnlib", "(<= Y_1 Y_2)", **given)
    greatest = "(or (<= Y_0 Y_1) (<= Y_0 Y_2))"
    label = saved_property(tmp_path / "label.vnnlib", greatest, **given)
    found = verify([Instance(model, prop, 10) for prop in (small, label)])
    assert [result.verdict for result in found] == ["unsat", "unsat"]
    assert [result.deployed for result in found] == [False, True]
    point = np.full((1, 2), 0.5, dtype=np.float32)
    (y,) = onnxruntime.InferenceSession(model).run(None, {"x": point})[0]
    assert y[1] <= y[2]
    assert y.argmax() == 0


def test_probabilities_nearer_than_rounding_are_no_counterexample(tmp_path: Path) -> None:
    """In float32 they may be equal, or the other way round, where the logits differ that little."""
    nodes = [make_node("MatMul", ["x", "a"], ["z"]), make_node("Softmax", ["z"], ["y"])]
    eye = {"a": np.eye(2, dtype=np.float32)}
    model = loading.load(saved_onnx(tmp_path, nodes, eye, shape=(1, 2)))
    box = Box(np.zeros((1, 2)), np.ones((1, 2)))
    region = UnsafeRegion(box, np.array([[2.0, -2.0]]), np.zeros(1))  # Y_0 <= Y_1
    assert reached(model, region, np.array([[0.5, 0.5 + 2.0**-21]])) is None
    assert reached(model, region, np.array([[0.5, 0.5 + 2.0**-19]])) is not None


def test_a_logistic_is_no_softmax_of_its_scores() -> None:
    """Its probabilities are those of each score, so that a property speaks of other numbers."""
    network = ReluNetwork((Affine(np.eye(2), np.zeros(2)),))
    endings = ("softmax", "log_softmax", "logistic", "sigmoid", "logits")
    models = [LoadedModel(network, NumpyRuntime(network), ending) for ending in endings]
    assert [model.has_softmax for model in models] == [True, True, False, False, False]


def test_bounds_that_contradict_each_other_are_unsat(tmp_path: Path) -> None:
    """Of any network: no input is asked about, which the reason says."""
    prop = saved_property(tmp_path / "p.vnnlib", "(and (<= Y_0 0) (>= X_0 2))")
    (result,) = verify([Instance(saved_distance(tmp_path), prop, 10)])
    assert (result.verdict, result.decided_by) == ("unsat", None)
    assert "X_0 is to be at least 2.0 and at most" in result.reason


def test_stored_verdicts_are_not_computed_again(tmp_path: Path) -> None:
    model = saved_distance(tmp_path)
    sat = saved_property(tmp_path / "sat.vnnlib", "(>= Y_0 0.9)")
    unsat = saved_property(tmp_path / "unsat.vnnlib", "(>= Y_0 1.1)")
    instances = [Instance(model, sat, 20), Instance(model, unsat, 20)]
    with VerdictStore(tmp_path / "v.db") as store:
        first = verify(instances, store=store)
        second = verify(instances, store=store)
        fresh = verify(instances, store=store, fresh=True)
        after = verify(instances, store=store)
        others = [
            verify(instances, store=store, seed=1)[0],
            verify(instances, store=store, engine="bounds")[0],
            verify([Instance(model, sat, 30)], store=store)[0],
        ]
        saved_property(sat, "(>= Y_0 0.8)")
        changed = verify(instances, store=store)
    assert [result.verdict for result in first] == ["sat", "unsat"]
    for before, known in [*zip(first, second, strict=True), *zip(fresh, after, strict=True)]:
        assert not before.stored
        assert known.stored
        assert (known.verdict, known.seconds) == (before.verdict, before.seconds)
        assert known.counterexample == before.counterexample
        assert known.stage_seconds == before.stage_seconds
    assert not any(result.stored for result in others)
    assert [result.stored for result in changed] == [False, True]


def test_results_are_in_the_order_given_and_marabou_finds_what_is_reached(tmp_path: Path) -> None:
    model = saved_distance(tmp_path)
    limits = [(0.9, 5.0), (1.1, 30.0), (0.8, 10.0), (1.2, 20.0)]
    instances = [
        Instance(model, saved_property(tmp_path / f"{c}.vnnlib", f"(>= Y_0 {c})"), limit)
        for c, limit in limits
    ]
    order: list[int] = []
    results = verify(
        instances, engine="marabou", on_result=lambda index, result: order.append(index)
    )
    assert [result.verdict for result in results] == ["sat", "unsat", "sat", "unsat"]
    found = {result.decided_by for result in results if result.verdict == "sat"}
    proved = {result.decided_by for result in results if result.verdict == "unsat"}
    assert found == {DecidedBy.MARABOU}
    assert DecidedBy.MARABOU not in proved
    assert order == [1, 3, 2, 0]  # longest limit first
