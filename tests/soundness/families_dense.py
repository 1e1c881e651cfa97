"""Dense networks of ordinary numbers: random ones, chains of narrow units, ties, spikes, images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tests.networks import ball_around, random_network
from tests.oracle import least_excess_at
from tests.soundness.cases import (
    Case,
    Image,
    dense,
    extremes,
    known,
    random_box,
    random_gap,
    random_rows,
    random_shape,
    random_sums,
    shifted,
    single,
    singled,
    spread,
)
from tests.soundness.exact import Plane, Reached, excess_at


def plain(rng: np.random.Generator) -> Case:
    """Few or many inputs, one or two rows, margins of ordinary size."""
    inputs, count, widths = random_shape(rng)
    sums = random_sums(rng, inputs, count)
    network, box = dense(rng, sums, widths), random_box(rng, inputs)
    rows = random_rows(rng, int(rng.integers(1, 3)), widths[-1])
    case = known(network, [UnsafeRegion(box, rows, single(rng.normal(size=len(rows))))], sums)
    return shifted(case, random_gap(rng, spread(case)), sums)


def near_ties(rng: np.random.Generator) -> Case:
    """Margins within 1e-12 to 1e-4 of zero, on both sides, and zero up to an offset's rounding."""
    inputs, count, widths = random_shape(rng)
    sums = random_sums(rng, inputs, count)
    network, box = dense(rng, sums, widths), random_box(rng, inputs)
    region = UnsafeRegion(box, random_rows(rng, 1, widths[-1]), np.zeros(1))
    case = known(network, [region], sums)
    gap = rng.choice([-1.0, 1.0, 0.0], p=[0.4, 0.4, 0.2]) * 10 ** rng.uniform(-12, -4)
    return shifted(case, float(gap) * spread(case), sums)


def conjunctions(rng: np.random.Generator) -> Case:
    """Two to four rows that are barely met at once, or barely not: what clips may not cut off."""
    inputs, count, widths = random_shape(rng)
    sums = random_sums(rng, inputs, count)
    network, box = dense(rng, sums, widths), random_box(rng, inputs)
    rows = random_rows(rng, int(rng.integers(2, 5)), widths[-1])
    case = known(network, [UnsafeRegion(box, rows, single(rng.normal(size=len(rows))))], sums)
    return shifted(
        case, float(rng.choice([-1.0, 1.0]) * spread(case) * 10 ** rng.uniform(-6, -2)), sums
    )


def kinks(rng: np.random.Generator) -> Case:
    """Integer weights and boxes, biases on kinks of ReLUs: ties are exact in float64 as well."""
    inputs, count, widths = random_shape(rng)
    sums = np.sign(random_sums(rng, inputs, count))
    layers, before = [], count
    for place, width in enumerate(widths):
        weight = rng.integers(-2, 3, size=(width, before)).astype(float)
        bias = rng.integers(-1, 2, size=width).astype(float)
        layers.append(Affine(weight @ sums if place == 0 else weight, bias))
        before = width
    network = ReluNetwork(tuple(layers))
    lower = -rng.integers(0, 3, size=(1, inputs)).astype(float)
    box = Box(lower, lower + rng.integers(1, 4, size=(1, inputs)))
    rows = rng.integers(-2, 3, size=(int(rng.integers(1, 3)), widths[-1])).astype(float)
    case = known(network, [UnsafeRegion(box, rows, np.zeros(len(rows)))], sums)
    return shifted(case, float(rng.choice([0.0, 0.0, 2.0**-20, -(2.0**-20), 1.0])), sums)


def fixed_inputs(rng: np.random.Generator) -> Case:
    """Random weights on many inputs, of which all but one or two have no width."""
    inputs, count = int(rng.integers(2, 20)), int(rng.integers(1, 3))
    widths = [*rng.integers(2, 6, size=int(rng.integers(0, 4))).tolist(), 3]
    network = singled(random_network(rng, (inputs, *widths)))
    box, free = random_box(rng, inputs), rng.permutation(inputs)[:count]
    upper = box.lower.copy()
    upper[0, free] = box.upper[0, free]
    sums = np.eye(inputs)[free]
    region = UnsafeRegion(Box(box.lower, upper), random_rows(rng, 1, 3), np.zeros(1))
    case = known(network, [region], sums)
    return shifted(case, random_gap(rng, spread(case)), sums)


def chains(rng: np.random.Generator) -> Case:
    """Two to four layers of units that are positive in 0.1% to 10% of their range."""
    return _narrow(rng, [int(rng.integers(1, 4)) for _ in range(int(rng.integers(2, 5)))])


def narrow_units(rng: np.random.Generator) -> Case:
    """One or two such layers, a little wider."""
    return _narrow(rng, [int(rng.integers(2, 6)) for _ in range(int(rng.integers(1, 3)))])


