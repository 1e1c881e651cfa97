"""The network of an ONNX file: affine steps and ReLUs in a chain, on the very numbers of the file.

Convolutions are written out as matrices. Whatever is not read here is refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .refused import RefusedError, needed

MOST_WEIGHTS = 2**27  # of a matrix written out
FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}
READ_TYPES = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}
ROOT = 32  # roundings of a quotient by a root, in any way of computing it
MOST_GROWTH = 2.0**300  # of coefficients on their way back through all layers, see `bounds`
LEAST_FACTOR = 2.0**-1000  # of a normalisation: below, its error is no share of it


@dataclass(frozen=True, eq=False)
class Step:
    """`x -> W x + bias`, W (outputs, inputs) within `slack` of `weight`, relatively."""

    weight: Any
    bias: Any
    slack: float = 0.0

    @cached_property
    def absolute(self) -> Step:
        """|weight| and |bias|."""
        return Step(np.abs(self.weight), np.abs(self.bias))

    @cached_property
    def terms(self) -> int:
        """The most products in the sum that makes an output; more where a root is taken."""
        return int(np.count_nonzero(self.weight, axis=1).max()) + (ROOT if self.slack else 0)

    @cached_property
    def gain(self) -> float:
        """The greatest sum of |weights| that makes an output, at least 1."""
        return max(1.0, float(self.absolute.weight.sum(axis=1).max()))


@dataclass(frozen=True)
class Network:
    """`layers[k]`: the steps before the ReLUs of hidden layer k, the last before the outputs.

    `widths` are the sizes of the layers, the last one's that of the outputs.
    """

    inputs: int
    layers: list[list[Step]]
    widths: list[int]


def read_network(path: Path) -> Network:
    """Raises `RefusedError` where the file is damaged or holds anything that is not read."""
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        _check_file(model)
        network = _Chain(model.graph).network()
        steps = [step for layer in network.layers for step in layer]
        finite = all(np.isfinite(each).all() for s in steps for each in (s.weight, s.bias))
        needed(finite, "a weight is not finite")
        greatest = max(float(step.absolute.bias.max()) for step in steps)
        growth = np.prod([step.gain for step in steps]) * max(greatest, 1.0)
        needed(growth < MOST_GROWTH, "the weights are too large")
        return network
    except Exception as error:  # protobuf's and numpy's have no class in common
        raise RefusedError(
            f"{path}: cannot be read as affine steps and ReLUs ({error!r})"
        ) from error


def _check_file(model: onnx.ModelProto) -> None:
    """What runtimes may read otherwise: functions, old operators, a value that is given twice."""
    graph = model.graph
    needed(not model.functions, "functions are not read")
    needed(not graph.sparse_initializer, "sparse weights are not read")
    versions = [each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}]
    needed(len(versions) == 1 and versions[0] >= 7, f"operators of the versions {versions}")
    weights = [each.name for each in graph.initializer]
    given = [each.name for each in graph.input if each.name not in weights]
    names = [*given, *weights, *(name for node in graph.node for name in node.output)]
    twice = sorted(name for name, count in Counter(names).items() if name and count > 1)
    needed(not twice, f"{', '.join(twice)} is given twice")


class _Chain:
    """The steps so far; `order`, of the tensor's shape: which of the last outputs is where."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants = {each.name: _array(each) for each in graph.initializer}
        (given,) = (each for each in graph.input if each.name not in self.constants)
        kind = given.type.tensor_type
        needed(kind.elem_type in READ_TYPES, f"the input is of ONNX's type {kind.elem_type}")
        sizes = [each.dim_value for each in kind.shape.dim]
        needed(sizes[0] in {0, 1}, f"the first axis has {sizes[0]} places and is no batch's")
        self.value, self.order = given.name, np.arange(int(np.prod(sizes[1:]))).reshape(sizes[1:])
        self.layers: list[list[Step]] = [[]]

    def network(self) -> Network:
        inputs = self.order.size
        for node in self.graph.node:
            options = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            plain = node.domain in {"", "ai.onnx"} and node.output[0] not in self.constants
            needed(plain, f"{node.op_type} of the domain '{node.domain}' gives {node.output[0]}")
            if node.op_type == "Constant":
                self.constants[node.output[0]] = _array(options["value"])
                continue
            given = [self.constants.get(name) for name in node.input if name]
            values = [name for name in node.input if name and name not in self.constants]
            needed(values == [self.value], f"{node.op_type} {node.name} does not follow the last")
            self._add(node.op_type, given, options)
            self.value = node.output[0]
        needed([self.value] == [each.name for each in self.graph.output], "the end is no output")
        if (self.order.ravel() != np.arange(self.order.size)).any() or not self.layers[-1]:
            self._append(np.eye(self.order.size), 0, (self.order.size,))
        return Network(inputs, self.layers, [len(steps[-1].bias) for steps in self.layers])

    def _add(self, kind: str, given: list[Any], options: dict[str, Any]) -> None:
        needed(
            options.keys() <= _READ.get(kind, set()), f"{kind} with {sorted(options)} is not read"
        )
        types = {each.dtype for each in given if each is not None and kind != "Reshape"}
        needed(
            types <= FLOATS,
            f"a weight of {kind} is of type {', '.join(sorted(map(str, types - FLOATS)))}",
        )
        constant: Any = next((each for each in given if each is not None), None)
        match kind:
            case "Relu":
                if not self.layers[-1]:
                    self._append(np.eye(self.order.size), 0, self.order.shape)
                self.layers.append([])
            case "Flatten" if _are(options, axis=1):
                self.order = self.order.ravel()
            case "Reshape" if given[0] is None and _are(options, allowzero=0):
                self._reshape(*constant.tolist())
            case "Transpose" if options["perm"][0] == 0:
                self.order = self.order.transpose([axis - 1 for axis in options["perm"][1:]])
            case "Add" | "Sub" if kind == "Add" or given[0] is None:
                self._shift(constant if kind == "Add" else -constant)
            case "BatchNormalization" if len(given) == 5 and given[0] is None:
                along = (-1, *[1] * (self.order.ndim - 1))  # the first axis that is not the batch's
                scale, shift, mean, variance = (each.reshape(along) for each in given[1:])
                self._shift(-mean)
                epsilon = options.get("epsilon", float(np.float32(1e-5)))
                factor = scale / np.sqrt(variance.astype(np.float64) + epsilon)
                is_normal = (np.abs(factor) > LEAST_FACTOR) | (scale == 0)
                needed(is_normal.all(), "a normalisation's factor is too small")
                self._scale(factor)
                self._shift(shift)
            case "MatMul" if given[0] is None and self.order.shape[-1] == self.order.size:
                self._append(constant.T, 0, (*self.order.shape[:-1], constant.shape[1]))
            case "Gemm" if given[0] is None and _are(options, transA=0, alpha=1.0, beta=1.0):
                needed(self.order.ndim == 1, "Gemm of more than rows")
                weight = given[1] if options.get("transB", 0) else given[1].T
                bias = given[2] if len(given) > 2 else np.zeros(1)
                self._append(weight, np.broadcast_to(bias, (1, len(weight)))[0], (len(weight),))
            case "Conv" if given[0] is None and _are(options, group=1, auto_pad=b"NOTSET"):
                self._convolve(given, options)
            case "Identity" | "Dropout" if len(given) == 1:
                pass
            case _:
                raise RefusedError(f"{kind} with {options} is not read")

    def _reshape(self, batch: int, *sizes: int) -> None:
        """0 keeps an axis; -1 is what is left, of the batch too where the others make all of it."""
        kept = [size or self.order.shape[axis] for axis, size in enumerate(sizes)]
        of_batch = batch in {0, 1} or (batch == -1 and np.prod(kept) == self.order.size)
        needed(of_batch, f"a Reshape to {batch, *sizes} does not keep the batch")
        self.order = self.order.reshape(kept)

    def _convolve(self, given: list[Any], options: dict[str, Any]) -> None:
        (outputs, read, tall, wide), (channels, height, width) = given[1].shape, self.order.shape
        (down, right), (by, along) = (options.get(k, [1, 1]) for k in ("strides", "dilations"))
        top, left, bottom, end = options.get("pads", [0, 0, 0, 0])
        places = np.full((channels, height + top + bottom, width + left + end), self.order.size)
        places[:, top : top + height, left : left + width] = np.arange(self.order.size).reshape(
            self.order.shape
        )
        y = np.arange(0, places.shape[1] - by * (tall - 1), down)[:, None]
        x = np.arange(0, places.shape[2] - along * (wide - 1), right)[None, :]
        size = outputs * y.size * x.size
        needed(read == channels and size * self.order.size <= MOST_WEIGHTS, "a convolution's size")
        weight = np.zeros((outputs, y.size, x.size, self.order.size + 1))  # the last is the padding
        rows, columns = np.indices((y.size, x.size))
        for channel, i, j in np.ndindex(channels, tall, wide):
            at = places[channel, y + by * i, x + along * j]
            weight[:, rows, columns, at] += given[1][:, channel, i, j, None, None]
        bias = np.repeat(given[2], y.size * x.size) if len(given) > 2 else 0
        self._append(weight[..., :-1].reshape(size, -1), bias, (outputs, y.size, x.size))

    def _shift(self, constant: Any) -> None:
        """Plus a constant: as the last step's bias, if it has none, so that nothing is rounded."""
        bias = self._spread(constant)
        if not self.layers[-1] or self.layers[-1][-1].bias.any():
            self.layers[-1].append(Step(np.eye(len(bias)), bias))
        else:
            self.layers[-1][-1] = replace(self.layers[-1][-1], bias=bias)

    def _scale(self, factor: Any) -> None:
        """Times a quotient by a root, which float64 has but for 2^-50."""
        factors = self._spread(factor)
        self.layers[-1].append(Step(np.diag(factors), np.zeros(len(factors)), 2.0**-50))

    def _spread(self, values: Any) -> Any:
        """Broadcast to the tensor, in the order of the last step's outputs."""
        needed(self.order.size**2 <= MOST_WEIGHTS, f"a tensor of {self.order.size}")
        flat = np.empty(self.order.size)
        flat[self.order.ravel()] = np.broadcast_to(values, (1, *self.order.shape)).ravel()
        return flat

    def _append(self, weight: Any, bias: Any, shape: tuple[int, ...]) -> None:
        """A step whose columns are in the tensor's order; its outputs make a tensor of `shape`."""
        placed = np.zeros(weight.shape)
        placed[:, self.order.ravel()] = weight
        biases = np.broadcast_to(np.asarray(bias, dtype=np.float64), len(placed))
        self.layers[-1].append(Step(placed, biases))
        self.order = np.arange(len(placed)).reshape(shape)


_READ = {  # attributes that change nothing here, or are looked at
    **{kind: set[str]() for kind in ("Relu", "Add", "Sub", "MatMul", "Identity")},
    "Flatten": {"axis"},
    "Reshape": {"allowzero"},
    "Transpose": {"perm"},
    "Gemm": {"alpha", "beta", "transA", "transB", "broadcast"},
    "Conv": {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"},
    "Dropout": {"ratio", "seed"},
    "BatchNormalization": {"epsilon", "momentum"},
}


def _array(tensor: onnx.TensorProto) -> Any:
    """What is in the file itself: nothing else has been held against a digest."""
    needed(not tensor.external_data, f"{tensor.name} lies in another file")
    return onnx.numpy_helper.to_array(tensor)


def _are(options: dict[str, Any], **expected: Any) -> bool:
    """Whether the attributes are these, or left at their defaults, which these are."""
    return all(options.get(name, value) == value for name, value in expected.items())
