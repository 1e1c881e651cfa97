"""The end of an ONNX graph: probabilities and labels are taken off the logits before them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx.helper import get_attribute_value, make_node, make_tensor_value_info

from tasks.core.errors import CertiflowError
from tasks.core.readers.onnx_node import is_of_onnx
from tasks.core.tensors.endings import Ending

LABELS = {onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.STRING}
SOFTMAX: Mapping[str, Ending] = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}
POST_TRANSFORMS: Mapping[str, Ending] = {
    "NONE": "logits",
    "SOFTMAX": "softmax",
    "LOGISTIC": "logistic",  # of z and -z: the greater one wins, as with a softmax
}


@dataclass(frozen=True, eq=False)
class OpenGraph:
    """A file's graph up to its logits, its one output; with a sigmoid that is the second one."""

    model: onnx.ModelProto
    ending: Ending

    @property
    def logits(self) -> onnx.GraphProto:
        """The graph of the logits alone."""
        logits, *others = (entry.name for entry in self.model.graph.output)
        return (_cut(self.model, logits) if others else self.model).graph


def opened(model: onnx.ModelProto) -> OpenGraph:
    """The graph up to the logits; the same one where it ends with them.

    What is read of scikit-learn's graphs, as skl2onnx writes them: besides probabilities they give
    labels, which are the greatest probability's.

    Raises:
        CertiflowError: more than one output that is no label.
    """
    graph = model.graph
    makers = {name: node for node in graph.node if is_of_onnx(node) for name in node.output}
    scores = [entry for entry in graph.output if not _is_label(entry)]
    if len(scores) != 1:
        raise CertiflowError(
            f"expected one output, the graph has {len(scores)} that are no labels: export the "
            "model with its logits or probabilities alone"
        )
    name = scores[0].name
    while (node := makers.get(name)) is not None and _passes(node, makers):
        name = node.input[0]
    if node is not None and (end := _ended(model, node, makers)) is not None:
        return end
    if len(graph.output) == 1 and (node is None or graph.output[0].name == name):
        return OpenGraph(model, "logits")
    return OpenGraph(_cut(model, name), "logits")


def _ended(
    model: onnx.ModelProto, node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]
) -> OpenGraph | None:
    """The graph up to the logits of which `node` gives probabilities; None where it gives none."""
    if node.op_type in SOFTMAX and _attribute(node, "axis", _default_axis(model)) in (-1, 1):
        return OpenGraph(_cut(model, node.input[0]), SOFTMAX[node.op_type])
    probability = _probability_of_one(node, makers, model.graph)
    if probability is not None:
        logit = makers[probability].input[0]
        return OpenGraph(_cut(model, logit, probability), "sigmoid")
    if node.op_type == "LinearClassifier":
        return _of_linear_classifier(model, node)
    return None


def unopened(model: onnx.ModelProto) -> OpenGraph:
    """The graph as it is, with its one output.

    Raises:
        CertiflowError: it has more.
    """
    if len(model.graph.output) != 1:
        raise CertiflowError(
            f"expected one output, the graph has {len(model.graph.output)}: export the model with "
            "the one that the property is of"
        )
    return OpenGraph(model, "logits")


def _is_label(entry: onnx.ValueInfoProto) -> bool:
    return entry.type.HasField("tensor_type") and entry.type.tensor_type.elem_type in LABELS


def _passes(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether the node names or scales probabilities, or does nothing."""
    if node.op_type == "Normalizer":  # to a sum of 1
        before = makers.get(node.input[0])
        return before is not None and _gives_probabilities(before)
    return node.op_type in {"ZipMap", "Identity"}


def _gives_probabilities(node: onnx.NodeProto) -> bool:
    """Whether none is below 0: then dividing them all by their sum keeps their order."""
    transform = _attribute(node, "post_transform", b"NONE").decode()
    return node.op_type == "Softmax" or (
        node.op_type == "LinearClassifier" and transform in {"SOFTMAX", "LOGISTIC"}
    )


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    found = {entry.name: get_attribute_value(entry) for entry in node.attribute}
    return found.get(name, default)


def _default_axis(model: onnx.ModelProto) -> int:
    versions = [entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}]
    return -1 if max(versions, default=0) >= 13 else 1


def _probability_of_one(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], graph: onnx.GraphProto
) -> str | None:
    """The sigmoid p that the node gives, or gives as (1 - p, p): p > 1/2 where p > 1 - p."""
    if node.op_type == "Sigmoid":
        return str(node.output[0])
    if (
        node.op_type != "Concat"
        or len(node.input) != 2
        or _attribute(node, "axis", 1) not in (-1, 1)
    ):
        return None
    complement, probability = (makers.get(name) for name in node.input)
    is_pair = (
        complement is not None
        and probability is not None
        and (complement.op_type, probability.op_type) == ("Sub", "Sigmoid")
        and complement.input[1] == probability.output[0]
        and _is_one(complement.input[0], graph)
    )
    return str(node.input[1]) if is_pair else None


def _is_one(name: str, graph: onnx.GraphProto) -> bool:
    """Whether an initializer is a single 1."""
    found = [onnx.numpy_helper.to_array(each) for each in graph.initializer if each.name == name]
    return len(found) == 1 and found[0].size == 1 and bool((found[0] == 1).all())


def _of_linear_classifier(model: onnx.ModelProto, node: onnx.NodeProto) -> OpenGraph:
    """Its scores before the transform, by the operator that computes nothing else."""
    transform = _attribute(node, "post_transform", b"NONE").decode()
    offsets = np.asarray(_attribute(node, "intercepts", []), dtype=np.float32)
    rows = len(offsets)
    weights = np.asarray(_attribute(node, "coefficients", []), dtype=np.float32)
    weights = weights.reshape(rows, -1) if rows else weights
    # Only z and -z through a logistic are never both 1: others tie where their logits do not.
    is_mirrored = rows == 2 and not (weights.sum(axis=0).any() or offsets.sum())
    is_known = transform in POST_TRANSFORMS and (transform != "LOGISTIC" or is_mirrored)
    if rows < 2 or not is_known:
        raise CertiflowError(
            f"LinearClassifier with post_transform = {transform} over {rows} scores cannot be "
            "verified; expected a softmax, or a logistic of a score and its negative"
        )
    cut = _cut(model, node.output[1])
    constants = {
        "linear_classifier.coefficients": weights,
        "linear_classifier.intercepts": offsets,
    }
    scores = make_node("Gemm", [node.input[0], *constants], [node.output[1]], node.name, transB=1)
    (place,) = [place for place, each in enumerate(cut.graph.node) if node.output[1] in each.output]
    cut.graph.node[place].CopyFrom(scores)
    cut.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    return OpenGraph(cut, POST_TRANSFORMS[transform])


def _cut(model: onnx.ModelProto, *outputs: str) -> onnx.ModelProto:
    """A copy that gives these values, and computes no others."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    graph, needed, kept = cut.graph, set(outputs), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    entries = [make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    unused = {tensor.name for tensor in graph.initializer} - needed
    inputs = [entry for entry in graph.input if entry.name not in unused]  # old files list both
    for field, values in (
        (graph.node, kept[::-1]),
        (graph.input, inputs),
        (graph.output, entries),
        (graph.initializer, constants),
    ):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(copies)
    return cut
