"""Lines below and above curved activations, for any slope, and good slopes to choose.

A line's slope may be any number: its height comes last, from

    f(x) >= slope x + h  on [lower, upper],   h = min of f(x) - slope x  over [lower, upper],

which `least_height` bounds from below in float64. Where f is concave the minimum lies at an end of
the piece. Where it is convex so is g(x) = f(x) - slope x, and narrowing finds p <= q with
g'(p) <= 0 <= g'(q), as computed, or an end of the piece: with |g'| known up to d, tangents show

    g >= g(p) - (|g'(p)| + d) (q - p) - d (piece's length)   on the whole piece,

and the same from q. So no choice of a slope, no tangent point and no convergence has to be trusted.
Slopes are taken from the convex and the concave envelope of f over a few points (Shi et al. 2024,
"Neural Network Verification with Branch-and-Bound for General Nonlinearities", optimise tangent
points; slopes are the same choice, and serve kinks and jumps as well).
"""

from __future__ import annotations

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.networks.curves import CURVES, LEAST, Curve, Function, Kind

NARROWINGS = 22  # odd ones by secants
SLOPE_HALVINGS = 16
TANGENT_STEPS = 5
EVEN_POINTS = 13
LAST = EVEN_POINTS - 1
UNIT_ROUNDOFF = 2.0**-53
BREAK_ERROR = 2.0**-50  # relative, of where a function changes between convex and concave
NARROW = 2.0**-30  # relative width, below which chords are noise


@np.errstate(all="ignore")
def least_height(
    curve: Curve, lower: FloatArray, upper: FloatArray, slope: FloatArray, side: int
) -> FloatArray:
    """At most `side * (f(x) - slope x)` for all x in [lower, upper], elementwise; `side` 1 or -1.

    -inf where nothing is known: outside the domain, at ends or slopes that are not finite.
    """
    edges, convex = curve.edges(lower, upper)
    steep = np.abs(slope)
    least = np.full(lower.shape, np.inf)
    for place, edge in enumerate(edges):
        height, error = _height(curve, edge, slope, side)
        if 0 < place < len(edges) - 1:
            error = error + BREAK_ERROR * np.abs(edge) * (steep + np.abs(curve.slope(edge)))
        least = np.minimum(least, height - error)
    for start, end, is_convex in zip(edges[:-1], edges[1:], convex, strict=True):
        curved = (is_convex == (side > 0)) & (start < end)
        if curved.any():
            found = _bowl(curve, start[curved], end[curved], slope[curved], side)
            least[curved] = np.minimum(least[curved], found)
    if curve.name == CURVES[Kind.SIGN].name:
        least = np.minimum(least, _beside_jump(lower, upper, slope, side))
    outermost = curve.lowest if side > 0 else -curve.highest
    reach = np.maximum(side * slope * lower, side * slope * upper)
    plain = outermost - reach - 2 * UNIT_ROUNDOFF * (abs(outermost) + np.abs(reach)) - LEAST
    if curve.period is not None:
        least = np.where(upper - lower < 1.9 * curve.period, least, plain)
    least = np.where(slope == 0, np.fmax(least, outermost), np.fmax(least, plain))
    known = curve.is_defined(lower, upper) & np.isfinite(slope) & (lower <= upper)
    return np.where(known & (least < np.inf), least, -np.inf)


def _height(
    curve: Curve, x: FloatArray, slope: FloatArray, side: int
) -> tuple[FloatArray, FloatArray]:
    """`side * (f(x) - slope x)` as computed, and at least its error."""
    value = curve.value(x)
    product = slope * x
    error = curve.error(x, value) + 4 * UNIT_ROUNDOFF * (np.abs(value) + np.abs(product)) + LEAST
    return side * (value - product), error


def _bowl(
    curve: Curve, start: FloatArray, end: FloatArray, slope: FloatArray, side: int
) -> FloatArray:
    """At most what `side * (f(x) - slope x)` is where it is convex, on [start, end]."""
    if curve.touching is not None:
        at = np.where(start < 0, -1.0, 1.0) * curve.touching(slope)
        at = np.clip(at, start, end)
        own = curve.slope(at)
        doubt = _doubt(curve, np.abs(own), slope, start, end, end - start)
        return _above_tangent(curve, (start, at, end), (own, slope), doubt, side)
    middle = start + (end - start) / 2
    low, high = middle.copy(), middle.copy()
    away = curve.slope(middle) != slope  # a tangent in the middle touches there
    if away.any():
        low[away], high[away] = _narrowed(curve, start[away], end[away], slope[away], side)
    own, last = curve.slope(low), curve.slope(high)
    steepest = np.maximum(np.abs(own), np.abs(last))
    doubt = _doubt(curve, steepest, slope, start, end, high - low)
    return np.fmax(
        _above_tangent(curve, (low, low, high), (own, slope), doubt, side),
        _above_tangent(curve, (low, high, high), (last, slope), doubt, side),
    )


