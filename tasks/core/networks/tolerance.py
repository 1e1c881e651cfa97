"""A network whose one output is a number, as one that decides: within a tolerance, or beyond it."""

from __future__ import annotations

from math import frexp

import numpy as np

from tasks.core.errors import CertiflowError
from tasks.core.networks.activation import Activation
from tasks.core.networks.network import Affine, ReluNetwork, Roundings

BESIDE = np.array([[0.0, 0.0], [1.0, -1.0], [-1.0, 1.0]])  # (output, reference) to the classes


def in_float32(tolerance: float) -> np.float32:
    """The greatest float32 number up to the tolerance, so that no more than it is granted."""
    nearest = np.float32(tolerance)
    return np.nextafter(nearest, np.float32(0)) if float(nearest) > tolerance else nearest


def scale_of(tolerance: np.float32) -> float:
    """The power of two that brings the tolerance into [1, 2): exact, in float32 as well.

    Without it the cross-entropy of two logits a thousand apart has no gradient.
    """
    return float(2.0 ** (1 - frexp(tolerance)[1]))


def within(network: ReluNetwork, tolerance: float) -> ReluNetwork:
    """The network `(x, y) -> scale * (0, f(x) - y - tolerance, y - f(x) - tolerance)`.

    Its first output is strictly the greatest exactly where |f(x) - y| < tolerance, the second one
    where f(x) is too high, the third one where it is too low. The reference y is the last input. In
    exact arithmetic: its weights are the network's own, and powers of two; the tolerance is
    `in_float32`, as the deployed model takes it (`models.tolerance`).

    Raises:
        CertiflowError: the network has more than one output.
    """
    if network.num_outputs != 1:
        raise CertiflowError(
            f"the network has {network.num_outputs} outputs: expected one, a number"
        )
    single = in_float32(tolerance)
    scale, beside = scale_of(single), network.beside(1)
    offset = np.array([0.0, -1.0, -1.0]) * (scale * float(single))
    # Subtracted, subtracted and scaled: before that numbers are as great as the tolerance.
    roundings = Roundings(count=3, gain=(2 + float(single)) * max(1.0, scale))
    return ReluNetwork(
        (*beside.layers, Affine(scale * BESIDE, offset)),
        roundings=(*beside.roundings, roundings),
        activations=(
            *beside.activations,
            Activation.of_relus(np.ones(2, dtype=bool)),  # output and reference, which it compares
        ),
    )
