"""One ONNX operator with random attributes and opset: as onnxruntime computes it, or refused.

Below opset 7, which onnxruntime does not run, an operator is defined again here, by ONNX's text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.helper import make_node

from tasks.core.errors import CertiflowError
from tasks.core.models import loading
from tests.model_files import saved_onnx
from tests.soundness.findings import Finding

Array = NDArray[Any]
NUM_POINTS = 4
TOLERANCE = 1e-4  # of the outputs' scale: onnxruntime computes in float32
OLD = 6


@dataclass
class _Graph:
    """A node from x to y with its constants; `defined` is the operator where no runtime has it.

    `refused`: the operator is none of inference.
    """

    operator: str
    attributes: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    defined: Callable[[Array], Array] | None = None
    refused: bool = False


def onnx_operators(rng: np.random.Generator, folder: Path) -> list[Finding]:
    """A file of one operator, read and compared at random points."""
    shape = (1, int(rng.choice([2, 4])), int(rng.integers(4, 8)), int(rng.integers(4, 8)))
    shape = (1, 4, 4, 4) if rng.random() < 0.3 else shape  # in which every axis fits every other
    opset = OLD if rng.random() < 0.2 else int(rng.integers(OLD, 22))
    name = str(rng.choice(list(OPERATORS)))
    graph = OPERATORS[name](rng, shape, opset)
    node = make_node(graph.operator, ["x", *graph.constants], ["y"], **graph.attributes)
    path = saved_onnx(folder, [node], graph.constants, shape=shape, opset=opset)
    points = rng.normal(size=(NUM_POINTS, *shape)).astype(np.float32)
    try:
        network = loading.load(path).network
    except CertiflowError as error:
        return [Finding("onnx", "undecided", f"{graph.operator} refused: {error}")]
    what = f"{graph.operator}-{opset} {graph.attributes}"
    if graph.refused:
        return [Finding("onnx", "wrong", f"{what} is read, and is none of inference")]
    expected = _expected(path, graph, points, opset)
    if expected is None:
        return [Finding("onnx", "undecided", f"{what}: nothing runs it")]
    found = network(points)
    if found.shape != expected.shape:
        return [Finding("onnx", "wrong", f"{what}: {found.shape[1]} outputs, not {expected.shape}")]
    error = np.abs(found - expected).max() / max(1.0, np.abs(expected).max())
    if not error <= TOLERANCE:
        return [Finding("onnx", "wrong", f"{what}: relative error {error:.3g}")]
    return [Finding("onnx", "right")]


def _expected(path: Path, graph: _Graph, points: Array, opset: int) -> Array | None:
    """Outputs, (points, outputs); None where nothing tells them."""
    import onnxruntime

    if opset <= OLD and graph.defined is not None:
        return np.stack([graph.defined(point.astype(np.float64)).ravel() for point in points])
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return np.stack([session.run(None, {"x": point})[0].ravel() for point in points])
    except Exception:  # onnxruntime's share no base class
        return None


def _binary(rng: np.random.Generator, shape: tuple[int, ...], opset: int) -> _Graph:
    operator = str(rng.choice(["Add", "Sub", "Mul", "Div"]))
    apply = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[operator]
    if opset > OLD:
        other = rng.normal(size=[size if rng.random() < 0.7 else 1 for size in shape])
        return _Graph(operator, {}, {"b": other.astype(np.float32)})
    axis = int(rng.integers(0, 4))  # the constant's first axis in x
    other = rng.normal(size=shape[axis : axis + int(rng.integers(1, 5 - axis))]).astype(np.float32)
    attributes = {"broadcast": 1, "axis": axis}
    if rng.random() < 0.3:  # suffix matching
        other, attributes = rng.normal(size=shape[axis:]).astype(np.float32), {"broadcast": 1}
    behind = len(shape) - attributes.get("axis", axis) - other.ndim
    aligned = other.reshape(*other.shape, *[1] * behind)
    return _Graph(operator, attributes, {"b": other}, lambda x: apply(x, aligned))


def _normalisation(rng: np.random.Generator, shape: tuple[int, ...], opset: int) -> _Graph:
    scale, shift, mean, variance = rng.normal(size=(4, shape[1])).astype(np.float32)
    variance, epsilon = np.abs(variance) + np.float32(0.1), float(rng.choice([1e-5, 1e-2]))
    constants = {"scale": scale, "shift": shift, "mean": mean, "variance": variance}
    attributes: dict[str, Any] = {"epsilon": epsilon}
    training = False
    if opset <= OLD:
        attributes["is_test"] = int(rng.integers(0, 2))
        training = not attributes["is_test"]

    def defined(x: Array) -> Array:
        parts = (part.reshape(-1, 1, 1) for part in (scale, shift, mean, variance))
        s, b, m, v = parts
        return s * (x - m) / np.sqrt(v + epsilon) + b

    return _Graph("BatchNormalization", attributes, constants, defined, training)


def _window(rng: np.random.Generator, *, dilated: bool = True) -> dict[str, Any]:
    extents = rng.integers(1, 4, size=2)
    attributes: dict[str, Any] = {
        "kernel_shape": extents.tolist(),
        "strides": rng.integers(1, 3, size=2).tolist(),
    }
    if dilated and rng.random() < 0.5:
        attributes["dilations"] = rng.integers(1, 3, size=2).tolist()
    match rng.choice(["pads", "SAME_UPPER", "SAME_LOWER", "VALID"]):
        case "pads":
            attributes["pads"] = rng.integers(0, np.tile(extents, 2)).tolist()
        case same:
            attributes["auto_pad"] = str(same)
    return attributes


def _convolution(rng: np.random.Generator, shape: tuple[int, ...], opset: int) -> _Graph:
    attributes = _window(rng)
    group = int(rng.choice([1, 2]))
    size = (2 * group, shape[1] // group, *attributes["kernel_shape"])
    constants = {"k": rng.normal(size=size).astype(np.float32)}
    if rng.random() < 0.5:
        constants["b"] = rng.normal(size=2 * group).astype(np.float32)
    return _Graph("Conv", attributes | {"group": group}, constants)


def _pooling(rng: np.random.Generator, shape: tuple[int, ...], opset: int) -> _Graph:
    operator = str(rng.choice(["MaxPool", "AveragePool"]))
    since_dilated = {"MaxPool": 10, "AveragePool": 19}[operator]
    attributes = _window(rng, dilated=opset >= since_dilated)
    if opset >= 10 and rng.random() < 0.3:
        attributes["ceil_mode"] = 1
    if operator == "AveragePool" and opset >= 7:
        attributes["count_include_pad"] = int(rng.integers(0, 2))
    return _Graph(operator, attributes)


def _dilated_pooling(rng: np.random.Generator, shape: tuple[int, ...], opset: int) -> _Graph:
    """With automatic padding, which runtimes and ONNX's text count differently."""
    graph = _pooling(rng, shape, opset)
    if (graph.operator, opset) >= ("MaxPool", 10):
        graph.attributes.pop("pads", None)
        graph.attributes |= {"dilations": [2, 2], "auto_pad": "SAME_UPPER"}
    return graph


