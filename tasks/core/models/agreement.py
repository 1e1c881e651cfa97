"""A model held against itself: its runtime must compute what its float64 network says.

Whatever a reader may have misunderstood in a file, a proof about another function than the deployed
one is worth nothing. So both are asked at points, and may differ only by what float32 explains.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.bounds.float32_error import point_error
from tasks.core.errors import CertiflowError, first_line
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.tensors.lowering import BEYOND_FLOAT32

if TYPE_CHECKING:
    from tasks.core.models.runtimes import Runtime

SEED = 0
SHOWN = 4  # inputs of a point in an error
MOST_BOXES = 4  # of a property or a sample
CORNERS = 4  # of a box, beside its least, its greatest and its center
AS_ROUNDINGS = 2**14  # what constants may differ by: a thousandth of the terms that are summed


def seeded_points(num_inputs: int) -> FloatArray:
    """Points of the unit box and around zero, up to some ten units away: shape (16, inputs)."""
    generator = np.random.default_rng(SEED)
    spread = np.repeat([1.0, 10.0], 4)[:, None] * generator.normal(size=(8, num_inputs))
    return np.concatenate([generator.random((8, num_inputs)), spread])


def box_points(boxes: Box) -> FloatArray:
    """The centers of the first boxes, and corners, some of them drawn with a seed."""
    generator = np.random.default_rng(SEED)
    some = boxes[slice(0, MOST_BOXES)]
    corners = generator.random((CORNERS, *some.lower.shape)) < 0.5
    drawn = np.where(corners, some.upper, some.lower).reshape(-1, some.lower.shape[1])
    return np.concatenate([(some.lower + some.upper) / 2, some.lower, some.upper, drawn])


def _of_constants_alike(network: ReluNetwork) -> ReluNetwork:
    """Where no error of float32 is known, since constants may differ, one that they never reach."""
    roundings = (
        replace(each, count=AS_ROUNDINGS) if each.count >= BEYOND_FLOAT32 else each
        for each in network.roundings
    )
    return replace(network, roundings=tuple(roundings))


@np.errstate(over="ignore", invalid="ignore")
def check_agreement(network: ReluNetwork, runtime: Runtime, points: FloatArray) -> None:
    """Asks both at the float32 numbers nearest to `points`, (n, inputs).

    Raises:
        CertiflowError: they differ at a point by more than any order of float32 sums explains, or
            the runtime cannot run the model.
    """
    fed = points.astype(np.float32)
    fed = fed[np.isfinite(fed).all(axis=1)]
    try:
        found = runtime.logits(fed.reshape(len(fed), *runtime.input_shape)).astype(np.float64)
    except CertiflowError:
        raise
    except Exception as error:  # the runtimes' exceptions share no base class
        raise CertiflowError(f"its runtime cannot run the model: {first_line(error)}") from error
    exact = fed.astype(np.float64)
    expected, allowed = network(exact), point_error(_of_constants_alike(network), exact)
    if found.shape != expected.shape:
        raise CertiflowError(
            f"its runtime gives outputs of shape {found.shape[1:]}, expected {expected.shape[1:]}"
        )
    differs = ~(np.abs(found - expected) <= allowed) & np.isfinite(allowed)
    for point, output in np.argwhere(differs):
        shown = ", ".join(f"{value:.9g}" for value in fed[point][:SHOWN])
        rest = ", …" if fed.shape[1] > SHOWN else ""
        raise CertiflowError(
            f"at the input ({shown}{rest}) its runtime gives {found[point, output]:.9g} for output "
            f"{output}, the network as it was read {expected[point, output]:.9g}; float32 explains "
            f"a difference of {allowed[point, output]:.2g}: the file is not understood, so nothing "
            "is proved about it; export it anew, or report it"
        )
