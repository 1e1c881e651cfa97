"""What rows of coefficients are carried in: float64, or float32 where that saves half of the time.

That is so of networks in blocks with thousands of hidden units. Their bounds become a little wider;
the outputs' own stay in float64. So does the product with a dense first layer, which makes an image
of few inputs, and whose sums are too long for float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from tasks.core.networks.matrices import DenseMatrix, Matrix
from tasks.core.networks.network import ReluNetwork


@dataclass(frozen=True)
class Precision:
    """Numbers to compute in, and what is lost at their ends (see `rounding`).

    Attributes:
        huge: of values, from where on nothing is proved.
        underflow: what every bound gives up.
        tiny: what every scale is larger by.
    """

    dtype: type[np.floating]
    huge: float
    underflow: float
    tiny: float


DOUBLE = Precision(np.float64, 1e150, 2.0**-500, 2.0**-1000)
SINGLE = Precision(np.float32, 2.0**40, 2.0**-40, 2.0**-60)


def unit_precision(network: ReluNetwork) -> Precision:
    """Of hidden units' coefficients."""
    is_single = network.is_large and network.has_blocks and not network.is_curved
    return SINGLE if is_single and products_are_of_float32() else DOUBLE


@cache
def products_are_of_float32() -> bool:
    """Whether NumPy's library multiplies float32 matrices as such, and not in TF32 or bfloat16.

    These keep at most 10 bits, and lose 2^-12 of 1 + 2^-12.
    """
    ones = np.full((256, 256), 1 + 2.0**-12, dtype=np.float32)
    exact = 256 * (1 + 2.0**-12) ** 2
    return bool((np.abs((ones @ ones).astype(np.float64) - exact) < 2.0**-15 * exact).all())


def matrices_up_to(network: ReluNetwork, depth: int, precision: Precision) -> list[Matrix]:
    """What rows of units of layer `depth` are multiplied with, if not by cones."""
    layers = network.layers[: depth + 1]
    if precision is DOUBLE:
        return [layer.matrix for layer in layers]
    first = layers[0].matrix if _stays_double(network) else layers[0].single.matrix
    return [first, *(layer.single.matrix for layer in layers[1:])]


def single_roundings(network: ReluNetwork, depth: int) -> list[int]:
    """Of each layer up to `depth`, how often a product in float32 is rounded at most; or 0.

    0 where it is none in float32.
    """
    cones = network.cones(depth)
    if not cones:
        ways = [[layer.matrix for layer in network.layers[: depth + 1]]]
    else:
        ways = [cone.every_matrix for cone in cones]
    counts = [max(matrix.most_roundings for matrix in each) for each in zip(*ways, strict=True)]
    return [0, *counts[1:]] if _stays_double(network) else counts


def _stays_double(network: ReluNetwork) -> bool:
    return isinstance(network.layers[0].matrix, DenseMatrix)
