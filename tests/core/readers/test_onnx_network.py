"""The float64 network of an ONNX file is what onnxruntime computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.helper import (
    make_node,
)

from tasks.core.models.runtimes import OnnxRuntime
from tasks.core.readers.onnx_network import read_onnx
from tests.model_files import Shape, integers, normal, saved_onnx


def image(operator: str, *constants: str, **attributes: Any) -> list[onnx.NodeProto]:
    """`operator` on an image, and a ReLU behind it."""
    return [
        make_node(operator, ["x", *constants], ["h"], **attributes),
        make_node("Relu", ["h"], ["y"]),
    ]


IMAGE: Shape = (1, 4, 7, 6)
KERNEL = {"k": normal(6, 4, 3, 2), "b": normal(6, seed=1)}
STATISTICS = {
    "scale": normal(4),
    "shift": normal(4, seed=1),
    "mean": normal(4, seed=2),
    "variance": abs(normal(4, seed=3)),
}

GRAPHS: dict[str, Callable[[Path], Path]] = {
    "gemm": lambda folder: saved_onnx(
        folder,
        [
            make_node("Gemm", ["x", "a", "b"], ["h"], transB=1, alpha=0.5, beta=2.0),
            make_node("Relu", ["h"], ["r"]),
            make_node("Gemm", ["r", "c"], ["y"]),
        ],
        {"a": normal(5, 4), "b": normal(5), "c": normal(5, 3)},
    ),
    "transposed input": lambda folder: saved_onnx(
        folder,
        [make_node("Gemm", ["x", "a"], ["y"], transA=1)],
        {"a": normal(4, 3)},
        shape=(4, 1),
    ),
    "old file, initializers among the inputs": lambda folder: saved_onnx(
        folder,
        [
            make_node("Sub", ["x", "average"], ["s"]),
            make_node("Flatten", ["s"], ["f"]),
            make_node("MatMul", ["f", "a"], ["m"]),
            make_node("Add", ["m", "b"], ["h"]),
            make_node("Relu", ["h"], ["r"]),
            make_node("MatMul", ["r", "c"], ["y"]),
        ],
        {"average": normal(1, 1, 1, 4), "a": normal(4, 6), "b": normal(6), "c": normal(6, 2)},
        shape=(1, 1, 1, 4),
        opset=8,
        ir_version=3,
        listed=True,
    ),
    "matrix from the left": lambda folder: saved_onnx(
        folder, [make_node("MatMul", ["a", "x"], ["y"])], {"a": normal(3, 4)}, shape=(1, 4, 2)
    ),
    "vector from the left": lambda folder: saved_onnx(
        folder, [make_node("MatMul", ["a", "x"], ["y"])], {"a": normal(4)}, shape=(1, 4, 2)
    ),
    "one matrix from the left, of a vector": lambda folder: saved_onnx(
        folder, [make_node("MatMul", ["a", "x"], ["y"])], {"a": normal(1, 3, 4)}, shape=(4,)
    ),
    "maximum of two layers, one the deeper": lambda folder: saved_onnx(
        folder,
        [
            make_node("Relu", ["x"], ["r"]),
            make_node("Neg", ["x"], ["n"]),
            make_node("Max", ["n", "a", "r"], ["m"]),
            make_node("Min", ["m", "b"], ["y"]),
        ],
        {"a": normal(4), "b": normal(1, 4, seed=1) + 1},
        shape=(1, 4),
    ),
    "dynamic batch, constants folded": lambda folder: saved_onnx(
        folder,
        [
            make_node("Shape", ["x"], ["shape"]),
            make_node("Gather", ["shape", "zero"], ["batch"]),
            make_node("Constant", [], ["rest"], value_ints=[-1]),
            make_node("Concat", ["batch", "rest"], ["target"], axis=0),
            make_node("Reshape", ["x", "target"], ["f"]),
            make_node("Mul", ["two", "a"], ["scaled"]),
            make_node("MatMul", ["f", "scaled"], ["y"]),
        ],
        {"zero": integers(0), "two": np.array(2, dtype=np.float32), "a": normal(8, 3)},
        shape=("batch", 2, 4),
    ),
    "arithmetic": lambda folder: saved_onnx(
        folder,
        [
            make_node("Sub", ["a", "x"], ["s"]),
            make_node("Div", ["s", "b"], ["d"]),
            make_node("Mul", ["b", "d"], ["m"]),
            make_node("Neg", ["m"], ["n"]),
            make_node("Cast", ["n"], ["c"], to=1),
            make_node("Dropout", ["c"], ["o"]),
            make_node("Identity", ["o"], ["y"]),
        ],
        {"a": normal(2, 1), "b": normal(4)},
    ),
    "moves of elements": lambda folder: saved_onnx(
        folder,
        [
            make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
            make_node("Slice", ["t", "starts", "ends", "axes", "steps"], ["s"]),
            make_node("Gather", ["s", "index"], ["g"], axis=3),
            make_node("Pad", ["g", "pads"], ["p"]),
            make_node("Squeeze", ["p", "zero"], ["q"]),
            make_node("Unsqueeze", ["q", "zero"], ["u"]),
            make_node("Split", ["u"], ["u1", "u2"], axis=3),
            make_node("Concat", ["u2", "u1", "extra"], ["y"], axis=3),
        ],
        {
            "starts": integers(5, 0),
            "ends": integers(-100, 5),
            "axes": integers(1, 2),
            "steps": integers(-2, 2),
            "index": integers(3, 1),
            "pads": integers(0, 1, 0, 0, 0, 2, 0, 0),
            "zero": integers(0),
            "extra": normal(1, 6, 3, 2),
        },
        shape=IMAGE,
    ),
    "old slices, squeezes and pads": lambda folder: saved_onnx(
        folder,
        [
            make_node("Slice", ["x"], ["s"], starts=[1, 0], ends=[3, 5], axes=[1, 3]),
            make_node("Pad", ["s"], ["p"], pads=[0, 0, 1, 1, 0, 0, 1, 1]),
            make_node("Squeeze", ["p"], ["q"], axes=[0]),
            make_node("Unsqueeze", ["q"], ["u"], axes=[0]),
            make_node("Clip", ["u"], ["y"], min=-0.5, max=0.25),
        ],
        shape=IMAGE,
        opset=9,
    ),
    "convolution": lambda folder: saved_onnx(folder, image("Conv", "k", "b"), KERNEL, shape=IMAGE),
    "strides, pads and dilations": lambda folder: saved_onnx(
        folder,
        image("Conv", "k", "b", strides=[2, 1], pads=[1, 2, 0, 1], dilations=[2, 3]),
        KERNEL,
        shape=IMAGE,
    ),
    "groups": lambda folder: saved_onnx(
        folder, image("Conv", "k", group=2), {"k": normal(6, 2, 3, 2)}, shape=IMAGE
    ),
    "convolution, same lower": lambda folder: saved_onnx(
        folder,
        image("Conv", "k", "b", strides=[2, 1], auto_pad="SAME_LOWER"),
        KERNEL,
        shape=IMAGE,
    ),
    "convolution, same upper": lambda folder: saved_onnx(
        folder, image("Conv", "k", auto_pad="SAME_UPPER"), {"k": normal(2, 4, 2, 2)}, shape=IMAGE
    ),
    "convolution, valid, one axis": lambda folder: saved_onnx(
        folder, image("Conv", "k", auto_pad="VALID"), {"k": normal(2, 3, 4)}, shape=(1, 3, 9)
    ),
    "batch normalisation": lambda folder: saved_onnx(
        folder,
        image("BatchNormalization", "scale", "shift", "mean", "variance", epsilon=0.01),
        STATISTICS,
        shape=IMAGE,
    ),
    "average pooling": lambda folder: saved_onnx(
        folder,
        image("AveragePool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]),
        shape=IMAGE,
    ),
    "average pooling that counts the padding": lambda folder: saved_onnx(
        folder,
        image("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        shape=IMAGE,
    ),
    "max pooling": lambda folder: saved_onnx(
        folder,
        [
            make_node("Relu", ["x"], ["r"]),
            make_node(
                "MaxPool", ["r"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
            ),
        ],
        shape=IMAGE,
    ),
    "max pooling, dilated": lambda folder: saved_onnx(
        folder, image("MaxPool", kernel_shape=[2, 2], dilations=[2, 3]), shape=IMAGE
    ),
    "means and sums": lambda folder: saved_onnx(
        folder,
        [
            make_node("GlobalAveragePool", ["x"], ["g"]),
            make_node("ReduceMean", ["x"], ["m"], axes=[-1, 2]),
            make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=0),
            make_node("Add", ["g", "m"], ["a"]),
            make_node("Add", ["a", "s"], ["y"]),
        ],
        {"axes": integers(1)},
        shape=IMAGE,
    ),
    "sum of everything": lambda folder: saved_onnx(folder, [make_node("ReduceSum", ["x"], ["y"])]),
    "bent and clipped": lambda folder: saved_onnx(
        folder,
        [
            make_node("LeakyRelu", ["x"], ["l"], alpha=0.2),
            make_node("LeakyRelu", ["l"], ["k"]),
            make_node("Clip", ["k", "low", "high"], ["c1"]),
            make_node("Clip", ["c1", "zero"], ["c2"]),
            make_node("Add", ["c2", "x"], ["a"]),
            make_node("Clip", ["a", "", "high"], ["c3"]),
            make_node("Clip", ["c3", "lowest", "highest"], ["c4"]),
            make_node("Clip", ["c4"], ["y"]),
        ],
        {
            "low": np.array(-0.5, dtype=np.float32),
            "high": np.array(0.75, dtype=np.float32),
            "zero": np.array(0, dtype=np.float32),
            "lowest": np.array(-3.4e38, dtype=np.float32),
            "highest": np.array(3.4e38, dtype=np.float32),
        },
    ),
    "residual": lambda folder: saved_onnx(
        folder,
        [
            make_node("Conv", ["x", "k1"], ["c1"], pads=[1, 1, 1, 1]),
            make_node("Relu", ["c1"], ["r1"]),
            make_node("Conv", ["r1", "k2"], ["c2"], pads=[1, 1, 1, 1]),
            make_node("Relu", ["c2"], ["r2"]),
            make_node("Conv", ["r2", "k1"], ["c3"], pads=[1, 1, 1, 1]),
            make_node("Add", ["c3", "x"], ["a"]),
            make_node("Relu", ["a"], ["r3"]),
            make_node("Sub", ["r3", "r1"], ["s"]),
            make_node("Flatten", ["s"], ["f"]),
            make_node("Gemm", ["f", "d"], ["y"]),
        ],
        {"k1": normal(4, 4, 3, 3) / 4, "k2": normal(4, 4, 3, 3, seed=1) / 4, "d": normal(168, 3)},
        shape=IMAGE,
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_same_function_as_onnxruntime(name: str, tmp_path: Path) -> None:
    path = GRAPHS[name](tmp_path)
    runtime = OnnxRuntime(path)
    points = normal(20, *runtime.input_shape, seed=5)
    expected = runtime.logits(points)
    np.testing.assert_allclose(read_onnx(path).network(points), expected, rtol=1e-5, atol=2e-5)


def test_shapes_and_weights_are_the_files(tmp_path: Path) -> None:
    weights = normal(8, 3)
    nodes = [make_node("Flatten", ["x"], ["f"]), make_node("MatMul", ["f", "a"], ["y"])]
    path = saved_onnx(tmp_path, nodes, {"a": weights}, shape=("n", 2, 4))
    model = read_onnx(path)
    assert (model.input_shape, model.num_outputs) == ((1, 2, 4), 3)
    assert OnnxRuntime(path).input_shape == (2, 4)
    (layer,) = model.network.layers
    np.testing.assert_array_equal(layer.weight, weights.T.astype(np.float64))


@pytest.mark.parametrize("batch", [-1, "n"])
def test_a_dynamic_batch_is_one_point(batch: int | str, tmp_path: Path) -> None:
    nodes = [make_node("MatMul", ["x", "a"], ["y"])]
    path = saved_onnx(tmp_path, nodes, {"a": normal(4, 3)}, shape=(batch, 4))
    assert read_onnx(path).input_shape == (1, 4)
    points = normal(5, 4)
    expected = OnnxRuntime(path).logits(points)
    np.testing.assert_allclose(read_onnx(path).network(points), expected, rtol=1e-5, atol=1e-6)


def test_a_relu_at_the_end_is_followed_by_the_identity(tmp_path: Path) -> None:
    network = read_onnx(saved_onnx(tmp_path, [make_node("Relu", ["x"], ["y"])])).network
    assert len(network.layers) == 2
    np.testing.assert_array_equal(network.layers[1].weight, np.eye(4))


def test_residual_connections_pass_through_as_linear_units(tmp_path: Path) -> None:
    network = read_onnx(GRAPHS["residual"](tmp_path)).network
    assert [int(mask.sum()) for mask in network.linear] == [168, 336, 168]


POSITIVE: dict[str, list[onnx.NodeProto]] = {
    "root": [make_node("Abs", ["x"], ["a"]), make_node("Sqrt", ["a"], ["y"])],
    "logarithm": [make_node("Exp", ["x"], ["a"]), make_node("Log", ["a"], ["y"])],
    "square": [make_node("Mul", ["x", "x"], ["y"])],
    "gated": [make_node("Sigmoid", ["x"], ["s"]), make_node("Mul", ["s", "x"], ["y"])],
    "gated, scaled": [
        make_node("Mul", ["x", "c"], ["m"]),
        make_node("Sigmoid", ["m"], ["s"]),
        make_node("Mul", ["x", "s"], ["y"]),
    ],
    "gated by another": [
        make_node("Relu", ["x"], ["t"]),
        make_node("Sigmoid", ["t"], ["s"]),
        make_node("Mul", ["x", "s"], ["y"]),
    ],
    "gelu of its parts": [
        make_node("Div", ["x", "c"], ["d"]),
        make_node("Erf", ["d"], ["e"]),
        make_node("Add", ["e", "one"], ["f"]),
        make_node("Mul", ["x", "f"], ["g"]),
        make_node("Mul", ["g", "half"], ["y"]),
    ],
    "quotient": [make_node("Exp", ["x"], ["e"]), make_node("Div", ["x", "e"], ["y"])],
    "product, broadcast": [
        make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=1),
        make_node("Mul", ["s", "x"], ["m"]),
        make_node("Mul", ["x", "m"], ["y"]),
    ],
    "attention": [
        make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        make_node("MatMul", ["x", "t"], ["m"]),
        make_node("Softmax", ["m"], ["s"], axis=2),
        make_node("MatMul", ["s", "x"], ["y"]),
    ],
    "layer normalisation": [
        make_node("ReduceMean", ["x"], ["m"], axes=[2]),
        make_node("Sub", ["x", "m"], ["d"]),
        make_node("Pow", ["d", "two"], ["p"]),
        make_node("ReduceMean", ["p"], ["v"], axes=[2]),
        make_node("Add", ["v", "half"], ["w"]),
        make_node("Sqrt", ["w"], ["r"]),
        make_node("Div", ["d", "r"], ["y"]),
    ],
    "known choice": [
        make_node("Neg", ["x"], ["n"]),
        make_node("Where", ["yes", "x", "n"], ["y"]),
    ],
}
NUMBERS = {
    "c": np.array(1.5, dtype=np.float32),
    "one": np.array(1, dtype=np.float32),
    "half": np.array(0.5, dtype=np.float32),
    "two": np.array(2, dtype=np.float32),
    "axes": integers(2),
    "yes": np.array([[True, False, True], [False, True, True]]),
}


@pytest.mark.parametrize("name", POSITIVE)
def test_curves_and_products_are_what_onnxruntime_computes(name: str, tmp_path: Path) -> None:
    nodes = POSITIVE[name]
    used = {each for node in nodes for each in node.input}
    constants = {each: array for each, array in NUMBERS.items() if each in used}
    path = saved_onnx(tmp_path, nodes, constants, shape=(1, 2, 3))
    network, runtime = read_onnx(path, whole=True).network, OnnxRuntime(path, whole=True)
    points = normal(30, 2, 3, seed=4)
    np.testing.assert_allclose(network(points), runtime.logits(points), rtol=2e-5, atol=1e-5)
    gated = name in {"gated", "gated, scaled", "gelu of its parts"}
    products = sum(len(each.products) for each in network.activations)
    assert not (gated and products)  # a curve of its own, not a product


@pytest.mark.parametrize(("shift", "products"), [(0.0, 0), (1e-9, 6)])
def test_a_gate_that_is_another_function_is_no_curve(
    shift: float, products: int, tmp_path: Path
) -> None:
    """x sigmoid(x + c) is silu(x) for no c but 0, however small."""
    nodes = [
        make_node("Add", ["x", "shift"], ["a"]),
        make_node("Sigmoid", ["a"], ["s"]),
        make_node("Mul", ["x", "s"], ["y"]),
    ]
    constants = {"shift": np.array(shift, dtype=np.float32)}
    network = read_onnx(saved_onnx(tmp_path, nodes, constants, shape=(1, 2, 3)), whole=True).network
    assert sum(len(each.products) for each in network.activations) == products


def test_outputs_are_the_files_own_where_that_is_asked(tmp_path: Path) -> None:
    nodes = [make_node("Gemm", ["x", "a"], ["z"]), make_node("Sigmoid", ["z"], ["y"])]
    path = saved_onnx(tmp_path, nodes, {"a": normal(4, 1)})
    points = normal(20, 4, seed=1)
    assert read_onnx(path).network.num_outputs == 2
    network, runtime = read_onnx(path, whole=True).network, OnnxRuntime(path, whole=True)
    assert network(points).shape == (20, 1)
    np.testing.assert_allclose(network(points), runtime.logits(points), atol=1e-6)
