"""A network in float32, summed in many orders: what any deployed form of it may compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import FloatArray
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.specification import UnsafeRegion
from tests.soundness.cases import Case, Float32Array
from tests.soundness.findings import Finding

NUM_POINTS = 48


def _sequential(weight: Float32Array, x: Float32Array, start: Float32Array) -> Float32Array:
    """Term by term from `start`, every product and every sum rounded."""
    total = start
    for place in range(x.shape[1]):
        total = total + x[:, None, place] * weight[None, :, place]
    return total


def _fused(weight: Float32Array, x: Float32Array, start: Float32Array) -> Float32Array:
    """Term by term, each product exact and added with one rounding, but for double rounding."""
    total = start
    for place in range(x.shape[1]):
        product = x[:, None, place].astype(np.float64) * weight[None, :, place]
        total = (total + product).astype(np.float32)
    return total


def _pairwise(weight: Float32Array, x: Float32Array, start: Float32Array) -> Float32Array:
    """Neighbours first, then neighbouring sums."""
    parts = x[:, None, :] * weight[None]
    while parts.shape[-1] > 1:
        if parts.shape[-1] % 2:
            parts = np.concatenate([parts, np.zeros_like(parts[..., :1])], axis=-1)
        parts = parts[..., ::2] + parts[..., 1::2]
    return start + parts.sum(axis=-1, dtype=np.float32)


ORDERS: dict[str, Callable[[Float32Array, Float32Array, Float32Array], Float32Array]] = {
    "sequential": _sequential,
    "fused": _fused,
    "pairwise": _pairwise,
}


def deployed(case: Case, claimed: bool | None, rng: np.random.Generator) -> Finding:
    """Of the claim that no float32 evaluation reaches a region, in whatever order it sums."""
    engine = "deployed"
    if not claimed or not is_single(case.network):
        return Finding(engine, "undecided")
    for region, reached in zip(case.property.unsafe, case.reached, strict=True):
        points = _points(region, [float(value) for value in reached.point], rng)
        for name, outputs in _evaluations(case.network, points, rng):
            both = np.concatenate([outputs, points], axis=1)[:, : region.rows.shape[1]]
            excess = region.excess(both.astype(np.float64))
            if not (excess > 0).all():
                words = f"deployed, yet in float32, {name}, the excess is {excess.min()!r}"
                return Finding(engine, "wrong", words)
    return Finding(engine, "right")


def is_single(network: ReluNetwork) -> bool:
    """Whether every weight is a float32 number."""
    parts = [part for layer in network.layers for part in (layer.weight, layer.bias)]
    with np.errstate(over="ignore"):
        return all((_single(part) == part).all() for part in parts)


def _points(region: UnsafeRegion, deepest: list[float], rng: np.random.Generator) -> Float32Array:
    """Float32 points of the box, the first next to `deepest`; none where the box holds none."""
    lower, upper = region.box.float32_bounds()
    if (lower > upper).any():
        return np.empty((0, lower.shape[1]), dtype=np.float32)
    shares = rng.random((NUM_POINTS, lower.shape[1]))
    shares[::2] = shares[::2].round()
    points = lower + shares * (upper.astype(np.float64) - lower)
    points[0] = deepest
    return np.clip(points.astype(np.float32), lower, upper)


def _evaluations(
    network: ReluNetwork, points: Float32Array, rng: np.random.Generator
) -> Iterator[tuple[str, Float32Array]]:
    for name, total in ORDERS.items():
        for bias_first in (False, True):
            for _ in range(2):
                yield (
                    f"{name}, bias first: {bias_first}",
                    _forward(network, points, total, bias_first, rng),
                )


def _forward(
    network: ReluNetwork,
    points: Float32Array,
    total: Callable[[Float32Array, Float32Array, Float32Array], Float32Array],
    bias_first: bool,
    rng: np.random.Generator,
) -> Float32Array:
    """Every layer summed over its inputs in an order of its own."""
    x, last = points, len(network.layers) - 1
    for depth, layer in enumerate(network.layers):
        order = rng.permutation(x.shape[1])
        weight, bias = _single(layer.weight)[:, order], _single(layer.bias)
        start = np.broadcast_to(bias * bias_first, (len(x), len(bias)))
        z = total(weight, x[:, order], start)
        z = z if bias_first else z + bias
        x = z if depth == last else np.where(network.linear[depth], z, np.maximum(z, 0))
    return x


def _single(values: FloatArray) -> NDArray[np.float32]:
    return values.astype(np.float32)