def _clip(rng: np.random.Generator, shape: tuple[int, ...], opset: int) -> _Graph:
    low, high = sorted(rng.normal(size=2).astype(np.float32).tolist())
    if opset < 11:
        return _Graph("Clip", {"min": low, "max": high}, {}, lambda x: np.clip(x, low, high))
    return _Graph("Clip", {}, {"low": np.float32(low), "high": np.float32(high)})


def _padding(rng: np.random.Generator, shape: tuple[int, ...], opset: int) -> _Graph:
    pads = rng.integers(-1, 3, size=8) * (rng.random(8) < 0.5)
    mode = str(rng.choice(["constant", "constant", "reflect", "edge"]))
    if opset < 11:
        return _Graph("Pad", {"mode": mode, "pads": pads.tolist()})
    return _Graph("Pad", {"mode": mode}, {"pads": pads.astype(np.int64)})


def _reduction(rng: np.random.Generator, shape: tuple[int, ...], opset: int) -> _Graph:
    operator = str(rng.choice(["ReduceMean", "ReduceSum"]))
    chosen = rng.permutation(4)[: int(rng.integers(1, 4))]
    attributes: dict[str, Any] = {"keepdims": int(rng.integers(0, 2))}
    since_input = {"ReduceMean": 18, "ReduceSum": 13}[operator]
    if opset >= since_input:
        return _Graph(operator, attributes, {"axes": np.sort(chosen).astype(np.int64)})
    return _Graph(operator, attributes | {"axes": np.sort(chosen).tolist()})


