"""Every attribute of every operator in every opset means what onnxruntime makes of it, or is
refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

from tasks.core.errors import CertiflowError
from tasks.core.models.runtimes import OnnxRuntime
from tasks.core.readers.onnx_network import read_onnx
from tasks.core.readers.onnx_node import OF_MACHINE_LEARNING
from tasks.core.readers.onnx_operators import OPERATORS
from tests.model_files import Constants, Shape, integers, normal, saved_onnx

IMAGE: Shape = (1, 4, 5, 6)
OLDEST, NEWEST = 7, 28


@dataclass
class Sample:
    """One node: what stands behind its first input, and its attributes besides the tested one."""

    constants: Constants = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    shape: Shape = IMAGE
    outputs: int = 1
    opsets: range = range(OLDEST, NEWEST + 1)


def scalar(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float32)


STATISTICS = {
    "scale": normal(4),
    "shift": normal(4, seed=1),
    "mean": normal(4, seed=2),
    "variance": abs(normal(4, seed=3)),
}
BROADCAST = [Sample({"a": abs(normal(4, 1, 6)) + 1}), Sample({"a": scalar(3)})]
SEVERAL = [
    Sample({"a": normal(*IMAGE)}),
    Sample({"a": normal(*IMAGE), "b": normal(*IMAGE, seed=1)}),
    Sample(),
    Sample({"a": normal(4, 1, 6), "b": scalar(0.3)}, opsets=range(8, NEWEST + 1)),
    Sample({"a": np.zeros(6, dtype=np.float32)}, opsets=range(8, NEWEST + 1)),
]
WINDOW = [Sample(attributes={"kernel_shape": [2, 3]})]
SQUARE = {"a": normal(4, 4), "c": normal(4)}
BEFORE_11, SINCE_11 = range(OLDEST, 11), range(11, NEWEST + 1)
BEFORE_13, SINCE_13 = range(OLDEST, 13), range(13, NEWEST + 1)
BEFORE_18, SINCE_18 = range(OLDEST, 18), range(18, NEWEST + 1)
PADS = integers(0, -1, 0, 2, 0, 1, -2, 0)

SAMPLES: dict[str, list[Sample]] = {
    "Abs": [Sample()],
    "Add": BROADCAST,
    "AveragePool": WINDOW,
    "BatchNormalization": [Sample(STATISTICS)],
    "Cast": [Sample(attributes={"to": onnx.TensorProto.FLOAT})],
    "Celu": [Sample()],
    "Clip": [
        Sample(opsets=BEFORE_11),
        Sample({"min": scalar(-0.5), "max": scalar(0.25)}, opsets=SINCE_11),
    ],
    "Concat": [Sample({"a": normal(*IMAGE)}, {"axis": 1})],
    "Conv": [Sample({"k": normal(6, 4, 3, 2), "b": normal(6)})],
    "ConvTranspose": [
        Sample({"k": normal(4, 3, 3, 2), "b": normal(3)}),
        Sample({"k": normal(4, 3, 3, 2)}, {"group": 2, "strides": [2, 3]}),
    ],
    "Cos": [Sample()],
    "DepthToSpace": [Sample(attributes={"blocksize": 2})],
    "Div": BROADCAST,
    "Dropout": [Sample(), Sample({"ratio": scalar(0.5)}, opsets=range(12, NEWEST + 1))],
    "Elu": [Sample()],
    "Erf": [Sample()],
    "Exp": [Sample()],
    "Expand": [Sample({"to": integers(2, 4, 1, 6)}, opsets=range(8, NEWEST + 1))],
    "Flatten": [Sample()],
    "Gather": [Sample({"i": integers(-1, 0)}, {"axis": 1}), Sample({"i": integers(0)})],
    "Gelu": [Sample()],
    "Gemm": [
        Sample(SQUARE, shape=(4, 4)),
        Sample({"a": normal(4, 4), "": scalar(0)}, shape=(4, 4), opsets=SINCE_11),
        Sample({"a": normal(4, 4)}, shape=(4, 4), opsets=SINCE_11),
    ],
    "GlobalAveragePool": [Sample()],
    "HardSigmoid": [Sample()],
    "HardSwish": [Sample()],
    "Identity": [Sample()],
    "LeakyRelu": [Sample()],
    "LogSoftmax": [Sample(shape=(2, 3, 4))],
    "MatMul": [
        Sample({"a": normal(6, 3)}),
        Sample({"a": normal(6)}),
        Sample({"a": normal(1, 1, 1, 6, 3)}),
        Sample({"a": normal(6)}, shape=(6,)),
        Sample({"a": normal(6, 3)}, shape=(6,)),
    ],
    "Max": SEVERAL,
    "MaxPool": WINDOW,
    "Min": SEVERAL,
    "Mul": BROADCAST,
    "Neg": [Sample()],
    "PRelu": [Sample({"a": normal(4, 1, 1)}), Sample({"a": scalar(-0.5)})],
    "Pad": [
        Sample(attributes={"pads": PADS.tolist()}, opsets=BEFORE_11),
        Sample({"pads": PADS}, opsets=SINCE_11),
        Sample({"pads": integers(1, 2), "": scalar(0), "axes": integers(-1)}, opsets=SINCE_18),
    ],
    "Pow": [Sample({"e": scalar(value)}) for value in (2, 3, -1, 1, 4)],
    "Reciprocal": [Sample()],
    "ReduceMean": [Sample(), Sample({"axes": integers(-1, 1)}, opsets=SINCE_18)],
    "ReduceSum": [Sample(), Sample({"axes": integers(-1, 1)}, opsets=SINCE_13)],
    "Relu": [Sample()],
    "Reshape": [Sample({"to": integers(0, -1, 6)}), Sample({"to": integers(6, 20)})],
    "Resize": [
        Sample({"scales": np.array([1, 1, 2, 3], np.float32)}, opsets=range(10, 11)),
        Sample(
            {"roi": np.zeros(0, np.float32), "scales": np.array([1, 1, 3, 2], np.float32)},
            opsets=SINCE_11,
        ),
        Sample({"": scalar(0), "s": np.array([1, 1, 2, 4], np.float32)}, opsets=SINCE_13),
    ],
    "Selu": [Sample()],
    "Shape": [Sample()],
    "Sigmoid": [Sample()],
    "Sign": [Sample()],
    "Sin": [Sample()],
    "Slice": [
        Sample(attributes={"starts": [1, -3], "ends": [100, -1]}, opsets=range(OLDEST, 10)),
        Sample(
            {
                "s": integers(-1, 0),
                "e": integers(-100, 3),
                "a": integers(-1, 1),
                "t": integers(-2, 1),
            },
            opsets=range(10, NEWEST + 1),
        ),
    ],
    "Softmax": [Sample(shape=(2, 3, 4))],
    "Softplus": [Sample()],
    "SpaceToDepth": [Sample(attributes={"blocksize": 2}, shape=(1, 2, 4, 6))],
    "Split": [
        Sample(attributes={"axis": 1}, outputs=2, opsets=BEFORE_18),
        Sample({"parts": integers(1, 3)}, {"axis": 1}, outputs=2, opsets=SINCE_13),
        Sample(attributes={"axis": 2, "num_outputs": 2}, outputs=2, opsets=SINCE_18),
    ],
    "Squeeze": [
        Sample(),
        Sample({"axes": integers(-4)}, opsets=SINCE_13),
    ],
    "Sub": BROADCAST,
    "Sum": SEVERAL,
    "Tanh": [Sample()],
    "Tile": [Sample({"times": integers(1, 2, 1, 3)})],
    "Transpose": [Sample()],
    "Unsqueeze": [
        Sample(attributes={"axes": [0, 3]}, opsets=BEFORE_13),
        Sample({"axes": integers(-1, 1)}, opsets=SINCE_13),
    ],
    "Upsample": [
        Sample(attributes={"scales": [1.0, 1.0, 2.0, 3.0]}, opsets=range(OLDEST, 9)),
        Sample({"scales": np.array([1, 1, 2, 3], np.float32)}, opsets=range(9, 10)),
    ],
}
ELSEWHERE = {"Log", "Sqrt", "Where"}  # not defined everywhere; whose first input is no tensor

# Values that are not the default.
VALUES: dict[str, list[Any]] = {
    "allowzero": [1],
    "antialias": [1],
    "approximate": ["tanh", "other"],
    "blocksize": [3, 1],
    "coordinate_transformation_mode": [
        "asymmetric",
        "align_corners",
        "pytorch_half_pixel",
        "half_pixel_symmetric",
        "tf_half_pixel_for_nn",
        "tf_crop_and_resize",
    ],
    "cubic_coeff_a": [-0.5],
    "exclude_outside": [1],
    "extrapolation_value": [1.0],
    "gamma": [1.5],
    "keep_aspect_ratio_policy": ["not_larger"],
    "nearest_mode": ["floor", "ceil", "round_prefer_ceil"],
    "output_padding": [[1, 0], [0, 1], [2, 2]],
    "output_shape": [[12, 12]],
    "alpha": [0.3, -2.0],
    "auto_pad": ["SAME_UPPER", "SAME_LOWER", "VALID", "SAME"],
    "axes": [[1], [-1, 2], [0]],
    "axis": [-1, 0, 2, 7],
    "beta": [0.3],
    "ceil_mode": [1],
    "count_include_pad": [1],
    "dilations": [[1, 2], [2, 1], [0, 1]],
    "end": [-1, 2, 9],
    "ends": [[2, -2]],
    "epsilon": [0.1],
    "group": [2],
    "keepdims": [0],
    "kernel_shape": [[3, 2], [1, 1], [2]],
    "max": [0.1],
    "min": [0.1],
    "mode": ["reflect", "edge", "wrap", "linear", "CRD"],
    "momentum": [0.5],
    "noop_with_empty_axes": [1],
    "num_outputs": [2, 3],
    "pads": [[1, 0, 1, 1], [0, 2, 0, 0], [0, -1, 0, 0], [0, 1, 1, 0, 1, 0, -1, 2]],
    "perm": [[3, 1, 0, 2], [0, 2, 1, 3]],
    "ratio": [0.2],
    "round_mode": ["down"],
    "saturate": [0],
    "scales": [],
    "seed": [3],
    "spatial": [0],
    "split": [[1, 3]],
    "start": [1, -2],
    "starts": [[1, 2]],
    "storage_order": [1],
    "strides": [[2, 1], [3, 3]],
    "to": [onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64, onnx.TensorProto.FLOAT16],
    "training_mode": [1],
    "transA": [1],
    "transB": [1],
    "value": [1.5],
}


def opsets(operator: str) -> list[int]:
    """Those in which the operator's text changed, and the oldest."""
    versions = {
        schema.since_version
        for schema in onnx.defs.get_all_schemas_with_history()
        if schema.name == operator and not schema.domain
    }
    oldest = [] if min(versions) > OLDEST else [OLDEST]
    last = NEWEST
    if operator == "Upsample":
        last = 9  # after which it is no operator any more
    return oldest + sorted(version for version in versions if OLDEST < version <= last)


