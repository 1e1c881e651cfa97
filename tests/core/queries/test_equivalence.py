"""Two models are equivalent up to their greatest difference, and no further."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx.helper import make_node

from tasks.core.errors import CertiflowError
from tasks.core.execution.asking import Resources
from tasks.core.execution.verdict_store import VerdictStore
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.networks.side_by_side import side_by_side
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.equivalence import Equivalence
from tasks.core.properties.query import Interface
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.queries.equivalence import EquivalenceResult, equivalences
from tasks.core.verdicts import Verdict
from tests.model_files import saved_onnx
from tests.networks import box, random_network
from tests.oracle import least_excess
from tests.soundness.cases import single, singled
from tests.soundness.writing import written_onnx

UNIT = Box(np.zeros((1, 1)), np.ones((1, 1)))  # all inputs from 0 to 1


def asked(
    models: dict[str, Path],
    *questions: Equivalence,
    store: VerdictStore | None = None,
    **other: Any,
) -> list[EquivalenceResult]:
    settings: dict[str, Any] = {"engine": "ladder", "seed": 0, "fresh": False} | other
    resources = Resources(num_workers=1, memory_limit_bytes=2**31)
    return equivalences(models, questions, 20, resources, store=store, **settings)


def written(folder: Path, **networks: ReluNetwork) -> dict[str, Path]:
    return {
        name: written_onnx(folder, network).rename(folder / f"{name}.onnx")
        for name, network in networks.items()
    }


def shifted(value: float) -> ReluNetwork:
    """y = x + value, z = relu(x)."""
    layers = Affine(np.ones((2, 1)), np.array([8.0, 0.0])), Affine(np.eye(2), np.array([-8.0, 0.0]))
    return ReluNetwork((layers[0], replaced_bias(layers[1], value)))


def replaced_bias(layer: Affine, value: float) -> Affine:
    return Affine(layer.weight, layer.bias + np.array([value, 0.0]))


def test_known_greatest_differences(tmp_path: Path) -> None:
    """By mixed-integer programming: a little more is proved, a little less broken."""
    for seed, widths in enumerate([(3, 8, 2), (4, 6, 6, 3)]):
        generator = np.random.default_rng(seed)
        old = singled(random_network(generator, widths))
        new = ReluNetwork(
            tuple(
                Affine(single(a.weight + 0.01 * generator.normal(size=a.weight.shape)), a.bias)
                for a in old.layers
            )
        )
        models = written(tmp_path, old=old, new=new)
        side = side_by_side([old, new], [np.arange(widths[0])] * 2)
        rows = np.hstack([np.eye(widths[-1]), -np.eye(widths[-1])])
        where = box([0.0] * widths[0], [1.0] * widths[0])
        exact = max(
            -least_excess(side, UnsafeRegion(where, sign * row[None], np.zeros(1)))
            for row in rows
            for sign in (1.0, -1.0)
        )
        proved, broken = asked(
            models, Equivalence(UNIT, exact + 1e-3), Equivalence(UNIT, exact - 1e-3)
        )
        assert proved.verdict is Verdict.ROBUST
        assert proved.moves_less_than is not None
        assert exact - 1e-5 < proved.moves_less_than <= exact + 1e-3
        assert proved.deployed
        assert broken.verdict is Verdict.FALSIFIED
        assert broken.difference is not None
        assert exact - 1e-3 < broken.difference.by < exact + 1e-4
        assert_replayed(models, broken)


def assert_replayed(models: dict[str, Path], result: EquivalenceResult) -> None:
    found = result.difference
    assert found is not None
    x = np.array([found.input], dtype=np.float32)
    assert ((x >= 0) & (x <= 1)).all()
    outputs = [
        onnxruntime.InferenceSession(path).run(None, {"x": x})[0][0] for path in models.values()
    ]
    assert (found.old, found.new) == tuple(tuple(each.tolist()) for each in outputs)
    differences = np.abs(outputs[0].astype(float) - outputs[1])
    assert (found.output, found.by) == (differences.argmax(), differences.max())


def test_a_difference_of_exactly_delta_falsifies_nothing(tmp_path: Path) -> None:
    models = written(tmp_path, old=shifted(0.0), new=shifted(0.5))
    tie, more = asked(models, Equivalence(UNIT, 0.5), Equivalence(UNIT, np.nextafter(0.5, 0)))
    assert tie.verdict is Verdict.UNKNOWN
    assert tie.difference is None
    assert more.verdict is Verdict.FALSIFIED
    assert more.difference is not None
    assert (more.difference.output, more.difference.by) == (0, 0.5)


def test_a_model_is_equivalent_to_itself_by_any_delta(tmp_path: Path) -> None:
    network = singled(random_network(np.random.default_rng(0), (5, 16, 16, 3)))
    models = written(tmp_path, old=network, new=network)
    (same,) = asked(models, Equivalence(UNIT, 1e-6))
    assert same.verdict is Verdict.ROBUST


def test_networks_of_other_layers_are_compared(tmp_path: Path) -> None:
    """|x| of two ReLUs and of one more layer, which adds an eighth."""
    absolute = Affine(np.array([[1.0], [-1.0]]), np.zeros(2))
    flat = ReluNetwork((absolute, Affine(np.ones((1, 2)), np.zeros(1))))
    deep = ReluNetwork(
        (absolute, Affine(np.ones((1, 2)), np.zeros(1)), Affine(np.ones((1, 1)), np.array([0.125])))
    )
    models = written(tmp_path, old=flat, new=deep)
    around = Box(np.array([[-1.0]]), np.array([[1.0]]))
    results = asked(models, Equivalence(around, 0.126), Equivalence(around, 0.124))
    assert [result.verdict for result in results] == [Verdict.ROBUST, Verdict.FALSIFIED]


def test_only_valid_inputs_count(tmp_path: Path) -> None:
    """They differ by 1 at 1/2, and not at whole numbers."""
    flat = ReluNetwork((Affine(np.zeros((1, 1)), np.zeros(1)),))
    hat = ReluNetwork(
        (
            Affine(np.ones((3, 1)), np.array([0.0, -0.5, -1.0])),
            Affine(np.array([[2.0, -4.0, 2.0]]), np.zeros(1)),
        )
    )
    models = written(tmp_path, old=flat, new=hat)
    whole = Domain.of_table([Feature(name="count", kind="integer", upper=1)])
    results = asked(models, Equivalence(UNIT, 0.5, whole), Equivalence(UNIT, 0.5))
    assert [result.verdict for result in results] == [Verdict.ROBUST, Verdict.FALSIFIED]


def test_where_no_input_is_valid_nothing_is_said_of_how_far(tmp_path: Path) -> None:
    """All that is asked of no input holds: a bound on it would be a number without meaning."""
    models = written(tmp_path, old=shifted(0.0), new=shifted(0.5))
    nothing = Domain.of_table([Feature(name="share", upper=1)], ["share > 5"])
    (result,) = asked(models, Equivalence(UNIT, 0.4, nothing))
    assert result.verdict is Verdict.ROBUST
    assert result.moves_less_than is None
    assert result.reason == "there is no valid input"


def test_answers_are_stored_and_replayed(tmp_path: Path) -> None:
    models = written(tmp_path, old=shifted(0.0), new=shifted(0.5))
    questions = [Equivalence(UNIT, 0.6), Equivalence(UNIT, 0.4)]
    with VerdictStore(tmp_path / "verdicts.db") as store:
        first = asked(models, *questions, store=store)
        again = asked(models, *questions, store=store)
        other = asked({"old": models["new"], "new": models["old"]}, *questions, store=store)
    assert [result.stored for result in (*first, *again, *other)] == [False] * 2 + [True] * 2 + [
        False
    ] * 2
    assert [replace(result, stored=False) for result in again] == first


def softmax(folder: Path, name: str, bias: float, *, closed: bool) -> Path:
    """(x, bias) as logits, with a softmax or without."""
    constants = {
        "w": np.array([[1, 0]], dtype=np.float32),
        "b": np.array([0, bias], dtype=np.float32),
    }
    nodes = [make_node("Gemm", ["x", "w", "b"], ["z" if closed else "y"])]
    nodes += [make_node("Softmax", ["z"], ["y"], axis=1)] if closed else []
    return saved_onnx(folder, nodes, constants, shape=(1, 1)).rename(folder / name)


def test_of_classifiers_logits_are_compared(tmp_path: Path) -> None:
    models = {
        "old": softmax(tmp_path, "a.onnx", 0.0, closed=True),
        "new": softmax(tmp_path, "b.onnx", 0.25, closed=True),
    }
    results = asked(models, Equivalence(UNIT, 0.3), Equivalence(UNIT, 0.2))
    assert [result.verdict for result in results] == [Verdict.ROBUST, Verdict.FALSIFIED]
    models["new"] = softmax(tmp_path, "c.onnx", 0.25, closed=False)
    (refused,) = asked(models, Equivalence(UNIT, 0.3))
    assert refused.verdict is Verdict.ERROR
    assert "the models end differently, old with softmax and new with logits" in refused.reason


ONE = Interface((3, 4, 4), 2)


@pytest.mark.parametrize(
    ("other", "shape", "fault"),
    [
        (Interface((3, 4, 4), 3), None, "old gives 2 outputs, new 3: expected as many"),
        (
            Interface((4, 4, 3), 2),
            None,
            r"old takes inputs of shape \(3, 4, 4\), new has \(4, 4, 3\)",
        ),
        (Interface((47,), 2), None, r"new has \(47,\): expected the same"),
        (Interface((48,), 2), (4, 4, 3), r"the data has \(4, 4, 3\): expected the same"),
    ],
)
def test_models_of_another_kind_are_refused(
    other: Interface, shape: tuple[int, ...] | None, fault: str
) -> None:
    question = Equivalence(UNIT, 0.1, shape=shape)
    with pytest.raises(CertiflowError, match=fault):
        question.query({"old": ONE, "new": other})


def test_axes_of_one_and_flat_inputs_are_the_same() -> None:
    for shape in ((1, 3, 4, 4), (48,), (48, 1)):
        query = Equivalence(UNIT, 0.1, shape=shape).query({"old": ONE, "new": Interface(shape, 2)})
        assert query.prop.boxes.lower.shape == (1, 48)


@pytest.mark.parametrize("delta", [0.0, -1.0, np.nan, np.inf])
def test_delta_is_positive(delta: float) -> None:
    with pytest.raises(CertiflowError, match="expected a positive number"):
        Equivalence(UNIT, delta)


def test_a_box_has_an_inside() -> None:
    with pytest.raises(CertiflowError, match="the box is from 1 to 0: expected finite bounds"):
        Equivalence(Box(UNIT.upper, UNIT.lower), 1.0)