def _moves(rng: np.random.Generator, shape: tuple[int, ...], opset: int) -> _Graph:
    match rng.choice(["Flatten", "Transpose", "Reshape", "Gather", "Dropout", "Identity"]):
        case "Flatten":
            return _Graph("Flatten", {"axis": int(rng.integers(0, 4))})
        case "Transpose":
            return _Graph("Transpose", {"perm": rng.permutation(4).tolist()})
        case "Reshape":
            return _Graph("Reshape", {}, {"to": np.array([0, -1, shape[3]], dtype=np.int64)})
        case "Gather":
            axis = int(rng.integers(1, 4))
            index = rng.integers(0, shape[axis], size=3).astype(np.int64)
            return _Graph("Gather", {"axis": axis}, {"index": index})
        case "Dropout" if opset <= OLD:
            tested = int(rng.integers(0, 2))
            return _Graph("Dropout", {"is_test": tested}, {}, lambda x: x, not tested)
        case kind:
            return _Graph(str(kind), {}, {}, lambda x: x)


def _bent(rng: np.random.Generator, shape: tuple[int, ...], opset: int) -> _Graph:
    alpha = float(np.float32(rng.uniform(-0.5, 1.5)))
    return _Graph("LeakyRelu", {"alpha": alpha}, {}, lambda x: np.where(x < 0, alpha * x, x))


def _extreme(rng: np.random.Generator, shape: tuple[int, ...], opset: int) -> _Graph:
    """Max, Min and Sum of x, and a constant."""
    operator = str(rng.choice(["Max", "Min", "Sum"]))
    apply = {"Max": np.maximum, "Min": np.minimum, "Sum": np.add}[operator]
    sizes = [size if opset < 8 or rng.random() < 0.7 else 1 for size in shape]
    other = rng.normal(size=sizes).astype(np.float32)
    if rng.random() < 0.3:
        other[:] = 0
    return _Graph(operator, {}, {"b": other}, lambda x: apply(x, other))


def _product(rng: np.random.Generator, shape: tuple[int, ...], opset: int) -> _Graph:
    """With a vector, a matrix, or a matrix with leading axes of 1."""
    kind = [(shape[3],), (shape[3], 3), (1, shape[3], 2), (1, 1, 1, shape[3], 2)]
    other = rng.normal(size=kind[int(rng.integers(len(kind)))]).astype(np.float32)
    return _Graph("MatMul", {}, {"b": other}, lambda x: np.matmul(x, other))


OPERATORS: dict[str, Callable[[np.random.Generator, tuple[int, ...], int], _Graph]] = {
    "binary": _binary,
    "normalisation": _normalisation,
    "convolution": _convolution,
    "pooling": _pooling,
    "dilated pooling": _dilated_pooling,
    "clip": _clip,
    "padding": _padding,
    "reduction": _reduction,
    "moves": _moves,
    "bent": _bent,
    "extreme": _extreme,
    "product": _product,
}