def variations(operator: str, opset: int) -> list[tuple[Sample, dict[str, Any]]]:
    """The operator's samples as they are, and with every other value of every attribute."""
    samples = [sample for sample in SAMPLES[operator] if opset in sample.opsets]
    assert samples, f"no sample of {operator} in opset {opset}"
    names = onnx.defs.get_schema(operator, opset).attributes
    return [
        (sample, sample.attributes | changed)
        for sample in samples
        for changed in ({}, *({name: value} for name in names for value in VALUES[name]))
    ]


def written(
    folder: Path, operator: str, opset: int, variation: tuple[Sample, dict[str, Any]], first: str
) -> Path:
    """A file that joins all that the operator gives to the flattened input."""
    sample, attributes = variation
    outputs = [f"h{number}" for number in range(sample.outputs)]
    nodes = [make_node(operator, [first, *sample.constants], outputs, **attributes)]
    nodes.append(make_node("Reshape", ["x", "flat"], ["x1"]))
    for name in outputs:
        nodes.append(make_node("Cast", [name], [f"{name}f"], to=onnx.TensorProto.FLOAT))
        nodes.append(make_node("Reshape", [f"{name}f", "flat"], [f"{name}1"]))
    nodes.append(make_node("Concat", ["x1", *(f"{name}1" for name in outputs)], ["y"], axis=0))
    constants = {name: value for name, value in sample.constants.items() if name}
    constants |= {"flat": integers(-1)}
    if first != "x":
        constants[first] = normal(*sample.shape, seed=9)
    return saved_onnx(folder, nodes, constants, shape=sample.shape, opset=opset)


