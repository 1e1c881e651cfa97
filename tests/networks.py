"""Small networks and boxes that tests share."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.perturbation import Perturbation
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.tensors.convolutions import convolved
from tasks.core.tensors.lowering import Lowering
from tasks.core.tensors.tensor import Tensor
from tasks.core.tensors.windows import Window

Kind = Literal["dense", "convolutional", "residual"]
KINDS: tuple[Kind, ...] = ("dense", "convolutional", "residual")
IMAGE_SIZES = {  # of convolutional networks, by the number of inputs
    "few": ((2, 2), (2, 3), (3, 3), (3, 4)),
    "many": ((2, 7), (3, 5), (4, 4), (4, 5)),
}


def hand_computed() -> ReluNetwork:
    """Two inputs, two hidden units, two logits; every number below fits on paper.

    h1 = relu(x1 + x2), h2 = relu(x1 - x2); y0 = h1 + 1, y1 = h2.
    """
    return ReluNetwork(
        (
            Affine(np.array([[1.0, 1.0], [1.0, -1.0]]), np.zeros(2)),
            Affine(np.eye(2), np.array([1.0, 0.0])),
        )
    )


def random_network(generator: np.random.Generator, widths: tuple[int, ...]) -> ReluNetwork:
    """Gaussian weights scaled by fan-in, small biases."""
    return ReluNetwork(
        tuple(
            Affine(
                generator.normal(size=(after, before)) / np.sqrt(before),
                generator.normal(size=after) * 0.2,
            )
            for before, after in itertools.pairwise(widths)
        )
    )


def random_case(
    generator: np.random.Generator,
) -> tuple[ReluNetwork, FloatArray, int, float]:
    """A network of one to three hidden layers, an input, its label and a radius."""
    depth = generator.integers(1, 4)
    hidden = tuple(int(width) for width in generator.integers(3, 9, size=depth))
    network = random_network(generator, (4, *hidden, 3))
    center = generator.uniform(0.2, 0.8, size=4)
    label = int(network(center[None]).argmax())
    return network, center, label, float(generator.uniform(0.02, 0.35))


def random_network_of(
    generator: np.random.Generator, kind: Kind, num_inputs: Literal["few", "many"]
) -> ReluNetwork:
    """One to five affine layers, 2 to 12 inputs (few) or 13 to 20 (many), 2 to 4 outputs."""
    depth = int(generator.integers(0, 5))
    outputs = int(generator.integers(2, 5))
    if kind == "dense":
        inputs = int(
            generator.integers(2, 13) if num_inputs == "few" else generator.integers(13, 21)
        )
        hidden = (int(width) for width in generator.integers(2, 9, size=depth))
        return random_network(generator, (inputs, *hidden, outputs))
    sizes = IMAGE_SIZES[num_inputs]
    height, width = sizes[generator.integers(len(sizes))]
    lowering = Lowering((1, 1, height, width))
    tensor = lowering.input
    for layer in range(depth):
        stride = 2 if layer == 0 else 1
        after = lowering.relu(_random_convolution(generator, lowering, tensor, stride))
        if kind == "residual" and layer > 0:
            after = lowering.add(tensor, _random_convolution(generator, lowering, after, 1))
        tensor = after
    flat = tensor.taken(tensor.positions.reshape(1, -1))
    before = flat.shape[1]
    weight = generator.normal(size=(before, outputs)) / np.sqrt(before)
    bias = lowering.constant(generator.normal(size=(1, outputs)) * 0.2)
    return lowering.network(lowering.add(flat.times(weight), bias))


def _random_convolution(
    generator: np.random.Generator, lowering: Lowering, tensor: Tensor, stride: int
) -> Tensor:
    """2x2 kernels, two filters, padded to the same size."""
    _, channels, height, width = tensor.shape
    window = Window.same((height, width), (2, 2), (stride, stride), (1, 1))
    kernel = generator.normal(size=(2, channels, 2, 2)) / np.sqrt(2 * channels)
    bias = lowering.constant(generator.normal(size=(1, 2, 1, 1)) * 0.2)
    return lowering.add(convolved(tensor, kernel, window, 1), bias)


def convolutional(
    generator: np.random.Generator,
    sizes: tuple[int, int],
    channels: tuple[int, ...],
    hidden: int,
    outputs: int,
) -> ReluNetwork:
    """4x4 kernels with stride 2 and same padding, then two dense layers, all scaled by fan-in."""
    lowering = Lowering((1, 1, *sizes))
    tensor = lowering.input
    for filters in channels:
        _, before, *extents = tensor.shape
        window = Window.same(tuple(extents), (4, 4), (2, 2), (1, 1))
        kernel = generator.normal(size=(filters, before, 4, 4)) / np.sqrt(16 * before)
        tensor = lowering.relu(convolved(tensor, kernel, window, 1))
    tensor = tensor.taken(tensor.positions.reshape(1, -1))
    for width in (hidden, outputs):
        before = tensor.shape[1]
        tensor = tensor.times(generator.normal(size=(before, width)) / np.sqrt(before))
        tensor = lowering.relu(tensor) if width == hidden else tensor
    return lowering.network(tensor)


def random_property(generator: np.random.Generator, network: ReluNetwork) -> Property:
    """One to three regions of one to three rows, in one or two boxes, close to being reached.

    A quarter also constrain the inputs, and an eighth have a box of zero width in some inputs.
    """
    mixed = generator.random() < 0.25
    whole = network.with_inputs() if mixed else network
    inputs = network.num_inputs
    boxes = []
    for _ in range(int(generator.integers(1, 3))):
        radius = np.full(inputs, generator.uniform(0.05, 0.8))
        if generator.random() < 0.125:
            radius[generator.random(inputs) < 0.5] = 0
        center = generator.normal(size=inputs) * 0.5
        boxes.append(Box((center - radius)[None], (center + radius)[None]))
    regions = []
    for _ in range(int(generator.integers(1, 4))):
        ball = boxes[generator.integers(len(boxes))]
        rows = generator.normal(size=(int(generator.integers(1, 4)), whole.num_outputs))
        rows[:, network.num_outputs :] *= 0.3
        values = whole(sampled_points(generator, ball, 300)) @ rows.T
        shifted = values - np.median(values, axis=0) * generator.random(len(rows))
        gap = generator.uniform(-0.1, 0.4) * (np.ptp(shifted) + 1e-3)
        offsets = (shifted - values)[0] - shifted.max(axis=1).min() + gap
        regions.append(UnsafeRegion(ball, rows, offsets))
    return Property(tuple(regions))


def box(lower: list[float], upper: list[float]) -> Box:
    """One box from two lists."""
    return Box(np.array([lower], dtype=float), np.array([upper], dtype=float))


def pixels(images: NDArray[np.float32]) -> Perturbation:
    """What can be done to images of shape (n, …): each pixel by epsilon, within [0, 1]."""
    return Perturbation.of_images(images.shape[1:])


def ball_around(images: ArrayLike, epsilon: float) -> Box:
    """The balls of L-infinity radius `epsilon` around images, (batch, …), within [0, 1]."""
    centers = np.asarray(images, dtype=np.float64).reshape(len(np.asarray(images)), -1)
    return Box(np.clip(centers - epsilon, 0, 1), np.clip(centers + epsilon, 0, 1))


def sampled_points(
    generator: np.random.Generator, ball: Box, count: int, row: int = 0
) -> FloatArray:
    """Uniform points of one box, half of them at its corners."""
    lower, upper = ball.lower[row], ball.upper[row]
    weights = generator.random((count, len(lower)))
    weights[: count // 2] = weights[: count // 2].round()
    return lower + weights * (upper - lower)


def exactly(network: ReluNetwork, values: list[Fraction]) -> list[Fraction]:
    """The outputs in rational arithmetic."""
    for depth, layer in enumerate(network.layers):
        values = [
            sum((Fraction(w) * v for w, v in zip(row, values, strict=True)), Fraction(bias))
            for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        ]
        if depth < len(network.linear):
            passes = network.linear[depth].tolist()
            values = [v if p else max(v, Fraction(0)) for v, p in zip(values, passes, strict=True)]
    return values
