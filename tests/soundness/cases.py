"""A case: a network, a property, and points known to come as close to its regions as any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tests.soundness.exact import Plane, Reached, least_excess

Float32Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Image:
    """A point that is classified right, for questions of balls: within [0, 1], float32.

    The network's first layer reads `sums @ x` alone.
    """

    pixels: Float32Array
    label: int
    epsilons: tuple[float, float]
    sums: FloatArray


@dataclass(frozen=True, eq=False)
class Case:
    """What the engines are asked.

    Attributes:
        reached: for each region a point of its box with its exact excess: nothing that the region
            is proved to stay clear of may be more. Where a family can, it is the least excess.
        seconds: what an engine may take.
        samples: points, (n, inputs), with the outputs that the network's layers are defined to
            give there, where it was lowered from other layers.
    """

    network: ReluNetwork
    property: Property
    reached: tuple[Reached, ...]
    seconds: float = 0.5
    image: Image | None = None
    samples: tuple[FloatArray, FloatArray] | None = None


def single(values: FloatArray) -> FloatArray:
    """The nearest float32 numbers, as float64."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def dense(
    rng: np.random.Generator, sums: FloatArray, widths: Sequence[int], bias: float = 0.2
) -> ReluNetwork:
    """Gaussian float32 weights; the first layer reads `sums @ x` alone, exactly.

    The weights of the sums are to be powers of two.
    """
    layers = []
    for place, (before, after) in enumerate(zip([len(sums), *widths], widths, strict=False)):
        weight = single(rng.normal(size=(after, before)) / np.sqrt(before))
        weight = weight @ sums if place == 0 else weight
        layers.append(Affine(weight, single(rng.normal(size=after) * bias)))
    return ReluNetwork(tuple(layers))


def singled(network: ReluNetwork) -> ReluNetwork:
    """With float32 weights."""
    return ReluNetwork(tuple(Affine(single(a.weight), single(a.bias)) for a in network.layers))


def random_sums(rng: np.random.Generator, num_inputs: int, count: int) -> FloatArray:
    """Powers of two over all inputs, each input in one of `count` sums."""
    sums = np.zeros((count, num_inputs))
    owner = np.concatenate([np.arange(count), rng.integers(count, size=num_inputs - count)])
    sizes = 2.0 ** rng.integers(-2, 2, size=num_inputs) / np.sqrt(num_inputs)
    sums[rng.permutation(owner), np.arange(num_inputs)] = np.exp2(np.round(np.log2(sizes)))
    return sums * rng.choice([-1.0, 1.0], size=num_inputs)


def random_shape(rng: np.random.Generator) -> tuple[int, int, list[int]]:
    """Inputs (few or many), sums (one or two), and the widths of the layers."""
    count = 1 if rng.random() < 0.75 else 2
    inputs = int(rng.integers(count, 7) if rng.random() < 0.5 else rng.integers(13, 25))
    depth, most = int(rng.integers(0, 5)), 9 if count == 1 else 6
    return inputs, count, [*rng.integers(2, most, size=depth).tolist(), int(rng.integers(2, 5))]


def random_box(rng: np.random.Generator, num_inputs: int, reach: float = 1.0) -> Box:
    """Float32 bounds around a Gaussian center."""
    center, radius = rng.normal(size=num_inputs) * 0.5, rng.uniform(0.1, 1.0, size=num_inputs)
    lower, upper = single(reach * (center - radius)), single(reach * (center + radius))
    return Box(lower[None], upper[None])


def random_rows(rng: np.random.Generator, count: int, num_outputs: int) -> FloatArray:
    """Rows of a region, float32."""
    return single(rng.normal(size=(count, num_outputs)))


def known(network: ReluNetwork, regions: Sequence[UnsafeRegion], sums: FloatArray) -> Case:
    """A case of a network that reads `sums @ x` alone: the least excess of each region is exact."""
    reached = tuple(
        least_excess(network, region, Plane.across(region.box, sums)) for region in regions
    )
    return Case(network, Property(tuple(regions)), reached)


def shifted(case: Case, gap: float, sums: FloatArray) -> Case:
    """The case with its regions' offsets moved until the least excess of each is `gap`, rounded."""
    regions = [
        replace(region, offsets=region.offsets + (gap - float(reached.excess)))
        for region, reached in zip(case.property.unsafe, case.reached, strict=True)
    ]
    return known(case.network, regions, sums)


def random_gap(rng: np.random.Generator, scale: float) -> float:
    """Of either sign, a thousandth to a half of the scale."""
    return float(rng.choice([-1.0, 1.0]) * scale * 10 ** rng.uniform(-3, -0.3))


def spread(case: Case) -> float:
    """How much the first region's first row varies over its box, sampled; 1 where not at all."""
    region, rng = case.property.unsafe[0], np.random.default_rng(0)
    box = region.box
    points = box.lower + rng.random((200, box.lower.shape[1])).round(1) * (box.upper - box.lower)
    outputs = case.network(points)
    both = np.concatenate([outputs, points], axis=1)[:, : region.rows.shape[1]]
    size = float(np.ptp(both @ region.rows[0]))
    return size if np.isfinite(size) and size > 0 else 1.0


def extremes(network: ReluNetwork, box: Box, plane: Plane, output: int) -> tuple[float, float]:
    """The least and the greatest value of an output on the plane."""
    row = np.zeros((1, network.num_outputs))
    row[0, output] = 1
    least, most = (
        float(least_excess(network, UnsafeRegion(box, sign * row, np.zeros(1)), plane).excess)
        for sign in (1.0, -1.0)
    )
    return least, -most