def _doubt(
    curve: Curve,
    steepest: FloatArray,
    slope: FloatArray,
    start: FloatArray,
    end: FloatArray,
    length: FloatArray,
) -> FloatArray:
    """What errors of slopes come to along the piece and `length`, and that of where it ends."""
    size = steepest + np.abs(slope)
    unsure = curve.slope_error(steepest) + 4 * UNIT_ROUNDOFF * size
    far = BREAK_ERROR * np.maximum(np.abs(start), np.abs(end)) * size
    return unsure * (length + (end - start)) * (1 + 16 * UNIT_ROUNDOFF) + far


def _above_tangent(
    curve: Curve,
    places: tuple[FloatArray, FloatArray, FloatArray],
    slopes: tuple[FloatArray, FloatArray],
    doubt: FloatArray,
    side: int,
) -> FloatArray:
    """At most what g is on a convex piece, by its tangent in the middle one of three `places`.

    But for `doubt`, g falls up to the first and rises from the last. `slopes` are those of f in the
    middle and of the line.
    """
    (low, at, high), (own, slope) = places, slopes
    rise = side * (own - slope)
    lost = np.where(rise > 0, rise * (at - low), -rise * (high - at))
    height, error = _height(curve, at, slope, side)
    return height - error - doubt - lost * (1 + 16 * UNIT_ROUNDOFF)


def _narrowed(
    curve: Curve, start: FloatArray, end: FloatArray, slope: FloatArray, side: int
) -> tuple[FloatArray, FloatArray]:
    """Points between which `side * (f'(x) - slope)` changes its sign, or twice the end it is at."""
    low, high = start, end
    falls, rises = (side * (curve.slope(each) - slope) for each in (low, high))
    low, high = np.where(rises <= 0, high, low), np.where((falls >= 0) & (rises > 0), low, high)
    for step in range(NARROWINGS):
        secant = falls / (falls - rises)
        share = 0.5 if step % 2 == 0 else np.fmin(np.fmax(secant, 1e-4), 1 - 1e-4)
        middle = low + share * (high - low)
        at = side * (curve.slope(middle) - slope)
        above = at > 0
        # Halving the other end's, as the Illinois method does, keeps either from staying for ever.
        falls, rises = np.where(above, falls / 2, at), np.where(above, at, rises / 2)
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return low, high


def _beside_jump(lower: FloatArray, upper: FloatArray, slope: FloatArray, side: int) -> FloatArray:
    """What the sign comes to on either side of 0: its values at the ends do not show these."""
    before = np.where((lower < 0) & (upper >= 0), -1.0 * side, np.inf)
    after = np.where((lower <= 0) & (upper > 0), 1.0 * side, np.inf)
    return np.minimum(before, after)


