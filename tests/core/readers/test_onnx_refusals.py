"""What an ONNX file holds that cannot be verified is named in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

from tasks.core.errors import CertiflowError
from tasks.core.readers.onnx_network import read_onnx
from tests.model_files import Constants, Shape, integers, normal, saved_onnx

IMAGE: Shape = (1, 4, 7, 6)

REFUSED: dict[str, tuple[list[onnx.NodeProto], Constants, str]] = {
    "operator": (
        [make_node("Round", ["x"], ["p"], name="last"), make_node("Neg", ["p"], ["y"])],
        {},
        r"node 1 'last' \(Round\): cannot be verified; supported are Abs, Add, AveragePool",
    ),
    "domain": (
        [make_node("Relu", ["x"], ["y"], domain="com.custom")],
        {},
        r"node 1 '' \(Relu\): cannot be verified",
    ),
    **{
        f"a last {name} of another domain": (
            [make_node(name, ["x"], ["y"], domain="com.custom")],
            {},
            rf"node 1 '' \({name}\): cannot be verified",
        )
        for name in ("Identity", "Softmax", "LogSoftmax", "Sigmoid", "Normalizer", "ZipMap")
    },
    "a sum of constants in float16": (
        [
            make_node("Add", ["a", "a"], ["b"]),
            make_node("Cast", ["b"], ["c"], to=onnx.TensorProto.FLOAT),
            make_node("Add", ["x", "c"], ["y"]),
        ],
        {"a": normal(6).astype(np.float16)},
        r"node 1 '' \(Add\): on constants in float16 cannot be verified",
    ),
    "constants that become float16": (
        [
            make_node("Cast", ["a"], ["b"], to=onnx.TensorProto.FLOAT16),
            make_node("Cast", ["b"], ["c"], to=onnx.TensorProto.FLOAT),
            make_node("Add", ["x", "c"], ["y"]),
        ],
        {"a": normal(6)},
        r"node 1 '' \(Cast\): on constants in float16 cannot be verified",
    ),
    "steps of a tenth": (
        [make_node("Range", ["a", "b", "s"], ["c"]), make_node("Add", ["x", "c"], ["y"])],
        {name: np.array(at, np.float32) for name, at in (("a", 0), ("b", 0.6), ("s", 0.1))},
        r"\(Range\): in steps that are not whole cannot be verified",
    ),
    "steps beyond float32": (
        [make_node("Range", ["a", "b", "s"], ["c"]), make_node("Add", ["x", "c"], ["y"])],
        {
            name: np.array(at, np.float32)
            for name, at in (("a", 2**24), ("b", 2**24 + 12), ("s", 2))
        },
        r"\(Range\): in steps that are not whole cannot be verified",
    ),
    "cuts beyond the image": (
        [make_node("Pad", ["x", "a"], ["p"]), make_node("ReduceSum", ["p"], ["y"])],
        {"a": integers(0, 0, 0, -7, 0, 0, 0, 3)},
        r"\(Pad\): pads = .* cut off more than the shape \(1, 4, 7, 6\)",
    ),
    "constant operator": (
        [make_node("Floor", ["x"], ["y"])],
        {},
        r"\(Floor\): can be verified only on constants",
    ),
    "random operator": (
        [make_node("RandomNormalLike", ["a"], ["b"]), make_node("Add", ["x", "b"], ["y"])],
        {"a": normal(4)},
        r"node 1 '' \(RandomNormalLike\): cannot be verified",
    ),
    "power of a tensor": (
        [make_node("Pow", ["a", "x"], ["y"])],
        {"a": normal(6)},
        r"\(Pow\): input 2 depends on the network's input; expected a constant",
    ),
    "another power": (
        [make_node("Pow", ["x", "a"], ["y"])],
        {"a": np.array(2.5, dtype=np.float32)},
        r"\(Pow\): the exponent 2.5 cannot be verified; expected one of -1, 0.5, 1, 2, 3, 4",
    ),
    "choice by a tensor": (
        [make_node("Cast", ["x"], ["c"], to=9), make_node("Where", ["c", "x", "x"], ["y"])],
        {},
        r"\(Cast\): to = BOOL cannot be verified",
    ),
    "division by zero": (
        [make_node("Div", ["x", "a"], ["y"])],
        {"a": np.zeros(4, dtype=np.float32)},
        "division by zero",
    ),
    "pads of terabytes": (
        [make_node("Pad", ["x", "a"], ["y"])],
        {"a": integers(0, 0, 0, 0, 0, 0, 10**6, 10**6)},
        r"\(Pad\): asks for 16,[\d,]+ elements: at most 67,108,864 are made",
    ),
    "windows of terabytes": (
        [make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], pads=[0, 0, 10**6, 10**6])],
        {},
        r"\(MaxPool\): asks for 4,000,\d+,\d+,\d+ elements",
    ),
    "a constant of terabytes": (
        [make_node("ConstantOfShape", ["a"], ["c"]), make_node("Add", ["x", "c"], ["y"])],
        {"a": integers(10**6, 10**6)},
        r"\(ConstantOfShape\): asks for 1,000,000,000,000 elements",
    ),
    "too many units": (
        [make_node("Expand", ["x", "a"], ["z"]), make_node("Relu", ["z"], ["y"])],
        {"a": integers(2000, 4, 7, 6)},
        "has 336,168 inputs and units or more: at most 250,000 can be verified",
    ),
    "many matrices": (
        [make_node("MatMul", ["x", "a"], ["y"])],
        {"a": normal(4, 6, 3)},
        r"a product with \(4, 6, 3\), many matrices, cannot be verified",
    ),
    "matrix that does not fit": (
        [make_node("MatMul", ["x", "a"], ["y"])],
        {"a": normal(3, 4)},
        r"the shapes \(1, 4, 7, 6\) and \(3, 4\) have no product",
    ),
    "attribute of another opset": (
        [make_node("Add", ["x", "a"], ["y"], axis=1)],
        {"a": normal(4)},
        r"node 1 '' \(Add\): is not valid in opset 13: Unrecognized attribute: axis",
    ),
    "attribute of no operator": (
        [make_node("Reshape", ["x", "a"], ["y"], hint=2)],
        {"a": integers(-1)},
        r"\(Reshape\): is not valid in opset 13: Unrecognized attribute: hint",
    ),
    "inputs of another opset": (
        [make_node("Squeeze", ["x", "a", "a"], ["y"])],
        {"a": integers(0)},
        r"\(Squeeze\): is not valid in opset 13: .* has input size 3",
    ),
    "attribute that must be given": (
        [make_node("Concat", ["x", "x"], ["y"])],
        {},
        r"\(Concat\): is not valid in opset 13: Required attribute 'axis' is missing",
    ),
    "attribute of another type": (
        [make_node("LeakyRelu", ["x"], ["y"], alpha=1)],
        {},
        r"\(LeakyRelu\): is not valid in opset 13: Mismatched attribute type",
    ),
    "probabilities of an image": (
        [make_node("Softmax", ["x"], ["y"])],
        {},
        r"ends with a softmax over the shape \(1, 4, 7, 6\): expected \(1, classes\)",
    ),
    "several decisions": (
        [make_node("Flatten", ["x"], ["f"]), make_node("Sigmoid", ["f"], ["y"])],
        {},
        "ends with a sigmoid of 168 outputs, .* export the model up to its logits",
    ),
    "scaling that does not fit": (
        [make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.0] * 5, scale=[1.0] * 5)],
        {},
        r"\(Scaler\) is malformed: ",
    ),
    "scaling of another domain": (
        [make_node("Scaler", ["x"], ["y"], offset=[0.0], scale=[1.0])],
        {},
        r"\(Scaler\): cannot be verified; supported are",
    ),
    "axis": (
        [make_node("ReduceSum", ["x", "a"], ["y"])],
        {"a": integers(4)},
        r"\(ReduceSum\) is malformed: axis 4 is out of bounds",
    ),
    "slopes": (
        [make_node("PRelu", ["x", "a"], ["y"])],
        {"a": normal(2, 4, 7, 6)},
        r"slopes of shape \(2, 4, 7, 6\) do not broadcast to the shape \(1, 4, 7, 6\)",
    ),
    "summand of a matrix product": (
        [make_node("Flatten", ["x"], ["f"]), make_node("Gemm", ["f", "a", "b"], ["y"])],
        {"a": normal(168, 3), "b": normal(2, 3)},
        r"\(Gemm\): input 3 of shape \(2, 3\) does not broadcast to \(1, 3\)",
    ),
    "bias": (
        [make_node("Conv", ["x", "a", "b"], ["y"])],
        {"a": normal(2, 4, 1, 1), "b": normal(1)},
        r"\(Conv\): expected 2 values as input 3, found the shape \(1,\)",
    ),
    "statistics": (
        [make_node("BatchNormalization", ["x", "a", "a", "a", "a"], ["y"])],
        {"a": abs(normal(1))},
        r"\(BatchNormalization\): expected 4 values as input 2, found the shape \(1,\)",
    ),
    "training outputs": (
        [make_node("BatchNormalization", ["x", "a", "a", "a", "a"], ["y", "m", "v", "sm", "sv"])],
        {"a": abs(normal(4))},
        "outputs of training are asked for: export the model for inference",
    ),
    "indices of maxima": (
        [
            make_node("MaxPool", ["x"], ["p", "i"], kernel_shape=[2, 2]),
            make_node("Cast", ["i"], ["y"], to=onnx.TensorProto.FLOAT),
        ],
        {},
        r"node 2 '' \(Cast\) needs 'i', which nothing before it gives",
    ),
    "window": (
        [make_node("AveragePool", ["x"], ["y"], kernel_shape=[9, 2])],
        {},
        r"a window of \(9, 2\) does not fit an image of \(7, 6\)",
    ),
    "window in the padding": (
        [make_node("MaxPool", ["x"], ["y"], kernel_shape=[1, 1], pads=[1, 1, 1, 1])],
        {},
        "lies in the padding alone",
    ),
    "groups": (
        [make_node("Conv", ["x", "a"], ["y"], group=3)],
        {"a": normal(3, 2, 1, 1)},
        r"a kernel of shape \(3, 2, 1, 1\) in 3 groups does not fit 4 channels",
    ),
    "no image": (
        [make_node("Flatten", ["x"], ["f"]), make_node("GlobalAveragePool", ["f"], ["y"])],
        {},
        r"node 2 .*: expected an input of shape \(1, channels, …\), found \(1, 168\)",
    ),
    "training": (
        [make_node("Dropout", ["x", "", "a"], ["y"])],
        {"a": np.array(True)},
        "training_mode is true: export the model for inference",
    ),
    "batch normalisation": (
        [make_node("BatchNormalization", ["x", "a", "a", "a", "a"], ["y"])],
        {"a": np.full(4, -1, dtype=np.float32)},
        "the variance -1.0 .* is not positive",
    ),
    "padding": (
        [make_node("Pad", ["x", "a", "b"], ["y"])],
        {"a": integers(*[1] * 8), "b": np.array(2, dtype=np.float32)},
        r"padding with 2\.0 cannot be verified; expected 0",
    ),
    "padding mode": (
        [make_node("Pad", ["x", "a"], ["y"], mode="reflect")],
        {"a": integers(*[1] * 8)},
        "mode = b'reflect' cannot be verified",
    ),
    "cast": (
        [make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.INT64)],
        {},
        "to = INT64 cannot be verified; expected FLOAT",
    ),
    "clip": (
        [make_node("Clip", ["x", "a", "b"], ["y"])],
        {"a": np.array(2, dtype=np.float32), "b": np.array(1, dtype=np.float32)},
        r"min = 2\.0, max = 1\.0: expected min <= max",
    ),
    "way to pad": (
        [make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="SAME")],
        {},
        "auto_pad = SAME is none of ONNX's ways to pad",
    ),
    "missing value": (
        [make_node("Add", ["x", "z"], ["y"], name="sum")],
        {},
        r"node 1 'sum' \(Add\) needs 'z', which nothing before it gives",
    ),
    "missing input": (
        [make_node("Conv", ["x", ""], ["y"])],
        {},
        r"\(Conv\): is not valid in opset 13: .* input 1 is marked single",
    ),
    "malformed": (
        [make_node("Reshape", ["x", "a"], ["y"])],
        {"a": integers(5, 5)},
        r"node 1 '' \(Reshape\) is malformed: cannot reshape",
    ),
    "constant output": (
        [make_node("Identity", ["a"], ["y"])],
        {"a": normal(4)},
        "output 'y' does not depend on the input",
    ),
    "empty output": (
        [make_node("Slice", ["x", "a", "a"], ["y"])],
        {"a": integers(1)},
        "output 'y' does not depend on the input",
    ),
    "not an array": (
        [make_node("Shape", ["x"], ["s"]), make_node("Range", ["s", "a", "s"], ["y"])],
        {"a": integers(1)},
        r"node 2 '' \(Range\) is malformed: ",
    ),
    "weights": (
        [make_node("Add", ["x", "broken"], ["y"])],
        {"broken": np.array([1, np.nan], dtype=np.float32)},
        "initializer 'broken' has a value that is NaN or infinite",
    ),
    "no nodes": ([], {}, "not an ONNX file, or one without any operator"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_verified_is_named(name: str, tmp_path: Path) -> None:
    nodes, constants, message = REFUSED[name]
    path = saved_onnx(tmp_path, nodes, constants, shape=IMAGE)
    with pytest.raises(CertiflowError, match=message) as caught:
        read_onnx(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_sparse_weight_is_named(tmp_path: Path) -> None:
    """onnxruntime takes it before a dense one of the same name."""
    path = saved_onnx(tmp_path, [make_node("MatMul", ["x", "w"], ["y"])], {"w": normal(4, 2)})
    model = onnx.load(path)
    values = onnx.numpy_helper.from_array(np.ones(1, dtype=np.float32), "w")
    places = onnx.numpy_helper.from_array(np.array([0]), "places")
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, [4, 2]))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CertiflowError, match="the weight 'w' is sparse"):
        read_onnx(path)