def agrees(path: Path, what: object) -> bool:
    """Whether the file was read as onnxruntime reads it; False where either refuses it."""
    try:
        network = read_onnx(path).network
        runtime = OnnxRuntime(path)
        points = normal(5, *runtime.input_shape, seed=5)
        expected = runtime.logits(points)
    except CertiflowError:
        return False
    np.testing.assert_allclose(network(points), expected, rtol=1e-5, atol=1e-5, err_msg=str(what))
    return True


def test_every_operator_has_a_sample() -> None:
    assert SAMPLES.keys() | ELSEWHERE == OPERATORS.keys() - OF_MACHINE_LEARNING


@pytest.mark.parametrize("operator", SAMPLES)
def test_attributes_are_read_as_onnxruntime_does(operator: str, tmp_path: Path) -> None:
    for opset in opsets(operator):
        for variation in variations(operator, opset):
            sample, attributes = variation
            path = written(tmp_path, operator, opset, variation, "x")
            assert agrees(path, (opset, attributes)) or attributes != sample.attributes


@pytest.mark.parametrize("operator", SAMPLES)
def test_constants_are_folded_as_onnxruntime_does(operator: str, tmp_path: Path) -> None:
    read = [
        agrees(written(tmp_path, operator, opset, variation, "constant"), (opset, variation[1]))
        for opset in opsets(operator)
        for variation in variations(operator, opset)
    ]
    assert any(read)