def _narrow(rng: np.random.Generator, widths: list[int]) -> Case:
    """Every unit's weights are scaled until its positive part is about one."""
    inputs = int(rng.integers(1, 4) if rng.random() < 0.8 else rng.integers(13, 20))
    sums, box = random_sums(rng, inputs, 1), random_box(rng, inputs)
    plane, layers, before = Plane.across(box, sums), [], 1
    for place, width in enumerate(widths):
        weight = rng.normal(size=(width, before))
        weight = weight @ sums if place == 0 else weight
        bias = np.zeros(width)
        wide = ReluNetwork((*layers, Affine(weight, bias)))
        for unit in range(width):
            least, most = extremes(wide, box, plane, unit)
            part = 10 ** rng.uniform(-3, -1) * (most - least)
            scale = 1 / max(part, 1e-6)
            bias[unit], weight[unit] = -(most - part) * scale, weight[unit] * scale
        weight = single(weight) if place else _with_sums(weight, sums)
        layers.append(Affine(weight, single(bias)))
        before = width
    outputs = int(rng.integers(1, 4))
    last = single(rng.normal(size=(outputs, before)))
    network = ReluNetwork((*layers, Affine(last, single(rng.normal(size=outputs) * 0.2))))
    region = UnsafeRegion(box, random_rows(rng, 1, outputs), np.zeros(1))
    values = ReluNetwork((*layers, Affine(region.rows @ last, np.zeros(1))))
    least, most = extremes(values, box, plane, 0)
    gap = (most - least) * 10 ** rng.uniform(-3, -0.3) * rng.choice([-1.0, -1.0, 1.0])
    return shifted(known(network, [region], sums), float(gap), sums)


def _with_sums(weight: FloatArray, sums: FloatArray) -> FloatArray:
    """Weights that are multiples of one row of sums, rounded to float32 multiples of it."""
    place = int(np.flatnonzero(sums[0])[0])
    return single(weight[:, place] / sums[0, place])[:, None] @ sums


def spikes(rng: np.random.Generator) -> Case:
    """A narrow needle on flat ground: the gradient is zero nearly everywhere.

    relu(s - a) - 2 relu(s - b) + relu(s - c) over the width of the needle, with b in the middle.
    """
    inputs = int(rng.choice([1, 2, 14, 20]))
    sums = random_sums(rng, inputs, 1)
    box = random_box(rng, inputs)
    network = ReluNetwork((Affine(sums, np.zeros(1)),))
    low, high = extremes(network, box, Plane.across(box, sums), 0)
    width = (high - low) * 2.0 ** -int(rng.integers(4, 20))
    start = low + (high - low) * rng.uniform(0.1, 0.9)
    kink = single(-(start + width * np.array([0.0, 0.5, 1.0])))
    height = float(single(rng.uniform(0.5, 2) / width))
    first = Affine(np.repeat(sums, 3, axis=0), kink)
    second = Affine(height * np.array([[1.0, -2.0, 1.0], [0.0, 0.0, 0.0]]), np.array([0.0, 0.2]))
    network = ReluNetwork((first, second))
    region = UnsafeRegion(box, np.array([[-1.0, 1.0]]), np.zeros(1))
    case = known(network, [region], sums)
    gap = float(rng.choice([-1.0, 1.0]) * 10 ** rng.uniform(-4, -1))
    return replace(shifted(case, gap, sums), seconds=0.4)


def mixed_integer(rng: np.random.Generator) -> Case:
    """Inputs that all matter. The least excess is HiGHS's; it counts as it is at HiGHS's point."""
    inputs = int(rng.integers(2, 6) if rng.random() < 0.5 else rng.integers(13, 16))
    widths = [*rng.integers(2, 7, size=int(rng.integers(1, 4))).tolist(), 3]
    network, box = singled(random_network(rng, (inputs, *widths))), random_box(rng, inputs)
    row = random_rows(rng, 1, 3)
    least, _ = least_excess_at(network, UnsafeRegion(box, row, np.zeros(1)))
    gap = random_gap(rng, 1.0)
    region = UnsafeRegion(box, row, np.array([gap - least]))
    point = np.clip(least_excess_at(network, region)[1], box.lower[0], box.upper[0]).tolist()
    reached = Reached(excess_at(network, region, point), Plane(point).at((0, 0, 1)))
    return Case(network, Property((region,)), (reached,))


def images(rng: np.random.Generator) -> Case:
    """Balls around an image; in most cases one class trails the right one by a constant."""
    inputs = int(rng.choice([4, 9, 14, 20]))
    sums = random_sums(rng, inputs, 1)
    network = dense(rng, sums, [*rng.integers(4, 13, size=int(rng.integers(1, 4))).tolist(), 3])
    pixels = rng.random(inputs, dtype=np.float32)
    label = int(network(pixels[None]).argmax())
    if rng.random() < 0.7:
        network = _trailed(network, label, float(single(10 ** rng.uniform(-4, -1))))
    least = float(rng.uniform(0.02, 0.4))
    image = Image(pixels, label, (least, float(rng.uniform(least, 0.5))), sums)
    ball = ball_around(pixels[None], image.epsilons[1])
    case = known(network, Property.robustness(ball, label, 3).unsafe, sums)
    return replace(case, image=image)


def _trailed(network: ReluNetwork, label: int, distance: float) -> ReluNetwork:
    """With the class after `label` always `distance` below it."""
    *hidden, last = network.layers
    weight, bias, other = last.weight.copy(), last.bias.copy(), (label + 1) % len(last.bias)
    weight[other], bias[other] = weight[label], bias[label] - distance
    return ReluNetwork((*hidden, Affine(weight, bias)))
