"""The checker's own reader of ONNX: the function that onnxruntime computes, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers
from onnx.helper import make_node
from onnx.numpy_helper import from_array

from tasks.checker.network import Network, read_network
from tasks.checker.refused import RefusedError
from tasks.core.arrays import FloatArray
from tasks.core.models.onnx_export import exported
from tests.model_files import Constants, Shape, integers, normal, saved_onnx

CONV = {"w": normal(3, 2, 2, 3), "b": normal(3, seed=1)}

CHAINS: dict[str, tuple[list[onnx.NodeProto], Constants, Shape]] = {
    "sums before and after": (
        [
            make_node("Sub", ["x", "mean"], ["a"]),
            make_node("MatMul", ["a", "w"], ["c"]),
            make_node("Add", ["b", "c"], ["d"]),
            make_node("Relu", ["d"], ["e"]),
            make_node("Add", ["e", "b"], ["y"]),
        ],
        {"mean": normal(4), "w": normal(4, 3), "b": normal(3)},
        (1, 4),
    ),
    "a convolution with pads, strides and dilations": (
        [
            make_node(
                "Conv",
                ["x", "w", "b"],
                ["a"],
                pads=[1, 0, 2, 1],
                strides=[2, 1],
                dilations=[1, 2],
            ),
            make_node("Relu", ["a"], ["c"]),
            make_node("Flatten", ["c"], ["y"]),
        ],
        CONV,
        (1, 2, 5, 6),
    ),
    "axes moved before and behind": (
        [
            make_node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]),
            make_node("Conv", ["a", "w"], ["c"]),
            make_node("Relu", ["c"], ["d"]),
            make_node("Transpose", ["d"], ["e"], perm=[0, 2, 3, 1]),
            make_node("Reshape", ["e", "flat"], ["f"]),
            make_node("Gemm", ["f", "v"], ["g"]),
            make_node("Relu", ["g"], ["y"]),
        ],
        {"w": CONV["w"], "flat": integers(1, -1), "v": normal(27, 5)},
        (1, 4, 5, 2),
    ),
    "batch normalisation of rows": (
        [
            make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["a"], epsilon=1e-3),
            make_node("Relu", ["a"], ["y"]),
        ],
        {"s": normal(4), "b": normal(4, seed=1), "m": normal(4, seed=2), "v": abs(normal(4))},
        (1, 4),
    ),
    "batch normalisation of channels": (
        [
            make_node("Conv", ["x", "w", "b"], ["a"]),
            make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["c"]),
            make_node("Relu", ["c"], ["y"]),
        ],
        CONV | {"s": normal(3), "m": normal(3, seed=2), "v": abs(normal(3)) + 1},
        (1, 2, 4, 5),
    ),
    "reshaped by what is left": (
        [
            make_node("Reshape", ["x", "s"], ["a"]),
            make_node("Reshape", ["a", "t"], ["b"]),
            make_node("Add", ["b", "c"], ["y"]),
        ],
        {"s": integers(-1, 2, 2), "t": integers(1, -1), "c": normal(4)},
        (1, 4),
    ),
    "a product of rows of one": (
        [
            make_node("MatMul", ["x", "w"], ["a"]),
            make_node("Reshape", ["a", "s"], ["b"]),
            make_node("Add", ["b", "c"], ["y"]),
        ],
        {"w": normal(3, 2), "s": integers(0, 0, -1), "c": normal(1, 2)},
        (1, 1, 3),
    ),
    "a ReLU of axes without a step": (
        [
            make_node("Relu", ["x"], ["a"]),
            make_node("Reshape", ["a", "s"], ["b"]),
            make_node("Transpose", ["b"], ["c"], perm=[0, 2, 1]),
            make_node("Flatten", ["c"], ["f"]),
            make_node("Gemm", ["f", "w"], ["y"]),
        ],
        {"s": integers(0, 0, -1), "w": normal(6, 2)},
        (1, 2, 3, 1),
    ),
    "reshaped without a step": (
        [make_node("Reshape", ["x", "s"], ["a"]), make_node("Relu", ["a"], ["y"])],
        {"s": integers(0, 2, 2)},
        (1, 4),
    ),
}


def values_of(network: Network, points: FloatArray) -> FloatArray:
    values = points
    for place, steps in enumerate(network.layers):
        values = values if place == 0 else np.maximum(values, 0)
        for step in steps:
            values = values @ step.weight.T + step.bias
    return values


@pytest.mark.parametrize("name", CHAINS)
def test_reads_what_onnxruntime_computes(name: str, tmp_path: Path) -> None:
    nodes, constants, shape = CHAINS[name]
    path = saved_onnx(tmp_path, nodes, constants, shape=shape)
    session = onnxruntime.InferenceSession(str(path))
    network = read_network(path)
    for seed in range(5):
        point = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        (expected,) = session.run(None, {"x": point})
        found = values_of(network, point.reshape(1, -1).astype(np.float64))
        np.testing.assert_allclose(found.ravel(), expected.ravel(), rtol=1e-4, atol=1e-5)


def test_reads_what_is_exported_of_a_convolutional_network(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 5, 2)),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(3, 2, activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(exported(model).SerializeToString())
    points = np.random.default_rng(0).normal(size=(4, 6, 5, 2)).astype(np.float32)
    found = values_of(read_network(path), points.reshape(4, -1).astype(np.float64))
    np.testing.assert_allclose(found, np.asarray(model(points)), rtol=1e-4, atol=1e-5)


def dense(**options: object) -> list[onnx.NodeProto]:
    return [make_node("Gemm", ["x", "w", "b"], ["y"], **options)]


def with_nan(array: np.ndarray) -> np.ndarray:
    array[0, 0] = np.nan
    return array


def test_batch_normalisation_takes_the_standards_epsilon(tmp_path: Path) -> None:
    """1e-5 as float32 has it: of a variance of 0 all of the root."""
    nodes = [make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"])]
    zero, one = np.zeros(4, dtype=np.float32), np.ones(4, dtype=np.float32)
    path = saved_onnx(tmp_path, nodes, {"s": one, "b": zero, "m": zero, "v": zero})
    found = values_of(read_network(path), np.ones((1, 4)))
    np.testing.assert_allclose(found, 1 / np.sqrt(np.float64(np.float32(1e-5))), rtol=1e-15)


def test_a_first_axis_that_is_no_batch_is_refused(tmp_path: Path) -> None:
    path = saved_onnx(tmp_path, [make_node("Relu", ["x"], ["y"])], shape=(4, 3))
    with pytest.raises(RefusedError, match="first axis has 4 places"):
        read_network(path)


def test_a_bias_for_each_row_of_a_batch_is_refused(tmp_path: Path) -> None:
    path = saved_onnx(tmp_path, dense(), {"w": normal(4, 3), "b": normal(3, 1)})
    with pytest.raises(RefusedError, match="cannot be read"):
        read_network(path)


@pytest.mark.parametrize(
    ("nodes", "weight"),
    [
        (dense(alpha=2.0), normal(4, 3)),
        (
            [make_node("BatchNormalization", list("xwwww"), ["y"], training_mode=1)],
            abs(normal(4)),
        ),
        (dense(transA=1), normal(4, 3)),
        (dense(), with_nan(normal(4, 3))),
        (dense(), np.full((4, 3), np.inf, dtype=np.float32)),
        ([make_node("Add", ["x", "x"], ["y"])], normal(4, 3)),
        ([make_node("Sigmoid", ["x"], ["y"])], normal(4, 3)),
        ([make_node("Relu", ["x"], ["y"], domain="mine")], normal(4, 3)),
        ([make_node("Flatten", ["x"], ["y"], axis=0)], normal(4, 3)),
        ([make_node("Add", ["x", "w"], ["y"], broadcast=1, axis=1)], normal(4, 1)),
        ([make_node("Sub", ["w", "x"], ["y"])], normal(4)),
        (
            [make_node("Relu", ["x"], ["a"]), make_node("Relu", ["x"], ["y"])],
            normal(4, 3),
        ),
    ],
)
def test_whatever_is_not_read_is_refused(
    nodes: list[onnx.NodeProto], weight: np.ndarray, tmp_path: Path
) -> None:
    path = saved_onnx(tmp_path, nodes, {"w": weight, "b": normal(3)})
    with pytest.raises(RefusedError, match="cannot be read as affine steps and ReLUs"):
        read_network(path)


@pytest.mark.parametrize("sizes", [(3, 2, -1), (2, 2, 1), (-1, 2, 1), (4, 1)])
def test_a_reshape_that_does_not_keep_the_batch_is_refused(
    sizes: tuple[int, ...], tmp_path: Path
) -> None:
    """What stands in the batch's place would be dropped, and later nodes read other numbers."""
    nodes = [
        make_node("Reshape", ["x", "s"], ["a"]),
        make_node("Reshape", ["a", "t"], ["y"]),
    ]
    path = saved_onnx(tmp_path, nodes, {"s": integers(*sizes), "t": integers(1, 4)})
    with pytest.raises(RefusedError, match="does not keep the batch"):
        read_network(path)


