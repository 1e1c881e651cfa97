"""What each ONNX operator does to the tensors of a lowering."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.lib.array_utils import normalize_axis_tuple

from tasks.core.errors import CertiflowError
from tasks.core.networks.curves import Kind
from tasks.core.readers.onnx_arithmetic import (
    add,
    clip,
    div,
    gemm,
    leaky_relu,
    matmul,
    maximum,
    minimum,
    mul,
    neg,
    prelu,
    relu,
    scaler,
    sub,
    total,
)
from tasks.core.readers.onnx_curves import (
    absolute,
    celu,
    curve,
    elu,
    gelu,
    hard_sigmoid,
    log_softmax,
    power,
    selu,
    softmax,
    where,
)
from tasks.core.readers.onnx_images import (
    average_pool,
    batch_normalization,
    conv,
    conv_transpose,
    global_average_pool,
    max_pool,
    reduce,
    resize,
)
from tasks.core.readers.onnx_node import Array, Node, Value, is_of_onnx
from tasks.core.readers.onnx_sizes import check_result
from tasks.core.tensors.tensor import Tensor


def is_read(node: onnx.NodeProto) -> bool:
    """Whether the operator can be read, on constants at least."""
    return is_of_onnx(node) and node.op_type in OPERATORS.keys() | FOLDED


def outputs(node: Node) -> list[Value]:
    """The node's outputs, at least those that do not depend on training.

    Raises `CertiflowError` for an operator or attribute that cannot be expressed with affine maps,
    ReLUs, curves and products, and for every attribute that had no part in the outputs and is not
    harmless.
    """
    kind = node.proto.op_type
    _refuse_others(node, kind)
    node.check()
    check_result(node)
    results = _results(node, kind)
    for name, value in node.unread().items():
        if name not in HARMLESS.get(kind, ()):
            found = " ".join(str(value).split())
            raise CertiflowError(
                f"{name} = {found} is not read in opset {node.opset}; export the model without it"
            )
    return results


def _refuse_others(node: Node, kind: str) -> None:
    if not is_read(node.proto):
        raise CertiflowError(f"cannot be verified; supported are {', '.join(OPERATORS)}")
    if kind not in OPERATORS and node.depends_on_input:
        raise CertiflowError("can be verified only on constants, and it depends on the input")


def _results(node: Node, kind: str) -> list[Value]:
    if kind in FOLDED and not node.depends_on_input:
        constants = node.evaluated(node.constants())
        _refuse_uncertain(kind, node.constants(), constants)
        if kind in UNEVEN and any(array.dtype.kind == "f" for array in constants):
            node.lowering.distrust_constants()
        return [*constants]
    result = OPERATORS[kind](node)
    return result if isinstance(result, list) else [result]


def _refuse_uncertain(kind: str, given: list[Array | None], constants: list[Array]) -> None:
    """Refuses constants that runtimes compute otherwise than ONNX's reference, by any amount."""
    read = [array for array in given if array is not None]
    computed = constants if kind == "Cast" else [*read, *constants]
    if kind not in MOVES and (narrow := [each for each in computed if _is_narrow(each)]):
        raise CertiflowError(
            f"on constants in {narrow[0].dtype} cannot be verified, which runtimes compute in "
            "float32; export the model with its constants computed"
        )
    if kind == "Range" and any(array.dtype.kind == "f" for array in read):
        # Some add the step again and again: to the same sums where all are whole and exact.
        whole = all((np.trunc(each) == each).all() for each in read)
        if not whole or any((np.abs(each) >= WHOLE_IN_FLOAT32).any() for each in constants):
            raise CertiflowError(
                "in steps that are not whole cannot be verified, which runtimes sum in their own "
                "ways; export the model with its constants computed"
            )


def _is_narrow(array: Array) -> bool:
    """Whether the numbers are floats of fewer bits than float32; NumPy knows most as raw bytes."""
    return array.dtype.kind in "fV" and array.dtype.itemsize < 4


def _identity(node: Node) -> Tensor:
    return node.tensor(0)


def _dropout(node: Node) -> Tensor:
    training = node.optional(2)
    if training is not None and training.any():
        raise CertiflowError("training_mode is true: export the model for inference")
    return node.tensor(0)


def _shape(node: Node) -> Array:
    shape = np.array(node.tensor(0).shape, dtype=np.int64)
    return shape[node.attribute("start", 0) : node.attribute("end", None)]


def _moved(node: Node) -> list[Value]:
    """An operator that only moves elements, by what it does to their positions."""
    tensor = node.tensor(0)
    moved = node.evaluated([tensor.positions, *node.constants(1)])
    return [tensor.taken(positions) for positions in moved]


def _split(node: Node) -> list[Value]:
    node.require(num_outputs=len(node.proto.output))
    return _moved(node)


def _concat(node: Node) -> Tensor:
    tensors = [node.tensor(index) for index in range(len(node.inputs))]
    starts = np.cumsum([0, *(len(tensor.constant) for tensor in tensors)])
    positions = [
        tensor.positions + start for tensor, start in zip(tensors, starts[:-1], strict=True)
    ]
    return node.lowering.stacked(tensors).taken(
        np.concatenate(positions, node.attribute("axis", None))
    )


