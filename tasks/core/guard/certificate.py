"""Label and interval certificate of an input in one float32 graph, which any ONNX server can run.

For a box of inputs around a request the graph carries, for the values h of every layer, a centre c,
a radius r and a greatest magnitude m with |h - c| <= r and |h| <= m (interval bounds, Gowal et al.
2018, in the midpoint-radius form of Rump 1999, "Fast and Parallel Interval Arithmetic"). They hold
in exact arithmetic, and for what any float32 evaluation of the model computes. Through an affine
layer, with u = 2^-24 and gamma(n) = n u / (1 - n u) (Higham 2002, section 3.1 and 4.2):

- the deployed model's z is off W h + b by at most gamma(n') (A m + B), where n' counts its own
  roundings and A >= |W|, B >= |b| (`networks.network.Roundings`);
- the graph's centre is off W c + b by at most gamma(n) (|W| |c| + |b|);
- so |z - centre| <= |W| r + kappa (A m + B), kappa = gamma(n') + gamma(n).

The last is a sum of positive numbers, so its own rounding is a factor, with which A and B are
enlarged once and for all. Where the ReLU's bounds l = c - r and u = c + r are rounded, centre and
radius are off by at most 6 u max(u, 0), which the next kappa contains. Numbers below 2^-126 may be
flushed to zero; values are bounded by those over the whole domain, so that what this costs is a
constant of each layer, and that nothing overflows is checked when the graph is made.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto

from tasks.core.arrays import BoolArray, Float32Array, FloatArray, IntArray
from tasks.core.bounds.float32_error import LEAST_NORMAL, UNIT_ROUNDOFF
from tasks.core.errors import CertiflowError, first_line
from tasks.core.guard.graph import affine, most_terms
from tasks.core.models.onnx_graph import Graph
from tasks.core.models.runtimes import WITHOUT_TELEMETRY
from tasks.core.networks.network import Affine, ReluNetwork, Roundings
from tasks.core.properties.perturbation import Perturbation

GREATEST = 2.0**100  # of any value over the domain
OWN_LABEL = 2.0**126  # in the place of a label's margin to itself
BATCH = 64  # inputs at once: a convolution's values are copied for each place of its window


def exported(network: ReluNetwork, perturbation: Perturbation) -> onnx.ModelProto:
    """The graph of a network on the balls of a perturbation.

    Inputs: `inputs` (N, *shape) and `epsilons` (K,). Outputs: `labels` (N,), the first greatest of
    `logits` (N, classes), and `margins` (N, K): where one is above 0, every valid input within that
    epsilon gets that label, and no other as high, from every float32 evaluation of the model. Sound
    for every input, incomplete; NaN for inputs that are not finite. Relations of a table are left
    out, which makes the set larger.

    Raises:
        CertiflowError: categories may change, which is not one box; values are too great for
            float32.
    """
    if perturbation.most_changes:
        raise CertiflowError(
            "the certificate of a service is of one box around a request: expected no category "
            f"changes, got {perturbation.most_changes}; set data.category_changes to 0"
        )
    graph, shape = Graph("certificate"), perturbation.domain.shape
    point = graph.reshaped("inputs", -1, network.num_inputs)
    layers = enclosed_layers(as_served(network), perturbation)
    labels = _labels(graph, point, network)
    values = _ball(graph, point, perturbation)
    for layer, linear in zip(layers[:-1], network.linear, strict=True):
        values = _activations(
            graph, layer.centre(graph, values), layer.radius(graph, values), linear
        )
    margins = _margins(graph, values, layers[-1], labels)
    # A ReLU or a minimum may lose what is not a number: such inputs have no certificate.
    total = graph.node("ReduceSum", point, graph.constant([1]), keepdims=1)
    graph.node("Add", margins, graph.node("Mul", total, graph.constant(0.0)), output="margins")
    return graph.model(
        {"inputs": ["N", *shape], "epsilons": ["K"]},
        {
            "labels": (TensorProto.INT64, ["N"]),
            "logits": (TensorProto.FLOAT, ["N", network.num_outputs]),
            "margins": (TensorProto.FLOAT, ["N", "K"]),
        },
    )


@dataclass(frozen=True)
class Values:
    """Names of twice the centre, twice the radius, and the greatest magnitude: (rows, units)."""

    centre: str
    radius: str
    magnitude: str


@dataclass(frozen=True, eq=False)
class EnclosedLayer:
    """An affine layer, and what roundings can do to it: the graph's and the deployed model's.

    `growth` makes up for what a sum of positive numbers may be too small by; `absolute` is A, and
    as its bias all of kappa B, of what flushing to zero costs, and of their growth. Of a layer that
    the model computes in several steps (`of_steps`), A may be far greater than |W|.
    """

    layer: Affine
    absolute: Affine
    kappa: float
    growth: float
    of_steps: bool

    def centre(self, graph: Graph, values: Values) -> str:
        """W c + b."""
        return affine(graph, values.centre, self.layer, 0.5)

    def radius(self, graph: Graph, values: Values) -> str:
        """|W| r + kappa (A m + B), at once where A is |W|."""
        if self.of_steps:
            error = self.error(graph, values)
            spread = Affine(self.layer.absolute.matrix, np.zeros_like(self.layer.bias))
            return graph.node("Add", self._grown(graph, values.radius, spread), error)
        doubled = graph.node("Add", values.radius, self._slack(graph, values))
        return self._grown(graph, doubled, self.absolute)

    def error(self, graph: Graph, values: Values) -> str:
        """kappa (A m + B), what is rounding of the radius."""
        return self._grown(graph, self._slack(graph, values), self.absolute)

    def _slack(self, graph: Graph, values: Values) -> str:
        return graph.node("Mul", values.magnitude, graph.constant(2 * self.kappa))

    def _grown(self, graph: Graph, doubled: str, layer: Affine) -> str:
        return affine(graph, doubled, layer, 0.5 * self.growth)


def one_step(layer: Affine) -> Roundings:
    """Of the graph: each weight rounded, a product for each term, and the bias."""
    return replace(Roundings.of(layer), count=most_terms(layer.matrix) + 3)


def as_served(network: ReluNetwork) -> ReluNetwork:
    """The network with roundings that cover the graph's evaluation too, besides the model's own.

    A proof about it that exceeds its float32 error holds for the labels that the graph gives.
    """
    steps = map(one_step, network.layers)
    return replace(
        network,
        roundings=tuple(
            replace(each, count=max(each.count, own.count), gain=max(each.gain, own.gain))
            for each, own in zip(network.roundings, steps, strict=True)
        ),
    )


def enclosed_layers(network: ReluNetwork, perturbation: Perturbation) -> list[EnclosedLayer]:
    """Raises `CertiflowError` where values over the whole domain may be too great for float32.

    `most` are the greatest magnitudes of what a layer reads, of the graph's as of the model's.
    """
    domain = perturbation.domain
    farthest = np.maximum(np.abs(domain.lower), np.abs(domain.upper))
    most = np.broadcast_to(farthest, network.num_inputs)[None]
    found: list[EnclosedLayer] = []
    for layer, roundings in zip(network.layers, network.roundings, strict=True):
        own, absolute = one_step(layer).count, roundings.absolute_of(layer)
        kappa = _gamma(own) + _gamma(roundings.count + 1) + 16 * UNIT_ROUNDOFF
        growth = 1 + 4 * _gamma(own + 8)
        at_most = (1 + kappa) * growth * roundings.gain * max(float(most.max(initial=0)), 1.0)
        if not at_most < GREATEST:
            raise CertiflowError(
                f"the network's values may reach {at_most:.3g}: a certificate in float32 needs "
                f"less than {GREATEST:.3g}; narrow the features' bounds in the schema"
            )
        counts = 2 * (own + roundings.count + 2 * layer.matrix.shape[1])
        flushed = LEAST_NORMAL * counts * at_most
        bias = growth * (kappa * absolute.bias + flushed)
        enlarged, of_steps = Affine(absolute.matrix, bias), roundings.absolute is not None
        found.append(EnclosedLayer(layer, enlarged, kappa, growth, of_steps))
        most = (1 + kappa) * growth * absolute(most) + flushed
    return found


def _gamma(count: int) -> float:
    share = count * UNIT_ROUNDOFF
    return share / (1 - share) if share < 0.25 else np.inf  # then values may reach anything


def _labels(graph: Graph, point: str, network: ReluNetwork) -> str:
    """Of the points themselves, and their logits on the way."""
    values = point
    for layer, linear in zip(network.layers[:-1], network.linear, strict=True):
        values = affine(graph, values, layer)
        values = _chosen(graph, linear, values, graph.node("Relu", values))
    last = affine(graph, values, network.layers[-1])
    logits = graph.node("Identity", last, output="logits")
    return graph.node("ArgMax", logits, axis=1, keepdims=0, output="labels")


def _ball(graph: Graph, point: str, perturbation: Perturbation) -> Values:
    """Of `Perturbation.box`, a box or one a little larger for each epsilon: (N * K, inputs).

    Reaches grow by 8 u of themselves, more than their products round off. The sums are monotone:
    rounded, they pass no float32 number of the box, and so no whole one.
    """
    domain, size = perturbation.domain, perturbation.domain.num_inputs
    grown = graph.node("Mul", "epsilons", graph.constant(1 + 8 * UNIT_ROUNDOFF))
    each = graph.reshaped(grown, 1, -1, 1)
    centre = graph.reshaped(point, -1, 1, size)
    ends = []
    for kind, reach, whole, bound, inwards in (
        ("Sub", perturbation.down, "Ceil", domain.lower, "Max"),
        ("Add", perturbation.up, "Floor", domain.upper, "Min"),
    ):
        upwards = np.where(reach > 0, np.nextafter(reach.astype(np.float32), np.inf), 0.0)
        moved = graph.node(kind, centre, graph.node("Mul", each, graph.constant(upwards)))
        if domain.whole.any():
            rounded = graph.node(whole, moved)
            moved = graph.node("Where", graph.constant(domain.whole), rounded, moved)
        ends.append(graph.node(inwards, moved, graph.constant(bound)))
    lower, upper = (graph.reshaped(end, -1, size) for end in ends)
    return _between(graph, lower, upper)


def _between(graph: Graph, lower: str, upper: str) -> Values:
    """All values between the two."""
    magnitude = graph.node("Max", graph.node("Abs", lower), graph.node("Abs", upper))
    return Values(graph.node("Add", upper, lower), graph.node("Sub", upper, lower), magnitude)


def _activations(graph: Graph, centre: str, radius: str, linear: BoolArray) -> Values:
    """After a ReLU; marked units pass unchanged."""
    lower, upper = graph.node("Sub", centre, radius), graph.node("Add", centre, radius)
    lower = _chosen(graph, linear, lower, graph.node("Relu", lower))
    upper = _chosen(graph, linear, upper, graph.node("Relu", upper))
    if linear.any():
        return _between(graph, lower, upper)
    return Values(graph.node("Add", upper, lower), graph.node("Sub", upper, lower), upper)


def _chosen(graph: Graph, where: BoolArray, marked: str, others: str) -> str:
    return graph.node("Where", graph.constant(where), marked, others) if where.any() else others


def _margins(graph: Graph, values: Values, last: EnclosedLayer, labels: str) -> str:
    """Lower bounds on each label's logit minus the greatest other one: (N, K).

    The last layer and the subtraction are one map (the "elision" of Gowal et al. 2018): the radius
    goes through |W_label - W_j|, whose own rounding is within the two logits' kappa.
    """
    classes, units = last.layer.matrix.shape
    weight, count = last.layer.weight, graph.node("Shape", "epsilons")

    def by_epsilon(rows: str, size: int) -> str:
        shape = graph.node("Concat", graph.constant([-1]), count, graph.constant([size]), axis=0)
        return graph.node("Reshape", rows, shape)

    own = graph.node("Gather", graph.constant(weight), labels, axis=0)
    between = graph.node("Sub", graph.reshaped(own, -1, units, 1), graph.constant(weight.T))
    spread = graph.node("MatMul", by_epsilon(values.radius, units), graph.node("Abs", between))
    spread = graph.node("Mul", spread, graph.constant(0.5 * last.growth))
    centre = by_epsilon(last.centre(graph, values), classes)
    error = by_epsilon(last.error(graph, values), classes)
    eye = graph.constant(np.eye(classes))
    is_own = graph.reshaped(graph.node("Gather", eye, labels, axis=0), -1, 1, classes)
    lower = graph.node("Mul", graph.node("Sub", centre, error), is_own)
    label = graph.node("ReduceSum", lower, graph.constant([2]), keepdims=1)
    margins = graph.node("Sub", label, graph.node("Add", centre, error))
    margins = graph.node("Sub", margins, spread)
    others = graph.node("Add", margins, graph.node("Mul", is_own, graph.constant(OWN_LABEL)))
    return graph.node("ReduceMin", others, axes=[2], keepdims=0)


@dataclass(frozen=True, eq=False)
class Certified:
    """What the graph says of n inputs at K radii, ascending.

    Attributes:
        labels: (n,).
        logits: (n, classes).
        margins: (n, K); above 0: proved.
    """

    labels: IntArray
    logits: Float32Array
    margins: Float32Array

    @property
    def grades(self) -> IntArray:
        """How many of the radii, from the least, are proved without a gap: (n,)."""
        return (self.margins > 0).cumprod(axis=1).sum(axis=1)

    def radii(self, epsilons: ArrayLike) -> FloatArray:
        """The greatest of the radii up to which all are proved, or 0: (n,)."""
        return np.append(0.0, epsilons)[self.grades]


class CertificateRuntime:
    """The graph in onnxruntime, on one thread."""

    def __init__(self, path: Path) -> None:
        """Raises `CertiflowError` when onnxruntime refuses the file."""
        os.environ.setdefault(*WITHOUT_TELEMETRY)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise CertiflowError(
                f"{path}: onnxruntime cannot run this certificate: {first_line(error)}"
            ) from error

    def certified(self, inputs: Float32Array, epsilons: ArrayLike) -> Certified:
        """Of inputs (n, *shape) at radii (K,), ascending."""
        radii = np.asarray(epsilons, dtype=np.float64)
        upwards = radii.astype(np.float32)
        upwards = np.where(upwards < radii, np.nextafter(upwards, np.float32(np.inf)), upwards)
        parts = [
            self._session.run(None, {"inputs": inputs[start : start + BATCH], "epsilons": upwards})
            for start in range(0, max(len(inputs), 1), BATCH)
        ]
        if len(parts) == 1:
            return Certified(*parts[0])
        return Certified(*(np.concatenate(each) for each in zip(*parts, strict=True)))