def test_a_constant_that_makes_more_rows_is_refused(tmp_path: Path) -> None:
    nodes = [make_node("MatMul", ["x", "w"], ["a"]), make_node("Add", ["a", "c"], ["y"])]
    path = saved_onnx(tmp_path, nodes, {"w": normal(3, 2), "c": normal(2, 1)}, shape=(1, 1, 3))
    with pytest.raises(RefusedError, match="cannot be read"):
        read_network(path)


def test_weights_in_another_file_are_refused(tmp_path: Path) -> None:
    """No digest has been held against it."""
    path = saved_onnx(tmp_path, dense(), {"w": normal(4, 3), "b": normal(3)})
    model = onnx.load(path)
    weight = next(each for each in model.graph.initializer if each.name == "w")
    (tmp_path / "weights").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "weights"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(RefusedError, match="lies in another file"):
        read_network(path)


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-20], lambda content: b"", lambda content: b"\0" * 100],
)
def test_damaged_files_are_refused(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    path = saved_onnx(tmp_path, dense(), {"w": normal(4, 3), "b": normal(3)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RefusedError, match=r"model\.onnx: cannot be read"):
        read_network(path)


def test_constants_are_not_given_by_nodes(tmp_path: Path) -> None:
    nodes = [make_node("Relu", ["x"], ["w"]), make_node("Relu", ["w"], ["y"])]
    path = saved_onnx(tmp_path, nodes, {"w": normal(4)})
    with pytest.raises(RefusedError, match="w is given twice"):
        read_network(path)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    path = saved_onnx(tmp_path, dense(), {"w": normal(4, 3), "b": normal(3)})
    model = onnx.load(path)
    model.graph.initializer[0].CopyFrom(from_array(np.ones((4, 3), dtype=np.int64), "w"))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(RefusedError, match="type int64"):
        read_network(path)


def test_what_runtimes_may_read_otherwise_is_refused(tmp_path: Path) -> None:
    """onnxruntime takes a sparse weight before a dense one of its name, and a function by name."""
    path = saved_onnx(tmp_path, dense(), {"w": normal(4, 3), "b": normal(3)})
    plain = path.read_bytes()

    def changed(change: Callable[[onnx.ModelProto], object], said: str) -> None:
        model = onnx.load_model_from_string(plain)
        change(model)
        path.write_bytes(model.SerializeToString())
        with pytest.raises(RefusedError, match=said):
            read_network(path)

    values = from_array(np.ones(1, dtype=np.float32), "w")
    sparse = onnx.helper.make_sparse_tensor(values, from_array(np.array([0]), "at"), [4, 3])
    function = onnx.helper.make_function(
        "",
        "Gemm",
        ["a"],
        ["b"],
        [make_node("Neg", ["a"], ["b"])],
        [onnx.helper.make_opsetid("", 13)],
    )
    changed(lambda model: model.graph.sparse_initializer.append(sparse), "sparse weights")
    changed(lambda model: model.functions.append(function), "functions are not read")
    changed(lambda model: setattr(model.opset_import[0], "version", 6), r"versions \[6\]")
    again = from_array(np.ones((4, 3), dtype=np.float32), "w")
    changed(lambda model: model.graph.initializer.append(again), "w is given twice")


def test_a_factor_that_is_no_normal_number_is_refused(tmp_path: Path) -> None:
    """10^-300 over the root of 10^40 is off by a share of 2.5e-4."""
    node = make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], epsilon=0.0)
    constants = {
        "s": np.array([1e-300, 0.0, 1.0, 1.0]),
        "b": np.zeros(4),
        "m": np.zeros(4),
        "v": np.full(4, 1e40),
    }
    with pytest.raises(RefusedError, match="a normalisation's factor is too small"):
        read_network(saved_onnx(tmp_path, [node], constants))
    constants["s"][0] = 1e-200
    assert read_network(saved_onnx(tmp_path, [node], constants)).inputs == 4
