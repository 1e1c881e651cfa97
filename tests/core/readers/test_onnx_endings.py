"""Closing probabilities and labels of ONNX graphs, as PyTorch and scikit-learn write them.

The graphs are those of skl2onnx 1.20 and of torch.onnx, node for node.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.helper import (
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor_sequence_value_info,
    make_tensor_value_info,
)

from tasks.core.bounds.float32_error import point_error
from tasks.core.errors import CertiflowError
from tasks.core.models.loading import load
from tasks.core.readers.onnx_network import read_onnx
from tests.model_files import Constants, integers, normal, saved_onnx

ML = "ai.onnx.ml"
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
DOUBLE = onnx.TensorProto.DOUBLE
SCALER = make_node(
    "Scaler",
    ["x"],
    ["scaled"],
    domain=ML,
    offset=[1e6, 35.0, 0.0, 0.5],
    scale=[1e-5, 0.1, 1.0, 2.0],
)
HIDDEN = [
    make_node("Cast", ["scaled"], ["cast"], to=FLOAT),
    make_node("MatMul", ["cast", "w0"], ["m0"]),
    make_node("Add", ["m0", "b0"], ["a0"]),
    make_node("Relu", ["a0"], ["h"]),
    make_node("MatMul", ["h", "w1"], ["m1"]),
    make_node("Add", ["m1", "b1"], ["z"]),
]


def weights(outputs: int) -> Constants:
    return {
        "w0": normal(4, 6),
        "b0": normal(1, 6, seed=1),
        "w1": normal(6, outputs, seed=2),
        "b1": normal(1, outputs, seed=3),
    }


def labelled(probabilities: str, classes: int) -> tuple[list[onnx.NodeProto], Constants]:
    """The label of the greatest probability, as skl2onnx takes it."""
    nodes = [
        make_node("ArgMax", [probabilities], ["most"], axis=1),
        make_node("ArrayFeatureExtractor", ["classes", "most"], ["found"], domain=ML),
        make_node("Reshape", ["found", "flat"], ["reshaped"]),
        make_node("Cast", ["reshaped"], ["label"], to=INT64),
    ]
    constants = {"classes": np.arange(classes, dtype=np.int32), "flat": integers(-1)}
    return nodes, constants


def saved(
    folder: Path, nodes: list[onnx.NodeProto], constants: Constants, *, zipmap: bool = False
) -> Path:
    """From `x` to `label` and `probabilities`, with a dynamic batch."""
    graph = make_graph(
        nodes,
        "graph",
        [make_tensor_value_info("x", FLOAT, [None, 4])],
        [
            make_tensor_value_info("label", INT64, [None]),
            make_tensor_sequence_value_info("probabilities", FLOAT, None)
            if zipmap
            else make_tensor_value_info("probabilities", FLOAT, [None, None]),
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    if zipmap:
        pairs = onnx.helper.make_map_type_proto(
            INT64, onnx.helper.make_tensor_type_proto(FLOAT, None)
        )
        kind = onnx.helper.make_sequence_type_proto(pairs)
        graph.output[1].type.CopyFrom(kind)
    opsets = [make_opsetid("", 13), make_opsetid(ML, 1)]
    path = folder / "model.onnx"
    model = make_model(graph, opset_imports=opsets, ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def binary(folder: Path) -> Path:
    """MLPClassifier of two classes: p by a sigmoid, (1 - p, p)."""
    nodes, constants = labelled("probabilities", 2)
    closing = [
        make_node("Sigmoid", ["z"], ["p"]),
        make_node("Sub", ["one", "p"], ["q"]),
        make_node("Concat", ["q", "p"], ["probabilities"], axis=1),
    ]
    constants |= weights(1) | {"one": np.array(1, dtype=np.float32)}
    return saved(folder, [SCALER, *HIDDEN, *closing, *nodes], constants)


def several(folder: Path) -> Path:
    """MLPClassifier of three classes, without a ZipMap."""
    nodes, constants = labelled("probabilities", 3)
    closing = [
        make_node("Softmax", ["z"], ["s"]),
        make_node("Identity", ["s"], ["probabilities"]),
    ]
    return saved(folder, [SCALER, *HIDDEN, *closing, *nodes], constants | weights(3))


def mapped(folder: Path) -> Path:
    """The same with skl2onnx's default, a ZipMap."""
    nodes, constants = labelled("s", 3)
    closing = [
        make_node("Softmax", ["z"], ["s"]),
        make_node("ZipMap", ["s"], ["probabilities"], domain=ML, classlabels_int64s=[0, 1, 2]),
    ]
    model = [SCALER, *HIDDEN, *closing, *nodes]
    return saved(folder, model, constants | weights(3), zipmap=True)


