"""Numbers at the edges: constant rows, extreme scales, overflow, underflow, boxes thin and huge."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.tensors.lowering import Lowering
from tests.soundness.cases import (
    Case,
    dense,
    known,
    random_box,
    random_gap,
    random_rows,
    random_shape,
    random_sums,
    shifted,
    single,
    spread,
)
from tests.soundness.exact import Reached


def constant_rows(rng: np.random.Generator) -> Case:
    """Conjunctions of a row that varies and rows that hold by nearly or wholly constant outputs.

    Duplicates of rows, zero rows, outputs and hidden units that are never positive.
    """
    inputs, count, widths = random_shape(rng)
    sums, box = random_sums(rng, inputs, count), random_box(rng, inputs)
    network = _with_constant_output(rng, dense(rng, sums, widths))
    varying = np.append(random_rows(rng, 1, widths[-1])[0], 0.0)
    constant = np.append(np.zeros(widths[-1]), 1.0)
    far = float(rng.choice([0.0, 1e-13, 1e-9, 1e-3, 1.0, 100.0, 100.0, 1e4]))
    least = known(network, [UnsafeRegion(box, varying[None], np.zeros(1))], sums)
    offset = -float(least.reached[0].excess) + random_gap(rng, spread(least))
    limits = {
        "constant": (constant, -1 - far),
        "zero": (0 * constant, -far),
        "twice": (varying, offset),
    }
    names = rng.choice(list(limits), size=int(rng.integers(1, 3)))
    rows = np.array([varying, *(limits[name][0] for name in names)])
    offsets = np.array([offset, *(limits[name][1] for name in names)])
    order = rng.permutation(len(rows))
    return known(network, [UnsafeRegion(box, rows[order], offsets[order])], sums)


def _with_constant_output(rng: np.random.Generator, network: ReluNetwork) -> ReluNetwork:
    """One more output: 1, at times plus a relative 1e-12 to 1e-3, at times plus a dead unit."""
    *hidden, last = network.layers
    size = float(rng.choice([0.0, 1.0]) * 10 ** rng.uniform(-12, -3))
    row = single(size * rng.normal(size=(1, last.weight.shape[1]))) * bool(hidden)
    if hidden and rng.random() < 0.3:  # the last hidden layer's first unit is never positive
        before = hidden[-1]
        bias = before.bias.copy()
        bias[0] = -1e4
        hidden[-1] = Affine(before.weight, bias)
        row[0, 0] = 1.0
    weight, bias = np.concatenate([last.weight, row]), np.append(last.bias, 1.0)
    return ReluNetwork((*hidden, Affine(weight, bias)))


def regions(rng: np.random.Generator) -> Case:
    """Several regions of several rows in one or two boxes; a third speak of inputs as well."""
    inputs, count, widths = random_shape(rng)
    sums = random_sums(rng, inputs, count)
    network = dense(rng, sums, widths)
    boxes = [random_box(rng, inputs) for _ in range(int(rng.integers(1, 3)))]
    mixed = rng.random() < 0.33
    found = []
    for _ in range(int(rng.integers(1, 4))):
        rows = random_rows(rng, int(rng.integers(1, 4)), widths[-1])
        if mixed:  # of the inputs nothing but their sums, so that the sums say all
            rows = np.concatenate(
                [rows, single(rng.normal(size=(len(rows), count))) @ sums], axis=1
            )
        found.append(
            UnsafeRegion(boxes[rng.integers(len(boxes))], rows, rng.normal(size=len(rows)))
        )
    case = known(network, found, sums)
    return shifted(case, random_gap(rng, spread(case)), sums)


def scales(rng: np.random.Generator) -> Case:
    """Outputs of 1e-12 to 1e+12, by the last layer or spread over all, or one output of each."""
    inputs, count, widths = random_shape(rng)
    sums, box = random_sums(rng, inputs, count), random_box(rng, inputs)
    plain = dense(rng, sums, widths)
    scale = 2.0 ** float(rng.integers(-40, 41))
    layers = list(plain.layers)
    places = range(len(layers)) if rng.random() < 0.5 else [len(layers) - 1]
    for place in places:
        each = 2.0 ** np.round(np.log2(scale) / len(places))
        layers[place] = Affine(layers[place].weight * each, layers[place].bias * each)
    network = ReluNetwork(tuple(layers))
    case = known(network, [UnsafeRegion(box, random_rows(rng, 1, widths[-1]), np.zeros(1))], sums)
    return shifted(case, random_gap(rng, spread(case)), sums)


def decay(rng: np.random.Generator) -> Case:
    """As after strong weight decay: most weights and biases tiny, a few units that matter."""
    inputs, count, widths = random_shape(rng)
    sums, box = random_sums(rng, inputs, count), random_box(rng, inputs)
    layers = []
    for layer in dense(rng, sums, widths).layers:
        small = single(np.where(rng.random(len(layer.bias)) < 0.6, 2.0 ** -rng.integers(10, 50), 1))
        layers.append(Affine(layer.weight * small[:, None], layer.bias * small))
    case = known(
        ReluNetwork(tuple(layers)),
        [UnsafeRegion(box, random_rows(rng, 1, widths[-1]), np.zeros(1))],
        sums,
    )
    return shifted(case, random_gap(rng, spread(case)), sums)


def boxes(rng: np.random.Generator) -> Case:
    """Boxes of no width at all, of a relative 1e-15, and of widths up to 1e12."""
    inputs, count, widths = random_shape(rng)
    sums = random_sums(rng, inputs, count)
    network = dense(rng, sums, widths, bias=float(rng.choice([0.2, 1e6])))
    box = random_box(rng, inputs, reach=float(rng.choice([1e-6, 1.0, 1e6, 1e12])))
    match rng.choice(["point", "thin", "some", "wide"]):
        case "point":
            box = Box(box.lower, box.lower)
        case "thin":
            box = Box(box.lower, np.nextafter(box.lower, np.inf))
        case "some":
            fixed = rng.random(box.lower.shape) < 0.5
            box = Box(box.lower, np.where(fixed, box.lower, box.upper))
    case = known(network, [UnsafeRegion(box, random_rows(rng, 1, widths[-1]), np.zeros(1))], sums)
    return shifted(case, random_gap(rng, spread(case)), sums)


def far(rng: np.random.Generator) -> Case:
    """Inputs near 10^3 to 10^8 that the first layer's biases take away again."""
    inputs, count, widths = random_shape(rng)
    sums, near = random_sums(rng, inputs, count), random_box(rng, inputs)
    plain, away = dense(rng, sums, widths), np.full(inputs, float(single(10 ** rng.uniform(3, 8))))
    first = plain.layers[0]
    moved = Affine(first.matrix, first.bias - first.weight @ away)
    network = ReluNetwork((moved, *plain.layers[1:]))
    box = Box(near.lower + away, near.upper + away)
    case = known(network, [UnsafeRegion(box, random_rows(rng, 1, widths[-1]), np.zeros(1))], sums)
    return shifted(case, random_gap(rng, spread(case)), sums)