@np.errstate(all="ignore")
def value_bounds(
    curve: Curve, lower: FloatArray, upper: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Bounds on f over [lower, upper], elementwise; infinite where nothing is known."""
    if curve.monotone:
        ends = (lower, upper) if curve.monotone > 0 else (upper, lower)
        low, high = (curve.value(end) for end in ends)
        low, high = low - curve.error(ends[0], low), high + curve.error(ends[1], high)
    else:
        flat = np.zeros(lower.shape)
        low = least_height(curve, lower, upper, flat, 1)
        high = -least_height(curve, lower, upper, flat, -1)
    known, always = curve.is_defined(lower, upper), curve.period is not None
    low = np.where(known, np.fmax(low, curve.lowest), curve.lowest if always else -np.inf)
    high = np.where(known, np.fmin(high, curve.highest), curve.highest if always else np.inf)
    return low, high


@np.errstate(all="ignore")
def greatest_slope(curve: Curve, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """How steep a line may be chosen over [lower, upper].

    Times the greatest |x| there it is monotone: no part of an interval has a greater product.
    """
    size = np.maximum(np.abs(lower), np.abs(upper))
    if curve.name == CURVES[Kind.SIGN].name:
        return 2 / size
    if curve.name == CURVES[Kind.SQRT].name:
        return 4 / np.sqrt(size)
    return curve.steepest(lower, upper)


@np.errstate(all="ignore")
def reach(curve: Curve, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """At least |f(x)|, and |slope x| + |height| of any line chosen, in parts of [lower, upper]."""
    low, high = value_bounds(curve, lower, upper)
    size = np.maximum(np.abs(lower), np.abs(upper))
    ends = [abs(end) for end in (curve.lowest, curve.highest) if np.isfinite(end)]
    values = np.maximum(np.maximum(np.abs(low), np.abs(high)), max(ends, default=0.0))
    found = (values + 3 * greatest_slope(curve, lower, upper) * size) * (1 + 2.0**-20)
    return np.where(np.isnan(found), np.inf, found)


def table(curve: Curve, lower: FloatArray, upper: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Points of [lower, upper] and f there, (n, points) for ends of shape (n,).

    The first is the lower end, the one at `LAST` the upper one.
    """
    even = lower[:, None] + np.linspace(0, 1, EVEN_POINTS) * (upper - lower)[:, None]
    even[:, LAST] = upper
    knots = np.clip(np.array(curve.knots), lower[:, None], upper[:, None])
    points = np.concatenate([even, knots], axis=1)
    return points, curve.value(points)


@np.errstate(all="ignore")
def slope_ranges(
    curve: Curve,
    lower: FloatArray,
    upper: FloatArray,
    points: FloatArray,
    values: FloatArray,
    side: int,
) -> tuple[FloatArray, FloatArray]:
    """The envelope's slopes at both ends: between them are all that are worth a choice, (n,).

    `side` 1: of the convex envelope below, ascending; -1: of the concave one above, descending.
    """
    chord = side * (values[:, LAST] - values[:, 0]) / (upper - lower)
    if curve.name == CURVES[Kind.SIGN].name:
        start, end = np.full(len(lower), np.inf), np.full(len(lower), -np.inf)
    else:
        start, end = side * curve.slope(lower), side * curve.slope(upper)
    start, end = np.fmin(start, chord), np.fmax(end, chord)
    edges, convex = curve.edges(lower, upper)
    pieces = list(zip(edges[:-1], edges[1:], convex, strict=True))
    whole = [(low == lower) & (high == upper) for low, high, _ in pieces]
    for is_whole, (_, _, is_convex) in zip(whole, pieces, strict=True):
        hollow = is_whole & (is_convex != (side > 0))
        start, end = np.where(hollow, chord, start), np.where(hollow, chord, end)
    mixed = ~np.any(whole, axis=0) | (curve.name == CURVES[Kind.SIGN].name)
    if mixed.any():
        at, height = points[mixed], side * values[mixed]
        first = (height - height[:, :1]) / (at - at[:, :1])
        last = (height[:, LAST : LAST + 1] - height) / (at[:, LAST : LAST + 1] - at)
        start[mixed] = np.fmin(start[mixed], np.fmin.reduce(first, axis=1))
        end[mixed] = np.fmax(end[mixed], np.fmax.reduce(last, axis=1))
    most = greatest_slope(curve, lower, upper)
    tangent = np.clip(side * curve.slope(lower + (upper - lower) / 2), -most, most)
    is_narrow = upper - lower <= NARROW * np.maximum(np.abs(lower), np.abs(upper)) + LEAST
    start = np.where(is_narrow, tangent, np.clip(start, -most, most))
    end = np.where(is_narrow, tangent, np.clip(end, -most, most))
    if curve.period is not None:
        start, end = (np.where(upper - lower < curve.period, each, 0.0) for each in (start, end))
    return side * start, side * np.fmax(start, end)


@np.errstate(all="ignore")
def middle_slopes(curve: Curve, lower: FloatArray, upper: FloatArray, side: int) -> FloatArray:
    """Slopes of the lines that touch the envelope at the interval's middle: of least area, (n,).

    Where all of it bends one way that is the tangent, or the chord.
    """
    middle = lower + (upper - lower) / 2
    slopes = np.asarray(curve.slope(middle)) + 0 * lower
    edges, convex = curve.edges(lower, upper)
    mixed = np.ones(lower.shape, dtype=bool)
    if curve.name != CURVES[Kind.SIGN].name:
        is_narrow = upper - lower <= NARROW * np.maximum(np.abs(lower), np.abs(upper)) + LEAST
        chord = (curve.value(upper) - curve.value(lower)) / (upper - lower)
        for start, end, is_convex in zip(edges[:-1], edges[1:], convex, strict=True):
            whole = (start == lower) & (end == upper)
            slopes = np.where(whole & (is_convex != (side > 0)) & ~is_narrow, chord, slopes)
            mixed &= ~whole
        mixed &= ~is_narrow
    if mixed.any():
        slopes[mixed] = _touching_slopes(curve, lower[mixed], upper[mixed], side)
    return slopes


def _touching_slopes(curve: Curve, lower: FloatArray, upper: FloatArray, side: int) -> FloatArray:
    """As `middle_slopes`, where the piece bends both ways."""
    if curve.touching is not None:
        ends = (lower, upper) if side > 0 else (-upper, -lower)
        return _slopes_below_s(curve, curve.touching, *ends)
    points, values = table(curve, lower, upper)
    start, end = slope_ranges(curve, lower, upper, points, values, side)
    middle, rows = lower + (upper - lower) / 2, np.arange(len(points))
    for _ in range(SLOPE_HALVINGS):
        slope = start + (end - start) / 2
        place = (side * (values - slope[:, None] * points)).argmin(axis=1)
        before = points[rows, place] < middle
        start, end = np.where(before, slope, start), np.where(before, end, slope)
    return start + (end - start) / 2


def _slopes_below_s(
    curve: Curve, touching: Function, lower: FloatArray, upper: FloatArray
) -> FloatArray:
    """Of the lines that touch the convex envelope of an S at the middle; lower < 0 < upper.

    The envelope is the function up to some t <= 0, then the line from there to the upper end. The
    slope of such a line is greatest at the t where it is the tangent: there the next t hardly
    depends on the last one, and few steps suffice.
    """
    value, t = curve.value(upper), lower
    for _ in range(TANGENT_STEPS):
        slope = (value - curve.value(t)) / (upper - t)
        t = np.maximum(-touching(slope), lower)
    slope = (value - curve.value(t)) / (upper - t)
    middle = lower + (upper - lower) / 2
    return np.where(middle < t, curve.slope(middle), slope)
