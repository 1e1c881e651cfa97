"""One ONNX node with its inputs, as the operators read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from tasks.core.errors import CertiflowError
from tasks.core.lowering import Lowering, Tensor
from tasks.core.specification import FloatArray
from tasks.core.windows import Shape, Window

Array = NDArray[Any]
Value = Tensor | Array


@dataclass(frozen=True, eq=False)
class Node:
    """`inputs` are constants or tensors of the lowering; None where an optional one is left out.

    The readers raise `CertiflowError` when an input is missing or of the other sort.
    """

    proto: onnx.NodeProto
    opset: int
    inputs: Sequence[Value | None]
    lowering: Lowering

    @property
    def depends_on_input(self) -> bool:
        """Whether any input of the node depends on the network's."""
        return any(isinstance(value, Tensor) for value in self.inputs)

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute as a Python value; `default` is what ONNX says it is when left out."""
        return self._attributes.get(name, default)

    def require(self, **expected: Any) -> None:
        """Refuses attributes with another value than the one given, which is ONNX's default."""
        for name, value in expected.items():
            found = self.attribute(name, value)
            if found != value:
                raise CertiflowError(f"{name} = {found} cannot be verified; expected {value}")

    def tensor(self, index: int) -> Tensor:
        """Input `index`, made a tensor when it is a constant."""
        value = self._input(index)
        return value if isinstance(value, Tensor) else self.lowering.constant(self.array(index))

    def image(self, index: int) -> Tensor:
        """Input `index` of shape (1, channels, …)."""
        tensor = self.tensor(index)
        if len(tensor.shape) < 3 or tensor.shape[0] != 1:
            raise CertiflowError(
                f"expected an input of shape (1, channels, …), found {tensor.shape}"
            )
        return tensor

    def optional(self, index: int) -> Array | None:
        """Constant input `index`, None when it is left out."""
        return None if self._input(index) is None else self.array(index)

    def array(self, index: int) -> Array:
        """Constant input `index`."""
        value = self._input(index)
        if value is None:
            raise CertiflowError(f"input {index + 1} is missing")
        if isinstance(value, Tensor):
            raise CertiflowError(
                f"input {index + 1} depends on the network's input; expected a constant"
            )
        return value

    def weights(self, index: int) -> FloatArray:
        """Constant input `index` in float64."""
        return self.array(index).astype(np.float64)

    def matrix(self, index: int) -> FloatArray:
        """Constant input `index` of two axes in float64."""
        weights = self.weights(index)
        if weights.ndim != 2:
            raise CertiflowError(
                f"expected a matrix as input {index + 1}, found the shape {weights.shape}"
            )
        return weights

    def window(self, tensor: Tensor, extents: Shape) -> Window:
        """The window that a convolution or pooling slides over `tensor`, (1, channels, *sizes)."""
        self.require(ceil_mode=0)
        ones, zeros = (1,) * len(extents), (0,) * len(extents)
        strides = tuple(self.attribute("strides", ones))
        dilations = tuple(self.attribute("dilations", ones))
        pads = tuple(self.attribute("pads", zeros + zeros))
        match self.attribute("auto_pad", b"NOTSET"):
            case b"SAME_UPPER" | b"SAME_LOWER" as same:
                odd_before = same == b"SAME_LOWER"
                return Window.same(tensor.shape[2:], extents, strides, dilations, odd_before)
            case b"VALID":
                pads = zeros + zeros
            case unknown if unknown != b"NOTSET":
                raise CertiflowError(f"auto_pad = {unknown} is none of ONNX's ways to pad")
        return Window(extents, strides, dilations, pads[: len(extents)], pads[len(extents) :])

    def constants(self, first: int = 0) -> list[Array | None]:
        """The inputs from `first` on, which must all be constants."""
        return [self.optional(index) for index in range(first, len(self.inputs))]

    def evaluated(self, inputs: Sequence[Array | None]) -> list[Array]:
        """The node's outputs on plain arrays, by ONNX's own reference."""
        given = {
            name: value
            for name, value in zip(self.proto.input, inputs, strict=True)
            if value is not None
        }
        untyped = onnx.TypeProto()
        graph = onnx.helper.make_graph(
            [self.proto],
            "node",
            [onnx.helper.make_value_info(name, untyped) for name in given],
            [onnx.helper.make_value_info(name, untyped) for name in self.proto.output],
        )
        opsets = [onnx.helper.make_opsetid("", self.opset)]
        model = onnx.helper.make_model(graph, opset_imports=opsets)
        reference: Any = ReferenceEvaluator(model)
        return reference.run(None, given)

    def _input(self, index: int) -> Value | None:
        return self.inputs[index] if index < len(self.inputs) else None

    @cached_property
    def _attributes(self) -> dict[str, Any]:
        return {
            entry.name: onnx.helper.get_attribute_value(entry) for entry in self.proto.attribute
        }