def linear(transform: str, rows: int) -> Callable[[Path], Path]:
    """LogisticRegression: of two classes z and -z, each through a logistic, to a sum of 1."""

    def write(folder: Path) -> Path:
        row = normal(rows, 4, seed=5)
        coefficients = np.stack([-row[0], row[0]]) if transform == "LOGISTIC" else row
        nodes = [
            SCALER,
            make_node(
                "LinearClassifier",
                ["scaled"],
                ["label", "raw"],
                domain=ML,
                classlabels_ints=list(range(rows)),
                coefficients=coefficients.ravel().tolist(),
                intercepts=([-0.5, 0.5] if transform == "LOGISTIC" else [0.1] * rows),
                post_transform=transform,
            ),
            make_node("Normalizer", ["raw"], ["probabilities"], domain=ML, norm="L1"),
        ]
        return saved(folder, nodes, {})

    return write


SCIKIT_LEARN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "binary": (binary, "sigmoid"),
    "several": (several, "softmax"),
    "mapped": (mapped, "softmax"),
    "logistic regression": (linear("LOGISTIC", 2), "logistic"),
    "softmax regression": (linear("SOFTMAX", 3), "softmax"),
}


def raw(count: int) -> Any:
    """Amounts, ages, a score and a share."""
    generator = np.random.default_rng(7)
    return generator.normal([1e6, 35, 0, 0.5], [1e5, 10, 1, 0.5], (count, 4)).astype(np.float32)


@pytest.mark.parametrize("name", SCIKIT_LEARN)
def test_scikit_learns_labels_are_those_of_the_logits(name: str, tmp_path: Path) -> None:
    write, ending = SCIKIT_LEARN[name]
    path, points = write(tmp_path), raw(300)
    model = load(path)
    assert model.ending == ending
    assert model.input_shape == (4,)
    labels = onnxruntime.InferenceSession(path).run(["label"], {"x": points})[0]
    assert len(set(labels)) > 1
    logits = model.runtime.logits(points)
    np.testing.assert_array_equal(logits.argmax(axis=1), labels)
    np.testing.assert_array_equal(model.network(points).argmax(axis=1), labels)
    assert (
        np.abs(logits - model.network(points)) <= point_error(model.network, points.astype(float))
    ).all()


def torch_model(folder: Path, closing: str, outputs: int, opset: int = 17) -> Path:
    """nn.Sequential(Linear, ReLU, Linear, …) behind (x - mean) / deviation, by torch.onnx."""
    nodes = [
        make_node("Sub", ["x", "mean"], ["c"]),
        make_node("Div", ["c", "deviation"], ["n"]),
        make_node("Mul", ["n", "half"], ["s"]),
        make_node("Gemm", ["s", "w0", "b0"], ["a"], transB=1),
        make_node("Relu", ["a"], ["h"]),
        make_node("Gemm", ["h", "w1", "b1"], ["z"], transB=1),
        make_node(closing, ["z"], ["y"], **({} if closing == "Sigmoid" else {"axis": 1})),
    ]
    constants = {
        "mean": np.array([1e6, 35, 0, 0.5], dtype=np.float32),
        "deviation": np.array([1e5, 10, 1, 0.5], dtype=np.float32),
        "half": np.array([0.5, 0.5, 2, 2], dtype=np.float32),
        "w0": normal(6, 4),
        "b0": normal(6, seed=1),
        "w1": normal(outputs, 6, seed=2),
        "b1": normal(outputs, seed=3),
    }
    return saved_onnx(folder, nodes, constants, shape=("n", 4), opset=opset)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(
    ("closing", "outputs", "ending"),
    [("Softmax", 3, "softmax"), ("LogSoftmax", 3, "log_softmax"), ("Sigmoid", 1, "sigmoid")],
)
def test_pytorchs_endings_decide_as_their_logits(
    closing: str, outputs: int, ending: str, opset: int, tmp_path: Path
) -> None:
    path, points = torch_model(tmp_path, closing, outputs, opset), raw(300)
    model = load(path)
    assert model.ending == ending
    given = onnxruntime.InferenceSession(path).run(None, {"x": points})[0]
    expected = given[:, 0] > 0.5 if outputs == 1 else given.argmax(axis=1)
    assert len(set(expected)) > 1
    np.testing.assert_array_equal(model.runtime.logits(points).argmax(axis=1), expected)
    np.testing.assert_array_equal(model.network(points).argmax(axis=1), expected)