def drift(rng: np.random.Generator) -> Case:
    """Many constants of about an ulp of the last one: in one running sum each is rounded to it."""
    inputs = int(rng.choice([1, 2, 14]))
    sums = random_sums(rng, inputs, 1)
    units, ulp = int(rng.integers(400, 1500)), 2.0**-52
    constants = single(ulp * rng.choice([0.3, 0.6, 0.8]) * rng.uniform(0.9, 1.1, size=units))
    first = Affine(constants[:, None] / 8 @ sums, constants)
    total = Affine(np.ones((1, units)), np.zeros(1))
    last = Affine(rng.choice([-1.0, 1.0], size=(1, 1)), rng.choice([-1.0, 1.0], size=1))
    network = ReluNetwork((first, total, last))
    region = UnsafeRegion(random_box(rng, inputs), np.ones((1, 1)), np.zeros(1))
    case = known(network, [region], sums)
    return shifted(case, units * ulp * rng.uniform(-0.3, 0.05), sums)


def folded(rng: np.random.Generator) -> Case:
    """A layer and a normalisation, one layer of the network: bias and mean cancel, or products do.

    The exact excess is of the steps themselves, a little below 0 or above.
    """
    lowering, size, root = Lowering((1, 1)), 10 ** rng.uniform(0, 7), int(rng.integers(3, 40))
    low, high = sorted(float(each) for each in single(rng.uniform(-1, 1, size=2)))
    if rng.random() < 0.5:
        bias = float(single(np.array(size * rng.uniform(1, 2))))
        mean = float(single(np.array(bias + 1e-4 * size * rng.normal())))
        least, exact = low, (Fraction(low) + Fraction(bias) - Fraction(mean)) * 16 / root
        tensor = lowering.batch_normalised(
            lowering.add(lowering.input, lowering.constant([bias])),
            1,
            mean=np.array([mean]),
            variance=np.array([(root / 16) ** 2]),
            epsilon=0.0,
            scale=np.ones(1),
            shift=np.zeros(1),
        )
    else:
        first = single(size * rng.normal(size=(1, 3)))
        second = single(size * rng.normal(size=(3, 1)))
        first[0, 2], second[2, 0] = first[0, 0], -second[0, 0]  # what is left is of the middle one
        weight = Fraction(float(first[0, 1])) * Fraction(float(second[1, 0]))
        least = low if weight > 0 else high
        exact = weight * Fraction(least)
        tensor = lowering.input.times(first).times(second)
    gap = float(rng.choice([-1, 1]) * 10 ** rng.uniform(-16, -9) * size)
    offset = float(-exact) + gap
    box = Box(np.full((1, 1), low), np.full((1, 1), high))
    region = UnsafeRegion(box, np.ones((1, 1)), np.array([offset]))
    reached = Reached(exact + Fraction(offset), (Fraction(least),))
    return Case(lowering.network(tensor), Property((region,)), (reached,))