def _pad(node: Node) -> Tensor:
    """Zeros around the elements; negative pads cut some off."""
    node.require(mode=b"constant", value=0.0)
    fill = node.optional(2)
    if fill is not None and fill.any():
        raise CertiflowError(f"padding with {fill} cannot be verified; expected 0")
    tensor = node.tensor(0)
    rank = len(tensor.shape)
    pads = np.asarray(node.attribute("pads", ()) if node.opset < 11 else node.array(1))
    axes = node.optional(3)
    chosen = normalize_axis_tuple(range(rank) if axes is None else axes.tolist(), rank)
    around = np.zeros((rank, 2), dtype=np.int64)
    around[list(chosen)] = pads.reshape(2, len(chosen)).T
    if (np.maximum(-around, 0).sum(axis=1) > tensor.shape).any():
        raise CertiflowError(f"pads = {pads.tolist()} cut off more than the shape {tensor.shape}")
    kept = tuple(
        slice(max(-before, 0), size + min(after, 0))
        for size, (before, after) in zip(tensor.shape, around, strict=True)
    )
    moved = np.pad((tensor.positions + 1)[kept], np.maximum(around, 0))
    zero_first = node.lowering.stacked([node.lowering.constant([0.0]), tensor])
    return zero_first.taken(moved)


def _cast(node: Node) -> Tensor:
    kind = node.attribute("to", None)
    if kind not in {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}:
        found = onnx.TensorProto.DataType.Name(kind)
        raise CertiflowError(f"to = {found} cannot be verified; expected FLOAT")
    return node.tensor(0)


Operator = Callable[[Node], Value | list[Value]]
OPERATORS: dict[str, Operator] = {
    "Abs": absolute,
    "Add": add,
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "Cast": _cast,
    "Celu": celu,
    "Clip": clip,
    "Concat": _concat,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Cos": curve(Kind.COS),
    "DepthToSpace": _moved,
    "Div": div,
    "Dropout": _dropout,
    "Elu": elu,
    "Erf": curve(Kind.ERF),
    "Exp": curve(Kind.EXP),
    "Expand": _moved,
    "Flatten": _moved,
    "Gather": _moved,
    "Gelu": gelu,
    "Gemm": gemm,
    "GlobalAveragePool": global_average_pool,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": curve(Kind.HARD_SWISH),
    "Identity": _identity,
    "LeakyRelu": leaky_relu,
    "Log": curve(Kind.LOG),
    "LogSoftmax": log_softmax,
    "MatMul": matmul,
    "Max": maximum,
    "MaxPool": max_pool,
    "Min": minimum,
    "Mul": mul,
    "Neg": neg,
    "PRelu": prelu,
    "Pad": _pad,
    "Pow": power,
    "Reciprocal": curve(Kind.RECIPROCAL),
    "ReduceMean": reduce,
    "ReduceSum": reduce,
    "Relu": relu,
    "Reshape": _moved,
    "Resize": resize,
    "Scaler": scaler,
    "Selu": selu,
    "Shape": _shape,
    "Sigmoid": curve(Kind.SIGMOID),
    "Sign": curve(Kind.SIGN),
    "Sin": curve(Kind.SIN),
    "Slice": _moved,
    "Softmax": softmax,
    "Softplus": curve(Kind.SOFTPLUS),
    "SpaceToDepth": _moved,
    "Split": _split,
    "Sqrt": curve(Kind.SQRT),
    "Squeeze": _moved,
    "Sub": sub,
    "Sum": total,
    "Tanh": curve(Kind.TANH),
    "Tile": _moved,
    "Transpose": _moved,
    "Unsqueeze": _moved,
    "Upsample": resize,
    "Where": where,
}
# By ONNX's reference, on constants alone: exporters compute shapes, masks and weights with them.
UNEVEN = {
    "Cos",
    "Erf",
    "Exp",
    "Log",
    "MatMul",
    "Pow",
    "ReduceSum",
    "Sigmoid",
    "Sin",
    "Sum",
    "Tanh",
}  # float32 constants that each runtime rounds in its own way
MOVES = {
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Shape",
    "Slice",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
}  # which change no number
FOLDED = (
    UNEVEN
    | MOVES
    | {
        "Abs",
        "Add",
        "Cast",
        "Div",
        "Equal",
        "Floor",
        "Greater",
        "Less",
        "Max",
        "Min",
        "Mul",
        "Neg",
        "Not",
        "Range",
        "Reciprocal",
        "Sign",
        "Sqrt",
        "Sub",
    }
)
WHOLE_IN_FLOAT32 = 2**24  # below it every whole number is exact
HARMLESS = {
    "BatchNormalization": {"momentum"},  # for training
    "Cast": {"saturate", "round_mode"},  # for types of 8 bits, to which no cast is read
    "Dropout": {"ratio", "seed"},  # for training
    "MaxPool": {"storage_order"},  # of the second output, which is not read
}