@pytest.mark.parametrize("logit", [0.0, 1e-9, -1e-9])
def test_a_sigmoid_of_one_half_decides_for_label_0(logit: float, tmp_path: Path) -> None:
    nodes = [make_node("MatMul", ["x", "a"], ["z"]), make_node("Sigmoid", ["z"], ["y"])]
    path = saved_onnx(tmp_path, nodes, {"a": np.ones((1, 1), np.float32)}, shape=(1, 1))
    point = np.array([[logit]], dtype=np.float32)
    (p,) = onnxruntime.InferenceSession(path).run(None, {"x": point})[0]
    assert p <= 0.5
    assert load(path).runtime.logits(point)[0].argmax() == 0
    assert load(path).runtime.logits(point)[0, 1] < 0


@pytest.mark.parametrize("constant", [2.0, 0.9])
def test_what_is_no_complement_is_no_probability(constant: float, tmp_path: Path) -> None:
    """(c - p, p) decides for label 1 where p > c/2, whatever the sign of its logit."""
    nodes, constants = labelled("probabilities", 2)
    closing = [
        make_node("Sigmoid", ["z"], ["p"]),
        make_node("Sub", ["c", "p"], ["q"]),
        make_node("Concat", ["q", "p"], ["probabilities"], axis=1),
    ]
    constants |= weights(1) | {"c": np.array(constant, dtype=np.float32)}
    path = saved(tmp_path, [SCALER, *HIDDEN, *closing, *nodes], constants)
    model = load(path)  # which gives these two numbers, and no logits
    assert model.ending == "logits"
    assert model.network.is_curved
    points = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.testing.assert_allclose(model.network(points), model.runtime.logits(points), atol=1e-5)
    assert np.abs(model.network(points).sum(axis=1) - constant).max() < 1e-6


def test_scores_that_are_scaled_are_no_logits(tmp_path: Path) -> None:
    """Divided by the sum of their magnitudes: a property would speak of other numbers."""
    path = linear("NONE", 3)(tmp_path)
    with pytest.raises(CertiflowError, match=r"\(LinearClassifier\): cannot be verified"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("transform", "rows"), [("LOGISTIC", 2), ("LOGISTIC", 3), ("PROBIT", 2), ("SOFTMAX", 1)]
)
def test_linear_classifiers_that_decide_otherwise_are_refused(
    transform: str, rows: int, tmp_path: Path
) -> None:
    classifier = make_node(
        "LinearClassifier",
        ["x"],
        ["label", "probabilities"],
        domain=ML,
        classlabels_ints=list(range(rows)),
        coefficients=[0.5] * 4 * rows,
        intercepts=[0.0] * rows,
        post_transform=transform,
    )
    with pytest.raises(CertiflowError, match=f"post_transform = {transform} over {rows} scores"):
        read_onnx(saved(tmp_path, [classifier], {}))


def test_a_complement_of_several_ones_is_no_probability(tmp_path: Path) -> None:
    """(1 - p, 1 - p, 1 - p, p) are four classes."""
    nodes = [
        make_node("MatMul", ["x", "w"], ["z"]),
        make_node("Sigmoid", ["z"], ["p"]),
        make_node("Sub", ["ones", "p"], ["q"]),
        make_node("Concat", ["q", "p"], ["y"], axis=1),
    ]
    constants = {"w": normal(4, 1), "ones": np.ones((1, 3), dtype=np.float32)}
    model = load(saved_onnx(tmp_path, nodes, constants))
    assert (model.ending, model.network.num_outputs) == ("logits", 4)


def with_another_output(path: Path, kind: int) -> Path:
    """One that is `z`, cast."""
    model = onnx.load(path)
    model.graph.node.append(make_node("Cast", ["z"], ["other"], to=kind))
    model.graph.output.append(make_tensor_value_info("other", kind, None))
    onnx.save(model, path)
    return path


def test_other_scores_are_no_labels(tmp_path: Path) -> None:
    nodes = [make_node("MatMul", ["x", "w"], ["z"]), make_node("Neg", ["z"], ["y"])]
    path = with_another_output(saved_onnx(tmp_path, nodes, {"w": normal(4, 3)}), INT64)
    assert read_onnx(path).ending == "logits"
    with pytest.raises(CertiflowError, match="the graph has 2 that are no labels"):
        read_onnx(with_another_output(saved_onnx(tmp_path, nodes, {"w": normal(4, 3)}), DOUBLE))


@pytest.mark.parametrize("domain", ["", "ai.onnx", ML])
def test_functions_in_the_domain_of_onnxs_are_refused(domain: str, tmp_path: Path) -> None:
    path = saved_onnx(tmp_path, [make_node("Identity", ["x"], ["y"])])
    model = onnx.load(path)
    own = make_node("Neg", ["a"], ["b"])
    function = onnx.helper.make_function(
        domain, "Identity", ["a"], ["b"], [own], [make_opsetid("", 13)]
    )
    model.functions.append(function)
    onnx.save(model, path)
    with pytest.raises(CertiflowError, match="defines an operator Identity in the domain of ONNX"):
        read_onnx(path)