def test_an_attribute_that_an_operator_passes_over_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPERATORS, "LeakyRelu", lambda node: node.lowering.relu(node.tensor(0)))
    path = saved_onnx(tmp_path, [make_node("LeakyRelu", ["x"], ["y"], alpha=0.5)], opset=16)
    with pytest.raises(
        CertiflowError, match=r"\(LeakyRelu\): alpha = 0\.5 is not read in opset 16; export"
    ):
        read_onnx(path)


INTEGERS = integers(-7, 7, -7, 7, 0)
OTHERS = integers(2, -2, -2, 2, 3)
MASK = INTEGERS > 0


@pytest.mark.parametrize("kind", [np.int64, np.float32])
@pytest.mark.parametrize(
    ("operator", "inputs", "attributes"),
    [
        *((operator, [INTEGERS, OTHERS], {}) for operator in ("Add", "Sub", "Mul", "Div")),
        *((operator, [INTEGERS[:, None], OTHERS], {}) for operator in ("Max", "Min", "Equal")),
        *((operator, [INTEGERS / 4], {}) for operator in ("Neg", "Floor", "ReduceSum")),
        ("Sqrt", [abs(INTEGERS)], {}),
        ("Pow", [INTEGERS, abs(OTHERS)], {}),
        ("Range", [integers(1)[0], integers(8)[0], integers(3)[0]], {}),
        ("Cast", [INTEGERS / 4], {"to": onnx.TensorProto.INT32}),
        ("Cast", [INTEGERS / 4], {"to": onnx.TensorProto.BOOL}),
        ("Where", [MASK, INTEGERS, OTHERS], {}),
        ("ConstantOfShape", [integers(2, 3)], {}),
        ("Constant", [], {"value_float": 1.5}),
        ("Constant", [], {"value_ints": [3, -4]}),
    ],
)
def test_arithmetic_on_constants_is_onnxruntimes(
    kind: type[np.generic],
    operator: str,
    inputs: list[np.ndarray],
    attributes: dict[str, Any],
    tmp_path: Path,
) -> None:
    typed = [
        values if values.dtype == bool or operator == "ConstantOfShape" else values.astype(kind)
        for values in inputs
    ]
    constants: Constants = {f"c{number}": values for number, values in enumerate(typed)}
    nodes = [
        make_node(operator, list(constants), ["h"], **attributes),
        make_node("Cast", ["h"], ["f"], to=onnx.TensorProto.FLOAT),
        make_node("Reshape", ["f", "flat"], ["h1"]),
        make_node("Reshape", ["x", "flat"], ["x1"]),
        make_node("Concat", ["x1", "h1"], ["y"], axis=0),
    ]
    path = saved_onnx(tmp_path, nodes, constants | {"flat": integers(-1)}, opset=15)
    assert agrees(path, operator) or kind is np.int64
