"""The curved activations: what each computes, how it bends, and how well float64 knows it.

Each is a function of one number, in pieces that are convex or concave by turns. `value` and `slope`
are computed in float64 by NumPy and SciPy, whose functions err by a few units in the last place;
`error` and `slope_error` allow `MARGIN` (128 of them), relative or absolute as each function's doc
says. Where a function has no value the result is NaN or infinite, of which nothing is proved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from math import pi, sqrt

import numpy as np
from scipy import special

from tasks.core.arrays import BoolArray, FloatArray

MARGIN = 2.0**-46
LEAST = 2.0**-1000  # absolute, for what underflows
FARTHEST_PERIODS = 2.0**20  # where sine and cosine are still followed
GELU_GAIN = sqrt(2 / pi)
GELU_CUBIC = 0.044715


class Kind(IntEnum):
    """Which function a unit has; the numbers are kept in files."""

    RELU = 0  # or none, where the unit is linear
    SIGMOID = 1
    TANH = 2
    ERF = 3
    SOFTPLUS = 4
    ELU = 5  # of alpha 1
    GELU = 6
    GELU_TANH = 7
    SILU = 8
    HARD_SWISH = 9
    EXP = 10
    LOG = 11
    SQRT = 12
    RECIPROCAL = 13
    SQUARE = 14
    CUBE = 15
    SIN = 16
    COS = 17
    SIGN = 18
    PRODUCT = 19  # of the unit's value and its partner's; no function of one number


Function = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Curve:
    """One function.

    Attributes:
        value, slope: in float64; at a kink the slope is one of the two sides'.
        breaks: where it changes between convex and concave, ascending; numbers nearest to them.
        convex_first: whether it is convex left of the first break.
        knots: where a coarse table of it needs points beside evenly spread ones.
        lowest, highest: of its values.
        domain: where it is defined; a unit that may leave it has no bounds.
        relative, absolute: `value` errs by at most MARGIN times (relative |f| + absolute (1+|x|)).
        slope_absolute: `slope` errs by at most MARGIN (|f'| + slope_absolute).
        monotone: 1 rising, -1 falling, 0 neither.
        period: after which it repeats; `breaks` then holds one of its breaks, half a period apart.
        has_pole: whether it is not defined at 0.
        touching: of those of the shape of an S, convex up to 0 and the same turned about it after:
            the x >= 0 of a slope, as near as float64 comes; 0 for greater slopes than there are,
            infinite for those that are not positive. At -x the slope is the same.
    """

    name: str
    value: Function
    slope: Function
    breaks: tuple[float, ...] = ()
    convex_first: bool = True
    knots: tuple[float, ...] = ()
    lowest: float = -np.inf
    highest: float = np.inf
    domain: tuple[float, float] = (-np.inf, np.inf)
    absolute: float = 0.0
    slope_absolute: float = 0.0
    monotone: int = 0
    period: float | None = None
    has_pole: bool = False
    touching: Function | None = None

    def error(self, x: FloatArray, value: FloatArray) -> FloatArray:
        """At least |value - f(x)| of a computed value."""
        error: FloatArray = MARGIN * (np.abs(value) + self.absolute * (1 + np.abs(x))) + LEAST
        return error

    def slope_error(self, slope: FloatArray) -> FloatArray:
        """At least |slope - f'(x)| of a computed slope."""
        error: FloatArray = MARGIN * (np.abs(slope) + self.slope_absolute) + LEAST
        return error

    def is_defined(self, lower: FloatArray, upper: FloatArray) -> BoolArray:
        """Whether all of [lower, upper] lies in the domain; elementwise, NaN does not."""
        least, greatest = self.domain
        inside = (lower >= least) & (upper <= greatest)
        if self.has_pole:
            inside &= (lower > 0) | (upper < 0)
        return np.asarray(inside)

    def edges(
        self, lower: FloatArray, upper: FloatArray
    ) -> tuple[list[FloatArray], list[BoolArray]]:
        """The ends of the pieces of [lower, upper], ascending, and whether each piece is convex.

        Pieces outside are empty, both ends the same. Of a period the pieces of two are given.
        """
        if self.period is None:
            inner = [np.clip(at, lower, upper) for at in self.breaks]
            signs = [self.convex_first ^ bool(place % 2) for place in range(len(inner) + 1)]
            convex = [np.full(lower.shape, sign) for sign in signs]
            return [lower, *inner, upper], convex
        half, start = self.period / 2, self.breaks[0]
        first = np.ceil((lower - start) / half)
        inner = [np.clip(start + half * (first + place), lower, upper) for place in range(5)]
        # left of the break `first` it is convex for even ones as left of `start`
        even = np.mod(first, 2) == 0
        convex = [(even == self.convex_first) ^ bool(place % 2) for place in range(6)]
        return [lower, *inner, upper], convex

    def steepest(self, lower: FloatArray, upper: FloatArray) -> FloatArray:
        """The greatest |slope| in [lower, upper], as computed: each piece's slope is monotone."""
        edges, _ = self.edges(lower, upper)
        return np.max([np.abs(self.slope(edge)) for edge in edges], axis=0)


def _sigmoid(x: FloatArray) -> FloatArray:
    """By NumPy's exponential, which is several times as fast as SciPy's logistic function."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1.0) / (1 + small)


def _sigmoid_slope(x: FloatArray) -> FloatArray:
    small = np.exp(-np.abs(x))
    slope: FloatArray = small / (1 + small) ** 2
    return slope


def _tanh_slope(x: FloatArray) -> FloatArray:
    return 4 * _sigmoid_slope(2 * x)


def _sigmoid_touching(slope: FloatArray) -> FloatArray:
    """p (1 - p) is the slope: 1 - p is the lesser root, without cancellation."""
    slope = np.clip(slope, 0, 0.25)
    rest = 2 * slope / (1 + np.sqrt(1 - 4 * slope))
    return np.log((1 - rest) / rest)


def _tanh_touching(slope: FloatArray) -> FloatArray:
    return _sigmoid_touching(slope / 4) / 2


def _bell(x: FloatArray) -> FloatArray:
    """The density of the normal distribution."""
    return np.exp(-x * x / 2) / sqrt(2 * pi)


def _erf_slope(x: FloatArray) -> FloatArray:
    return np.exp(-x * x) * (2 / sqrt(pi))


def _erf_touching(slope: FloatArray) -> FloatArray:
    return np.sqrt(-np.log(np.clip(slope * (sqrt(pi) / 2), 0, 1)))


def _softplus(x: FloatArray) -> FloatArray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _elu(x: FloatArray) -> FloatArray:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _elu_slope(x: FloatArray) -> FloatArray:
    return np.exp(np.minimum(x, 0))


def _times_share(x: FloatArray, share: FloatArray) -> FloatArray:
    """`x * share`, 0 where the share is."""
    return np.where(share == 0, 0.0, x * share)


def _gelu(x: FloatArray) -> FloatArray:
    return _times_share(x, special.ndtr(x))


def _gelu_slope(x: FloatArray) -> FloatArray:
    return special.ndtr(x) + _times_share(x, _bell(x))


def _gelu_tanh(x: FloatArray) -> FloatArray:
    return _times_share(x, _sigmoid(2 * GELU_GAIN * (x + GELU_CUBIC * x**3)))


def _gelu_tanh_slope(x: FloatArray) -> FloatArray:
    inner = 2 * GELU_GAIN * (x + GELU_CUBIC * x**3)
    rise = 2 * GELU_GAIN * (1 + 3 * GELU_CUBIC * x * x)
    return _sigmoid(inner) + _times_share(x * rise, _sigmoid_slope(inner))


def _silu(x: FloatArray) -> FloatArray:
    return _times_share(x, _sigmoid(x))


def _silu_slope(x: FloatArray) -> FloatArray:
    return _sigmoid(x) + _times_share(x, _sigmoid_slope(x))


def _hard_swish(x: FloatArray) -> FloatArray:
    return np.where(x >= 3, x, np.where(x <= -3, 0.0, x * (x + 3) / 6))


def _hard_swish_slope(x: FloatArray) -> FloatArray:
    return np.where(x > 3, 1.0, np.where(x < -3, 0.0, (2 * x + 3) / 6))


def _reciprocal_slope(x: FloatArray) -> FloatArray:
    return -1 / (x * x)


def _sqrt_slope(x: FloatArray) -> FloatArray:
    return 0.5 / np.sqrt(x)


def _square(x: FloatArray) -> FloatArray:
    return x * x


def _square_slope(x: FloatArray) -> FloatArray:
    return 2 * x


def _cube(x: FloatArray) -> FloatArray:
    return x * x * x


def _cube_slope(x: FloatArray) -> FloatArray:
    return 3 * x * x


def _cos_slope(x: FloatArray) -> FloatArray:
    return -np.sin(x)


_S_KNOTS = (-16.0, -8, -5, -3, -2, -1, -0.5, 0, 0.5, 1, 2, 3, 5, 8, 16)
_PERIODIC = (-FARTHEST_PERIODS, FARTHEST_PERIODS)
SILU_BREAK = 2.3993572805154675  # x tanh(x / 2) = 2
GELU_BREAK = sqrt(2)
GELU_TANH_BREAK = 1.4185040087908283

CURVES: dict[int, Curve] = {
    Kind.SIGMOID: Curve(
        "sigmoid",
        _sigmoid,
        _sigmoid_slope,
        (0.0,),
        True,
        _S_KNOTS,
        0.0,
        1.0,
        monotone=1,
        slope_absolute=1.0,
        touching=_sigmoid_touching,
    ),
    Kind.TANH: Curve(
        "tanh",
        np.tanh,
        _tanh_slope,
        (0.0,),
        True,
        _S_KNOTS,
        -1.0,
        1.0,
        monotone=1,
        slope_absolute=1.0,
        touching=_tanh_touching,
    ),
    Kind.ERF: Curve(
        "erf",
        special.erf,
        _erf_slope,
        (0.0,),
        True,
        _S_KNOTS,
        -1.0,
        1.0,
        monotone=1,
        slope_absolute=1.0,
        touching=_erf_touching,
    ),
    Kind.SOFTPLUS: Curve(
        "softplus",
        _softplus,
        _sigmoid,
        knots=_S_KNOTS,
        lowest=0.0,
        monotone=1,
        slope_absolute=1.0,
    ),
    Kind.ELU: Curve("elu", _elu, _elu_slope, knots=_S_KNOTS, lowest=-1.0, monotone=1),
    Kind.GELU: Curve(
        "gelu",
        _gelu,
        _gelu_slope,
        (-GELU_BREAK, GELU_BREAK),
        False,
        _S_KNOTS,
        lowest=-0.18,
        absolute=1.0,
        slope_absolute=2.0,
    ),
    Kind.GELU_TANH: Curve(
        "gelu of tanh",
        _gelu_tanh,
        _gelu_tanh_slope,
        (-GELU_TANH_BREAK, GELU_TANH_BREAK),
        False,
        _S_KNOTS,
        lowest=-0.18,
        absolute=1.0,
        slope_absolute=4.0,
    ),
    Kind.SILU: Curve(
        "silu",
        _silu,
        _silu_slope,
        (-SILU_BREAK, SILU_BREAK),
        False,
        _S_KNOTS,
        lowest=-0.28,
        absolute=1.0,
        slope_absolute=2.0,
    ),
    Kind.HARD_SWISH: Curve(
        "hard-swish",
        _hard_swish,
        _hard_swish_slope,
        (-3.0, 3.0),
        False,
        _S_KNOTS,
        lowest=-0.375,
        absolute=1.0,
        slope_absolute=1.0,
    ),
    Kind.EXP: Curve("exp", np.exp, np.exp, lowest=0.0, monotone=1),
    Kind.LOG: Curve(
        "logarithm",
        np.log,
        np.reciprocal,
        convex_first=False,
        domain=(5e-324, np.inf),
        monotone=1,
        absolute=1.0,
    ),
    Kind.SQRT: Curve(
        "square root",
        np.sqrt,
        _sqrt_slope,
        convex_first=False,
        lowest=0.0,
        domain=(0.0, np.inf),
        monotone=1,
    ),
    Kind.RECIPROCAL: Curve(
        "reciprocal", np.reciprocal, _reciprocal_slope, (0.0,), False, monotone=-1, has_pole=True
    ),
    Kind.SQUARE: Curve("square", _square, _square_slope, lowest=0.0),
    Kind.CUBE: Curve("cube", _cube, _cube_slope, (0.0,), False, (0.0,), monotone=1),
    Kind.SIN: Curve(
        "sine",
        np.sin,
        np.cos,
        (0.0,),
        True,
        lowest=-1.0,
        highest=1.0,
        domain=_PERIODIC,
        absolute=1.0,
        slope_absolute=1.0,
        period=2 * pi,
    ),
    Kind.COS: Curve(
        "cosine",
        np.cos,
        _cos_slope,
        (pi / 2,),
        False,
        lowest=-1.0,
        highest=1.0,
        domain=_PERIODIC,
        absolute=1.0,
        slope_absolute=1.0,
        period=2 * pi,
    ),
    Kind.SIGN: Curve(
        "sign",
        np.sign,
        np.zeros_like,
        knots=(-1e-300, 0.0, 1e-300),
        lowest=-1.0,
        highest=1.0,
        monotone=1,
    ),
}
