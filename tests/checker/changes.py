"""Balls near the edge of what is robust, their certificates, and changes of these at random."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.checker.check import check
from tasks.checker.refused import RefusedError
from tasks.core.certificates.certify import Balls
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tests.certified import Arrays, ball, certified, float32_network
from tests.oracle import least_margin

TOLERANCE = 1e-5  # of the oracle
NETWORKS = ((1, (2, 6, 6, 3)), (3, (15, 8, 8, 3)), (5, (13, 9, 4)), (4, (13, 6, 6, 6, 2)))


def case(seed: int, widths: tuple[int, ...], share: float) -> tuple[ReluNetwork, Balls, float]:
    """A network and a ball, `share` of the radius at which the oracle finds another class."""
    generator = np.random.default_rng(seed)
    network = float32_network(generator, widths)
    center = generator.uniform(size=widths[0])
    low, high = 0.0, 2.0
    label = int(network(center[None]).argmax())
    for _ in range(6):
        middle = (low + high) / 2
        box = Box(center[None] - middle, center[None] + middle)
        low, high = (middle, high) if least_margin(network, box, label) > 0 else (low, middle)
    radius = share * low
    balls = ball(network, center, radius)
    return network, balls, least_margin(network, balls.boxes, label)


def wider_than_robust(network: ReluNetwork, balls: Balls) -> Arrays:
    """The ball's box made a fifth wider, in which another class wins."""
    radius = (balls.boxes.upper - balls.boxes.lower)[0, 0] / 2
    lower, upper = balls.boxes.lower - 0.2 * radius, balls.boxes.upper + 0.2 * radius
    assert least_margin(network, Box(lower, upper), int(balls.labels[0])) < -TOLERANCE
    return {"box_lower": lower, "box_upper": upper}


def false_claims(folder: Path) -> Iterator[tuple[Path, Path, Arrays]]:
    """Of each network the file, a certificate, and boxes of which its claim is false."""
    for number, (seed, widths) in enumerate(NETWORKS):
        place = folder / str(number)
        place.mkdir()
        network, balls, _ = case(seed, widths, share=0.97)
        model, certificate = certified(place, network, balls)
        yield model, certificate, wider_than_robust(network, balls)


def passes(certificate: Path, model: Path) -> bool:
    try:
        return all(result.proved for result in check(certificate, model))
    except RefusedError:
        return False


def mutated(arrays: Arrays, generator: np.random.Generator) -> Arrays:
    """One to three arrays with numbers changed, repeated, exchanged or left out."""
    names = [
        name for name in arrays if arrays[name].size and not name.startswith(("box", "header"))
    ]
    result: Arrays = {}
    for name in generator.choice(names, size=int(generator.integers(1, 4)), replace=False):
        values = arrays[name].copy()
        place = tuple(generator.integers(0, size) for size in values.shape)
        match int(generator.integers(0, 4)):
            case 0:
                values[place] = generator.choice([0, 1, -1, 7, 100]).astype(values.dtype)
            case 1:
                values = generator.permutation(values)
            case 2:
                values = np.delete(values, place[0], axis=0)
            case _:
                info = values.dtype.kind
                most = 1e3 if info == "f" else 100
                values[...] = (generator.normal(size=values.shape) * most).astype(values.dtype)
        result[name] = values
    return result
