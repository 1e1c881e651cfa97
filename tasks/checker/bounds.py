"""Bounds that hold whatever multipliers are given: what every certificate rests on.

Over a box of inputs, with bounds l <= z <= u on hidden units, a pass goes from the outputs back to
the inputs. It starts with A @ y and puts something no greater in its place, layer after layer:

- an affine step: A @ (W h + b) = (A @ W) @ h + A @ b; where W is known but for a relative error, as
  of a quotient by a root, that times |A| @ (|W| |h|) is given up, in exact arithmetic too;
- a ReLU: s z <= relu(z) <= p z + t for l <= z <= u, for any s and p in [0, 1] where
  t = max(-p l, (1 - p) u), since relu is convex and at both ends below that line. So
  A @ relu(z) >= (A+ s + A- p) @ z + A- @ t with A's positive and negative parts A+ and A-. Where
  l >= 0 both lines are z, where u <= 0 they are 0;
- a ReLU of the first layer, z = w x + b, where A < 0: for any s in [0, 1]^n and all x of the box
  relu(z) <= sum s_i w_i x_i + max(max_x -sum s_i w_i x_i, b + max_x sum (1 - s_i) w_i x_i), since
  relu(z) is 0 or z (Anderson et al. 2020, "Strong mixed-integer programming formulations"). With
  the box's middle c and radius r, and q = sum s_i |w_i| r_i, that is
  sum s_i w_i (x_i - c_i) + max(q, w c + b + |w| r - q);
- a split: where sign z >= 0, A @ z >= (A - m sign) @ z for any m >= 0 (Wang et al. 2021);
- a box: A @ x >= A+ @ lower + A- @ upper. It may end at any layer: the greatest end counts.

**Rounding in float64.** A sum of n products, in any order, errs by at most n u / (1 - n u) times
the sum of their magnitudes, u = 2^-53 (Higham 2002, eq. 3.5). What coefficients lose is multiplied
by values up to a known size, so a step costs at most gamma(n) |A| @ size: for an affine one, size
is |W| |h| + |b|. This gamma counts n twice, 16 for each step of the network, since constant and
error run through all of them, and 64 more for the lines' own roundings, and doubles that. Below
2^-1022 an operation may lose 2^-1075 more, times coefficients and values below 2^400
(`network.MOST_GROWTH`), far less than `UNDERFLOW`. What is not finite proves nothing. `Exact`
numbers lose nothing by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .exact import Exact
from .network import Network

UNDERFLOW, MOST = 2.0**-500, 2.0**400
PLACES = 40  # of exact hidden bounds, which are rounded outwards so that numbers stay short
CHORD_PLACES = 20  # and of exact upper slopes, any of which will do
ROUNDOFF32, LEAST32, GREATEST32 = 2.0**-24, 2.0**-126, 2.0**126


@dataclass(frozen=True, eq=False)
class Frame:
    """Boxes, (boxes, inputs), and bounds on hidden layers behind them, (boxes, units).

    `sizes[k][i]`, (boxes, outputs), is at least |W| |h| + |b| of step i of layer k.
    """

    lower: Any
    upper: Any
    hidden: list[tuple[Any, Any]] = field(default_factory=list)
    sizes: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Choices:
    """Multipliers of passes: lists have an array (passes, units) for each hidden layer.

    Without `slopes`, s is 1 where u > -l, else 0. `splits` are m times the sign. Slopes of planes
    are `clip(level - sign(w) tilt, 0, 1)`, levels (passes, units) and tilts (passes, inputs).
    """

    slopes: list[Any] | None = None
    splits: list[Any] | None = None
    levels: Any = None
    tilts: Any = None


def gamma(terms: int) -> float:
    """See the module."""
    return (2 * terms + 64) * 2.0**-52


def hidden_bounds(network: Network, lower: Any, upper: Any, by_crown: bool) -> Frame:
    """By intervals, and units that these leave open by passes of their own as well."""
    frame = Frame(lower, upper)
    for depth, width in enumerate(network.widths):
        low, high = _interval(frame, network, depth)
        if depth == len(network.widths) - 1:
            return frame
        is_open = _is_open(low, high) & (by_crown and depth > 0)
        units = np.flatnonzero(is_open.any(axis=0))
        if len(units):
            rows = np.zeros((len(lower), 2 * len(units), width))
            rows[:, np.arange(len(units)), units] = 1
            rows[:, len(units) + np.arange(len(units)), units] = -1
            found = lower_bounds(network, rows, frame, Choices())
            boxes, places = np.nonzero(is_open[:, units])  # no box depends on those beside it
            at = boxes, units[places]
            low[at] = np.maximum(low[at], found[boxes, places])
            high[at] = np.minimum(high[at], -found[boxes, len(units) + places])
        frame.hidden.append((low, high))
    raise AssertionError("there is a last layer")


def _interval(frame: Frame, network: Network, depth: int) -> tuple[Any, Any]:
    """Bounds on the outputs of layer `depth` from what it reads; adds its sizes."""
    lower, upper = _read(frame, depth)
    middle, radius, size = (lower + upper) * 0.5, (upper - lower) * 0.5, _size(lower, upper)
    frame.sizes.append([])
    for step in network.layers[depth]:
        weight = step.absolute.weight.T
        size = size @ weight + step.absolute.bias
        frame.sizes[-1].append(size)
        middle, radius = middle @ step.weight.T + step.bias, radius @ weight
        radius = radius + size * (2 * step.slack)
        if not isinstance(size, Exact):
            radius = radius + 2 * gamma(step.terms) * size + UNDERFLOW
    if isinstance(size, Exact):
        return (middle - radius).floor(PLACES), -(-(middle + radius)).floor(PLACES)
    return middle - radius, middle + radius


def lower_bounds(network: Network, rows: Any, frame: Frame, choices: Choices) -> Any:
    """Lower bounds (passes, rows) of `rows @ z`, z the outputs of the layer behind `frame`; sound.

    `rows` is (passes, rows, outputs); frame and choices are of as many passes or of one for all.
    """
    exact, depth = _is_exact(frame), len(frame.hidden)
    sums = 8 * sum(len(steps) for steps in network.layers)
    a: Any = rows * Exact.of(1) if exact else rows
    zero: Any = 0.0
    constant, error, direct, best = zero, zero, zero, zero
    for index in range(depth, -1, -1):
        for step, size in zip(network.layers[index][::-1], frame.sizes[index][::-1], strict=True):
            constant = constant + a @ step.bias
            error = error + _lost(a, size, step.terms + len(step.bias) + sums)
            if step.slack:
                error = error + _dot(np.abs(a), size) * (2 * step.slack)
            a = a @ step.weight
        a = a if index else a + direct
        lower, upper = _read(frame, index)
        positive, negative = np.maximum(a, 0), np.minimum(a, 0)
        end = _dot(positive, lower) + _dot(negative, upper) + constant
        end = end - error - _lost(a, _size(lower, upper), a.shape[-1] + sums)
        best = end if index == depth else np.maximum(best, end)
        if index == 0:
            return best if exact else np.where(np.abs(best) < MOST, best - UNDERFLOW, -np.inf)
        bounds = frame.hidden[index - 1]
        slopes, chords, tops = _lines(*bounds, choices.slopes and choices.slopes[index - 1])
        error = error + _lost(a, _size(*bounds), a.shape[-1] + sums)
        if index == 1 and choices.levels is not None:
            planed = negative * _is_open(*bounds)[:, None, :]
            direct, below = _planes(network, frame, choices, planed)
            constant, negative = constant + below, negative - planed
            terms = 8 * (network.inputs + a.shape[-1]) + sums
            error = error + _lost(planed, frame.sizes[0][0], terms)
        constant = constant + _dot(negative, tops)
        a = positive * slopes[:, None, :] + negative * chords[:, None, :]
        if choices.splits is not None:
            multipliers = choices.splits[index - 1][:, None, :]
            error = error + _lost(multipliers, _size(*bounds), a.shape[-1] + sums)
            a = a - multipliers
    raise AssertionError("the loop returns at the inputs")


def _read(frame: Frame, depth: int) -> tuple[Any, Any]:
    """Bounds on what layer `depth` reads."""
    if depth == 0:
        return frame.lower, frame.upper
    lower, upper = frame.hidden[depth - 1]
    return np.maximum(lower, 0), np.maximum(upper, 0)


def _size(lower: Any, upper: Any) -> Any:
    return np.maximum(np.abs(lower), np.abs(upper))


def _is_open(lower: Any, upper: Any) -> Any:
    """Units whose ReLU is not shown to be the identity or zero."""
    return ~((lower >= 0) | (upper <= 0))


def _dot(a: Any, values: Any) -> Any:
    """(passes, rows, n) and (passes, n) to (passes, rows)."""
    return (a @ values[:, :, None])[..., 0]


def _lost(a: Any, size: Any, terms: int) -> Any:
    """What rounding may cost where `a` is multiplied by values up to `size`."""
    return 0.0 if isinstance(size, Exact) else _dot(np.abs(a), size) * gamma(terms)


def _lines(lower: Any, upper: Any, slopes: Any) -> tuple[Any, Any, Any]:
    """s, p and t of the units of a layer, (passes, units)."""
    low, high = floats(lower), floats(upper)
    is_open, active = _is_open(lower, upper), (lower >= 0) * 1.0
    slopes = (high > -low) * 1.0 if slopes is None else np.clip(slopes, 0, 1)
    chords = np.clip(high / np.where(is_open, high - low, 1), 0, 1)
    if isinstance(lower, Exact):
        chords = np.round(chords * 2.0**CHORD_PLACES) / 2.0**CHORD_PLACES
    slopes, chords = np.where(is_open, slopes, active), np.where(is_open, chords, active)
    return slopes, chords, np.maximum(-(lower * chords), upper * (1.0 - chords)) * is_open


def _planes(network: Network, frame: Frame, choices: Choices, planed: Any) -> tuple[Any, Any]:
    """What planes times `planed`, (passes, 1, units), add: rows over the inputs, and constants."""
    (step,) = network.layers[0]
    units = np.flatnonzero((planed < 0).any(axis=(0, 1)))
    weight, factors = step.weight[units], planed[:, :, units]
    middle, radius = (frame.lower + frame.upper) * 0.5, (frame.upper - frame.lower) * 0.5
    slopes = choices.levels[:, units, None] - np.sign(weight) * choices.tilts[:, None, :]
    products = np.clip(slopes, 0, 1, out=slopes) * (
        Exact.of(weight) if _is_exact(frame) else weight
    )
    q = _dot(np.abs(products), radius)
    peaks = middle @ weight.T + step.bias[units] + radius @ np.abs(weight).T
    rows = factors @ products
    return rows, _dot(factors, np.maximum(q, peaks - q)) - _dot(rows, middle)


def _is_exact(frame: Frame) -> bool:
    return isinstance(frame.lower, Exact)


def float32_error(network: Network, frame: Frame, rows: Any) -> Any:
    """Bounds on |rows @ (float32 outputs - outputs)|, (passes, rows), for any order of sums.

    Covers IEEE-754 float32 with numbers below 2^-126 flushed to zero, not Winograd's or Fourier
    convolutions, TF32 or half precision. Infinite beyond float32's range. Of a value up to u < 0
    that is off by e, the ReLU is off by u + e at most.
    """
    error: Any = np.zeros_like(floats(frame.lower))
    for depth, layer in enumerate(network.layers):
        if depth > 0:
            high = floats(frame.hidden[depth - 1][1])
            most = np.maximum(high + (1 + 2.0**-20) * error, 0)
            error = np.where(high < 0, np.minimum(error, most), error)
        size = floats(_size(*_read(frame, depth))) + error
        for step in layer:
            before, share = error, min((step.terms + 4) * ROUNDOFF32, 0.5)
            greatest = np.maximum(size.max(axis=-1, keepdims=True), 1)
            weight = step.absolute.weight.T
            size = size @ weight + step.absolute.bias
            flushed = LEAST32 * (4 * step.terms + 4) * step.gain * greatest
            lost = share / (1 - share) * (1 + 2.0**-20) * size + flushed
            lost = np.where((size < GREATEST32).all() and share < 0.5, lost, np.inf)
            error = before @ weight + lost
            size = size + error
    through = np.abs(floats(rows) @ network.layers[-1][-1].weight)
    return (_dot(through, before) + _dot(np.abs(floats(rows)), lost)) * (1 + 2.0**-20)


def floats(values: Any) -> Any:
    """The nearest float64s of exact numbers; others as they are."""
    return values.floats() if isinstance(values, Exact) else values
