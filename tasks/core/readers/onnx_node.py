"""One ONNX node with its inputs, as the operators read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from tasks.core.arrays import FloatArray
from tasks.core.errors import CertiflowError, first_line
from tasks.core.tensors.lowering import Lowering
from tasks.core.tensors.tensor import Tensor
from tasks.core.tensors.windows import Shape, Window

Array = NDArray[Any]
Value = Tensor | Array

MACHINE_LEARNING = "ai.onnx.ml"  # a domain: what is read of it has not changed since its opset 1
OF_MACHINE_LEARNING = {"LinearClassifier", "Normalizer", "Scaler", "ZipMap"}
STANDARD = {"", "ai.onnx"}


def is_of_onnx(node: onnx.NodeProto) -> bool:
    """Whether the operator is ONNX's of that name: other domains' are whatever they are."""
    domains = {MACHINE_LEARNING} if node.op_type in OF_MACHINE_LEARNING else STANDARD
    return node.domain in domains


@dataclass(frozen=True, eq=False)
class Node:
    """`inputs` are constants or tensors of the lowering; None where an optional one is left out.

    The readers raise `CertiflowError` when an input is missing or of the other sort. A node
    remembers which attributes were asked for, so that none is passed over in silence.
    """

    proto: onnx.NodeProto
    opset: int
    inputs: Sequence[Value | None]
    lowering: Lowering
    _asked: set[str] = field(default_factory=set, init=False)

    @property
    def depends_on_input(self) -> bool:
        """Whether any input of the node depends on the network's."""
        return any(isinstance(value, Tensor) for value in self.inputs)

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute as a Python value; `default` is what ONNX says it is when left out."""
        self._asked.add(name)
        return self._attributes.get(name, default)

    def unread(self) -> dict[str, Any]:
        """Attributes that nobody asked for."""
        return {name: value for name, value in self._attributes.items() if name not in self._asked}

    def require(self, **expected: Any) -> None:
        """Refuses attributes with another value than the one given, which is ONNX's default."""
        for name, value in expected.items():
            found = self.attribute(name, value)
            if found != value:
                raise CertiflowError(f"{name} = {found} cannot be verified; expected {value}")

    def check(self) -> None:
        """Refuses what ONNX's schema of the operator in this opset does not allow."""
        context = onnx.checker.C.CheckerContext()
        context.ir_version = onnx.IR_VERSION
        context.opset_imports = {"": self.opset, "ai.onnx": self.opset, MACHINE_LEARNING: 1}
        try:
            onnx.checker.check_node(self.proto, context)
        except onnx.checker.ValidationError as error:
            reason = first_line(error)
            raise CertiflowError(f"is not valid in opset {self.opset}: {reason}") from error

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

    def is_left_out(self, index: int) -> bool:
        """Whether an optional input is not given, or has an empty name."""
        return self._input(index) is None

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

    def vector(self, index: int, length: int) -> FloatArray:
        """Constant input `index` of one axis in float64."""
        weights = self.weights(index)
        if weights.shape != (length,):
            raise CertiflowError(
                f"expected {length} values as input {index + 1}, found the shape {weights.shape}"
            )
        return weights

    def matrix(self, index: int) -> FloatArray:
        """Constant input `index` of two axes in float64."""
        weights = self.weights(index)
        if weights.ndim != 2:
            raise CertiflowError(
                f"expected a matrix as input {index + 1}, found the shape {weights.shape}"
            )
        return weights

    def numbers(self, name: str, default: Shape, least: int) -> Shape:
        """An attribute of as many numbers as its default has, none below `least`."""
        values = tuple(self.attribute(name, default))
        if len(values) != len(default) or min(values) < least:
            raise CertiflowError(
                f"{name} = {values} cannot be verified; expected {len(default)} numbers "
                f"from {least}"
            )
        return values

    def window(self, tensor: Tensor, extents: Shape) -> Window:
        """The window that a convolution or pooling slides over `tensor`, (1, channels, *sizes)."""
        rank, sizes = len(extents), tensor.shape[2:]
        strides = self.numbers("strides", (1,) * rank, least=1)
        dilations = self.numbers("dilations", (1,) * rank, least=1)
        pads = self.numbers("pads", (0, 0) * rank, least=0)
        auto_pad = self.attribute("auto_pad", b"NOTSET").decode()
        if auto_pad not in {"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"}:
            raise CertiflowError(f"auto_pad = {auto_pad} is none of ONNX's ways to pad")
        if auto_pad != "NOTSET" and any(pads):
            raise CertiflowError(f"auto_pad = {auto_pad} and pads = {pads}: give one of the two")
        if not auto_pad.startswith("SAME"):
            return Window(extents, strides, dilations, pads[:rank], pads[rank:])
        same = Window.same(sizes, extents, strides, dilations, auto_pad == "SAME_LOWER")
        if set(dilations) != {1} or same.leaves_out(sizes):
            raise CertiflowError(
                f"auto_pad = {auto_pad} with dilations = {dilations} and strides = {strides}: "
                "runtimes pad this differently; export the model with pads"
            )
        return same

    def constants(self, first: int = 0) -> list[Array | None]:
        """The inputs from `first` on, which must all be constants."""
        return [self.optional(index) for index in range(first, len(self.inputs))]

    def evaluated(self, inputs: Sequence[Array | None]) -> list[Array]:
        """The node's outputs on plain arrays, by ONNX's reference, which reads every attribute."""
        self._asked.update(self._attributes)
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
