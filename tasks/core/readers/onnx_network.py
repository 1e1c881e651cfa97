"""ONNX files: their float64 `ReluNetwork`, and the float32 runtime they are deployed with."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from tasks.core.errors import CertiflowError, first_line
from tasks.core.networks.network import ReluNetwork
from tasks.core.readers.onnx_endings import opened, unopened
from tasks.core.readers.onnx_node import MACHINE_LEARNING, STANDARD, Node, Value
from tasks.core.readers.onnx_operators import outputs
from tasks.core.tensors.endings import Ending, decided
from tasks.core.tensors.lowering import Lowering
from tasks.core.tensors.tensor import Tensor

# Before 7 arithmetic broadcasts along an attribute's axis and normalisation may train; after 28
# nothing is known of what an operator means.
_OPSETS = range(7, 29)

# What NumPy and ONNX's reference raise on attributes and shapes that make no sense.
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, eq=False)
class OnnxNetwork:
    """A file's logits over flattened inputs, its input's shape with the batch set to 1, its end."""

    network: ReluNetwork
    input_shape: tuple[int, ...]
    ending: Ending

    @property
    def num_outputs(self) -> int:
        return self.network.num_outputs


def read_onnx(path: Path, *, whole: bool = False) -> OnnxNetwork:
    """The same function as the file's graph in float64, with a dynamic batch fixed to 1.

    Of a closing softmax the logits, of a single sigmoid the logits (0, z); see `endings`. With
    `whole` the outputs are the file's own, whatever it ends with.

    The weights are the file's float32 weights; where batch normalisation or consecutive affine
    nodes become one map, the float64 numbers nearest to their products. Raises `CertiflowError`
    naming the file and the node, initializer or input that cannot be expressed with affine maps,
    ReLUs, curves and products.
    """
    model = read_graph(path)
    try:
        return _network(model, whole=whole)
    except CertiflowError as error:
        raise CertiflowError(f"{path}: {error}") from error
    except _MALFORMED as error:
        raise CertiflowError(f"{path}: malformed: {first_line(error)}") from error


def read_graph(path: Path) -> onnx.ModelProto:
    """The parsed file; weights kept in other files are refused, wherever they point."""
    if not path.is_file():
        raise CertiflowError(f"{path}: no such file; give the path of an ONNX model")
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except Exception as error:  # protobuf's implementations raise classes of their own
        raise CertiflowError(
            f"{path}: not an ONNX file: {first_line(error)}; give the whole file as exported"
        ) from error
    graph = model.graph
    if not graph.node:
        raise CertiflowError(
            f"{path}: not an ONNX file, or one without any operator; give one with a model"
        )
    own = [each for each in model.functions if each.domain in STANDARD | {MACHINE_LEARNING}]
    if own:
        raise CertiflowError(
            f"{path}: it defines an operator {own[0].name} in the domain of ONNX's: runtimes take "
            "either; export the model without functions"
        )
    attributes = (entry.t for node in graph.node for entry in node.attribute)
    for tensor in (*graph.initializer, *attributes):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise CertiflowError(
                f"{path}: '{tensor.name}' is kept in another file; save the model as one file"
            )
    return model


def _network(model: onnx.ModelProto, *, whole: bool) -> OnnxNetwork:
    end = unopened(model) if whole else opened(model)
    graph, ending = end.logits, end.ending
    source = only_input(graph)
    lowering = Lowering(input_shape(source))
    values: dict[str, Value] = {**_initializers(graph), source.name: lowering.input}
    opset = _opset(model)
    _check_names(graph)
    for number, proto in enumerate(graph.node, start=1):
        place = f"node {number} '{proto.name}' ({proto.op_type})"
        unknown = [name for name in proto.input if name and name not in values]
        if unknown:
            raise CertiflowError(f"{place} needs '{unknown[0]}', which nothing before it gives")
        inputs = [values[name] if name else None for name in proto.input]
        results = _results(Node(proto, opset, inputs, lowering), place)
        values.update(zip(proto.output, results, strict=False))
    output = values.get(graph.output[0].name)
    if not isinstance(output, Tensor) or not output.constant.size:
        raise CertiflowError(f"output '{graph.output[0].name}' does not depend on the input")
    _check_classes(output, ending)
    network = lowering.network(decided(lowering, output, ending))
    return OnnxNetwork(network, lowering.input.shape, ending)


def _check_classes(logits: Tensor, ending: Ending) -> None:
    """Refuses probabilities that are not of one choice between classes."""
    size = logits.constant.size
    rank = len(logits.shape)
    if ending == "sigmoid" and size != 1:
        raise CertiflowError(
            f"the graph ends with a sigmoid of {size} outputs, a decision for each by itself: only "
            "that of one output can be verified; export the model up to its logits"
        )
    is_over_classes = rank == 2 and logits.shape[1] == size and size >= 2
    if ending not in {"logits", "sigmoid"} and not is_over_classes:
        raise CertiflowError(
            f"the graph ends with a softmax over the shape {logits.shape}: expected (1, classes), "
            "two or more; export the model up to its logits"
        )


def _opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's operators that the file is written in."""
    versions = {entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}}
    if len(versions) != 1 or not versions.issubset(_OPSETS):
        found = ", ".join(map(str, sorted(versions))) or "none"
        raise CertiflowError(
            f"opset {found} cannot be verified; expected one from {_OPSETS[0]} to {_OPSETS[-1]}: "
            "convert the model with onnx.version_converter"
        )
    return versions.pop()


def _check_names(graph: onnx.GraphProto) -> None:
    """Refuses a name that is given twice: runtimes refuse the file, or take either value."""
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name
        raise CertiflowError(f"the weight '{name}' is sparse: expected dense ones; export it so")
    given = Counter(
        [
            only_input(graph).name,
            *(tensor.name for tensor in graph.initializer),
            *(name for node in graph.node for name in node.output if name),
        ]
    )
    twice = [name for name, times in given.items() if times > 1]
    if twice:
        raise CertiflowError(f"'{twice[0]}' is given twice; give every value a name of its own")


def _results(node: Node, place: str) -> list[Value]:
    """The node's outputs; every error names its place."""
    try:
        return outputs(node)
    except CertiflowError as error:
        raise CertiflowError(f"{place}: {error}") from error
    except _MALFORMED as error:
        raise CertiflowError(f"{place} is malformed: {first_line(error)}") from error


def only_input(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    """The input that is no initializer: files before IR version 4 list both."""
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in initializers]
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs) or "none"
        raise CertiflowError(f"expected one input, the graph has {len(inputs)}: {names}")
    return inputs[0]


def input_shape(source: onnx.ValueInfoProto) -> tuple[int, ...]:
    kind = source.type.tensor_type
    if kind.elem_type != onnx.TensorProto.FLOAT:
        found = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise CertiflowError(f"input '{source.name}' is {found}; expected FLOAT (float32)")
    batch, *rest = [
        dimension.dim_value if dimension.WhichOneof("value") == "dim_value" else -1
        for dimension in kind.shape.dim
    ] or [0]
    shape = (1 if batch == -1 else batch, *rest)  # some exporters write -1 for a dynamic batch
    if min(shape) < 1:
        raise CertiflowError(
            f"input '{source.name}' has a dimension of no or unknown size besides the first, the "
            "batch; export the model with a fixed shape"
        )
    return shape


def _initializers(graph: onnx.GraphProto) -> dict[str, Value]:
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CertiflowError(
                f"initializer '{name}' has a value that is NaN or infinite: "
                "nothing can be proved about it; train the model again"
            )
    return dict(arrays)
