"""Convolutions, residual connections and pooling: lowered by the product, defined again here.

All weights and points are small integers, so that the definition's values are exact in float64.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.tensors.convolutions import average_pooled, convolved
from tasks.core.tensors.lowering import Lowering
from tasks.core.tensors.tensor import Tensor
from tasks.core.tensors.windows import Window
from tests.soundness.cases import Case
from tests.soundness.exact import Reached

NUM_POINTS = 200


@dataclass
class _Twice:
    """One graph in both forms: a lowering's tensor, and values (points, channels, *sizes)."""

    lowering: Lowering
    tensor: Tensor
    values: FloatArray
    rng: np.random.Generator = field(repr=False)

    def convolve(self) -> None:
        """A random kernel, stride, dilation, padding and number of groups, and a bias."""
        rng, channels = self.rng, self.values.shape[1]
        groups = int(rng.choice([g for g in (1, 2) if channels % g == 0]))
        window = self._window(dilated=True)
        filters = groups * int(rng.integers(1, 3))
        kernel = _integers(rng, filters, channels // groups, *window.extents)
        bias = _integers(rng, filters)
        self.tensor = self.lowering.add(
            convolved(self.tensor, kernel, window, groups),
            self.lowering.constant(bias.reshape(1, -1, 1, 1)),
        )
        self.values = _convolution(self.values, kernel, window, groups) + bias[:, None, None]

    def pool(self) -> None:
        """The greatest or the mean of windows of two or four."""
        window = self._window(dilated=False)
        parts = _under(self.values, window, fill=-np.inf)
        if self.rng.random() < 0.5:
            self.tensor = self.lowering.max_pooled(self.tensor, window)
            self.values = parts.max(axis=-1)
        else:  # padding counts: every mean is over a power of two
            self.tensor = average_pooled(self.tensor, window, count_padding=True)
            self.values = np.where(np.isfinite(parts), parts, 0).mean(axis=-1)

    def rectify(self) -> None:
        self.tensor, self.values = self.lowering.relu(self.tensor), np.maximum(self.values, 0)

    def block(self) -> None:
        """`x + kernel * relu(x)`, the kernel 1x1 over the channels."""
        channels = self.values.shape[1]
        kernel = _integers(self.rng, channels, channels, 1, 1)
        window = Window((1, 1), (1, 1), (1, 1), (0, 0), (0, 0))
        inner = convolved(self.lowering.relu(self.tensor), kernel, window, 1)
        self.tensor = self.lowering.add(self.tensor, inner)
        self.values = self.values + _convolution(np.maximum(self.values, 0), kernel, window, 1)

    def end(self, outputs: int) -> None:
        """A dense layer on all elements."""
        size = self.values[0].size
        weight = _integers(self.rng, size, outputs)
        flat = self.tensor.taken(self.tensor.positions.reshape(1, -1))
        self.tensor, self.values = flat.times(weight), self.values.reshape(-1, size) @ weight

    def _window(self, *, dilated: bool) -> Window:
        sizes, rng = self.values.shape[2:], self.rng
        extents = tuple(int(rng.integers(1, 1 + min(size, 2))) for size in sizes)
        dilations = tuple(int(rng.integers(1, 3)) if dilated and size > 2 else 1 for size in sizes)
        strides = tuple(int(rng.integers(1, 3)) for _ in sizes)
        # padding below the window's extent: no window lies in it alone
        before, after = (
            tuple(int(rng.integers(0, extent)) for extent in extents) for _ in range(2)
        )
        return Window(extents, strides, dilations, before, after)


def convolutions(rng: np.random.Generator) -> Case:
    """One or two convolutions, a dense end."""
    return _case(rng, ["convolve", "rectify", "convolve", "rectify"][: 2 * rng.integers(1, 3)])


def residuals(rng: np.random.Generator) -> Case:
    """A convolution and one or two residual blocks."""
    return _case(rng, ["convolve", *["block"] * int(rng.integers(1, 3)), "rectify"])


def pooling(rng: np.random.Generator) -> Case:
    """Pooling before or behind a convolution."""
    steps = ["convolve", "rectify"]
    steps.insert(int(rng.integers(0, 3)), "pool")
    return _case(rng, steps)


def _case(rng: np.random.Generator, steps: list[str]) -> Case:
    """The graph, and a region that its deepest sampled point reaches, misses or touches."""
    shape = (int(rng.integers(1, 3)), int(rng.integers(2, 5)), int(rng.integers(2, 4)))
    size = int(np.prod(shape))
    lower = rng.integers(-2, 1, size=size)
    upper = lower + rng.integers(0, 3, size=size)
    points = rng.integers(lower, upper + 1, size=(NUM_POINTS, size)).astype(float)
    lowering = Lowering((1, *shape))
    graph = _Twice(lowering, lowering.input, points.reshape(-1, *shape), rng)
    for step in steps:
        getattr(graph, step)()
    outputs = int(rng.integers(1, 4))
    graph.end(outputs)
    rows = _integers(rng, int(rng.integers(1, 3)), outputs)
    values = (graph.values @ rows.T).max(axis=1)
    deepest = int(values.argmin())
    gap = float(rng.choice([0.0, -1.0, 0.25, 4.0]))
    box = Box(lower[None].astype(float), upper[None].astype(float))
    region = UnsafeRegion(box, rows, np.full(len(rows), gap - values[deepest]))
    reached = Reached(Fraction(gap), tuple(Fraction(value) for value in points[deepest].tolist()))
    network = lowering.network(graph.tensor)
    samples = points, graph.values
    return Case(network, Property((region,)), (reached,), seconds=0.4, samples=samples)


def _integers(rng: np.random.Generator, *shape: int) -> FloatArray:
    return rng.integers(-2, 3, size=shape).astype(float)


def _under(values: FloatArray, window: Window, fill: float) -> FloatArray:
    """What lies under every window, (points, channels, *counts, extent), by the definition."""
    padding = [(0, 0), (0, 0), *zip(window.before, window.after, strict=True)]
    padded = np.pad(values, padding, constant_values=fill)
    axes = list(zip(padded.shape[2:], window.extents, window.dilations, strict=True))
    last = [size - (extent - 1) * dilation for size, extent, dilation in axes]
    shifts = itertools.product(*(range(extent) for extent in window.extents))
    parts = []
    for shift in shifts:
        starts = [place * dilation for place, dilation in zip(shift, window.dilations, strict=True)]
        rows, columns = (
            slice(start, start + stop, stride)
            for start, stop, stride in zip(starts, last, window.strides, strict=True)
        )
        parts.append(padded[:, :, rows, columns])
    return np.stack(parts, axis=-1)


def _convolution(values: FloatArray, kernel: FloatArray, window: Window, groups: int) -> FloatArray:
    under = _under(values, window, fill=0.0)
    count, filters = values.shape[1] // groups, len(kernel) // groups
    flat = kernel.reshape(len(kernel), count, -1)
    return np.concatenate(
        [
            np.einsum(
                "pchwk,fck->pfhw",
                under[:, group * count : (group + 1) * count],
                flat[group * filters : (group + 1) * filters],
            )
            for group in range(groups)
        ],
        axis=1,
    )