def overflow(rng: np.random.Generator) -> Case:
    """Weights, boxes and biases of 1e150 to 1e308: widths, sums and chords pass float64's end."""
    inputs = int(rng.choice([1, 2, 14]))
    sums = np.zeros((1, inputs))
    sums[0, rng.integers(inputs)] = 1.0
    high = 2.0 ** float(rng.choice([1023, rng.integers(500, 1023)])) * rng.uniform(1.0, 2.0)
    down = 2.0 ** -float(rng.integers(500, 1020))
    lower, upper = -np.ones((1, inputs)), np.ones((1, inputs))
    match rng.choice(["chord", "center", "hidden", "offset"]):
        case "chord":
            first = Affine(high * sums, np.zeros(1))
            network = ReluNetwork((first, Affine(np.array([[-down]]), np.ones(1))))
        case "center":
            lower, upper = np.where(sums, high / 2, lower), np.where(sums, high, upper)
            network = ReluNetwork((Affine(sums, np.array([-0.9 * high])),))
        case "hidden":
            lower, upper = np.where(sums, high / 2, lower), np.where(sums, high, upper)
            first = Affine(sums, np.zeros(1))
            network = ReluNetwork((first, Affine(np.ones((1, 1)), np.array([-0.9 * high]))))
        case _:
            network = ReluNetwork((Affine(high * sums, np.array([high / 2])),))
    region = UnsafeRegion(Box(lower, upper), np.ones((1, 1)), np.zeros(1))
    return known(network, [region], sums)


def underflow(rng: np.random.Generator) -> Case:
    """Weights and biases among the subnormal numbers: products round to zero or to the least."""
    inputs = int(rng.choice([1, 3, 14, 40]))
    least = 2.0**-1074 * float(rng.integers(1, 4))
    upper = rng.uniform(0.3, 0.7, size=(1, inputs))
    box = Box(np.zeros((1, inputs)), upper)
    sums = np.ones((1, inputs))
    if rng.random() < 0.5:
        network = ReluNetwork((Affine(-least * sums, np.array([least * rng.integers(0, inputs)])),))
    else:
        small = 2.0 ** -float(rng.integers(500, 560))
        first = Affine(small * sums, -small * rng.uniform(0, 0.5, size=1))
        second = Affine(np.array([[-small]]), np.array([least * rng.integers(0, 3)]))
        network = ReluNetwork((first, second))
    region = UnsafeRegion(box, np.ones((1, 1)), np.zeros(1))
    return known(network, [region], sums)


def cancelling(rng: np.random.Generator) -> Case:
    """(x + 2^k) - 2^k, large biases that cancel, deep chains: float32 sees other values."""
    inputs = int(rng.choice([1, 2, 14]))
    sums = random_sums(rng, inputs, 1)
    box = random_box(rng, inputs)
    big, depth = 2.0 ** float(rng.integers(6, 24)), int(rng.integers(1, 7))
    layers, width = [], 3
    for place in range(depth):
        weight = single(rng.normal(size=(width, 1 if place == 0 else width)) * 0.8)
        bias = single(rng.normal(size=width) * 0.3 + big * (place % 2 == 0))
        layers.append(Affine(weight @ sums if place == 0 else weight, bias))
        if place % 2 == 0:  # and taken away again, behind the ReLU
            layers.append(Affine(np.eye(width), np.full(width, -big)))
    layers.append(Affine(single(rng.normal(size=(2, width))), single(rng.normal(size=2))))
    network = ReluNetwork(tuple(layers))
    region = UnsafeRegion(box, random_rows(rng, 1, 2), np.zeros(1))
    case = known(network, [region], sums)
    # between the errors of float64 and of float32, where the one proves and the other may fail
    return shifted(case, float(big * 10 ** rng.uniform(-12, -7)), sums)


def huge_and_tiny(rng: np.random.Generator) -> Case:
    """Outputs of far sizes in one row: what is small is lost in the rounding of what is large."""
    inputs, count, widths = random_shape(rng)
    sums, box = random_sums(rng, inputs, count), random_box(rng, inputs)
    network = dense(rng, sums, widths)
    *hidden, last = network.layers
    sizes = 2.0 ** rng.integers(-40, 41, size=len(last.bias)).astype(float)
    network = ReluNetwork((*hidden, Affine(last.weight * sizes[:, None], last.bias * sizes)))
    row = random_rows(rng, 1, widths[-1]) / np.where(rng.random(widths[-1]) < 0.5, sizes, 1.0)
    case = known(network, [UnsafeRegion(box, row, np.zeros(1))], sums)
    return shifted(case, random_gap(rng, spread(case)), sums)
