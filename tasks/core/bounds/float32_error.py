"""How far the deployed float32 model can be from the float64 network that proofs speak about.

A sum of n products in floating point errs by at most gamma(n) = n u / (1 - n u), u = 2^-24, times
the sum of the terms' magnitudes: in every order and parenthesisation, with or without fused
multiply-add (Higham 2002, "Accuracy and Stability of Numerical Algorithms", eq. 3.5 and section
4.2). Errors pass through a layer as |W| times themselves, and through a ReLU or a maximum
undiminished, or not at all where the unit stays zero. So a proof whose margin exceeds the error
holds for the model as it is served, where others can be fooled (Szász, Bánhelyi and Jelasity 2025,
"No Soundness in the Real World", arXiv:2506.01054).

Numbers below 2^-126 may be flushed to zero, as TensorFlow does. What this does not cover are
kernels that compute something else than these sums in IEEE-754 float32: Winograd's and Fourier
convolutions, TF32, bfloat16 and float16.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.bounds.relaxations import Bounds, activation_box
from tasks.core.networks.activation import Activation
from tasks.core.networks.curves import CURVES, Kind
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box

UNIT_ROUNDOFF = 2.0**-24
LEAST_NORMAL = 2.0**-126
FUNCTION = 2.0**-16  # of float32 functions, which are good to 2^-20 or better
SLACK = 1 + 2.0**-20  # for what is rounded in float64
GREATEST = 2.0**126  # of any number on the way, far enough from overflow for every sum


@np.errstate(over="ignore", invalid="ignore")
def output_error(network: ReluNetwork, read: Sequence[FloatArray]) -> FloatArray:
    """Bounds on |float32 outputs - outputs|, shape (batch, outputs); infinite beyond float32.

    `read[k]`, (batch, inputs of layer k): the greatest magnitudes, in exact arithmetic, of what
    layer k reads. The float32 inputs themselves are exact.
    """
    before, lost = _last_errors(network, read)
    last = network.roundings[-1].absolute_of(network.layers[-1])
    error = last.matrix.forward(before) + lost
    return np.where(np.isfinite(error), error, np.inf)


@np.errstate(over="ignore", invalid="ignore")
def row_error(
    network: ReluNetwork, rows: FloatArray, hidden: Sequence[Bounds], ball: Box
) -> FloatArray:
    """Bounds on |rows @ (float32 outputs - outputs)| over each box: (batch, m).

    Args:
        rows: shape (m, outputs), or (batch, m, outputs) with other rows for each box.
        hidden: sound bounds on every hidden layer, (batch, units) each.

    Infinite for a curved network: how float32 functions round is nowhere promised.
    """
    if network.is_curved:
        return np.full((len(ball), rows.shape[-2]), np.inf)
    boxes = [ball, *map(activation_box, hidden, network.activations)]
    read = [np.maximum(np.abs(box.lower), np.abs(box.upper)) for box in boxes]
    before, lost = _last_errors(network, read, uppers=[bounds.upper for bounds in hidden])
    # Through the last layer errors pass linearly: what rows have in common cancels.
    shape = (*rows.shape[:-1], network.layers[-1].matrix.shape[1])
    flat = network.layers[-1].matrix.backward(rows.reshape(-1, rows.shape[-1]))
    weights = np.abs(flat).reshape(shape)
    total = weights @ before[:, :, None] + np.abs(rows) @ lost[:, :, None]
    error: FloatArray = total[..., 0] * (1 + 2.0**-40)  # for its own rounding
    return np.where(np.isfinite(error), error, np.inf)


def _last_errors(
    network: ReluNetwork,
    read: Sequence[FloatArray],
    curved: Sequence[FloatArray] = (),
    uppers: Sequence[FloatArray] = (),
) -> tuple[FloatArray, FloatArray]:
    """Of what the last layer reads, and what it loses itself; not finite beyond float32.

    `curved`, (batch, units) for each hidden layer, are the values that curved units are given;
    `uppers` are upper bounds on the values of hidden units.
    """
    error, lost = np.zeros_like(read[0]), np.zeros_like(read[0])
    absolute: Affine | None = None
    for place, (layer, roundings, values) in enumerate(
        zip(network.layers, network.roundings, read, strict=True)
    ):
        if absolute is not None:
            error = absolute.matrix.forward(error) + lost
            if uppers:
                error = _through_relus(network.activations[place - 1], uppers[place - 1], error)
            if curved:
                error = _bent(network.activations[place - 1], curved[place - 1], error)
        absolute = roundings.absolute_of(layer)
        reached = values + error
        count = roundings.count + 1  # one more for the roundings of this very bound
        share = min(count * UNIT_ROUNDOFF, 0.5)
        # A step's sums flush at most `count` numbers, its inputs and weights as many as there are
        # inputs; the steps after it enlarge that by `gain` at most.
        most = roundings.gain * np.maximum(reached.max(axis=1, keepdims=True, initial=0), 1)
        flushed = LEAST_NORMAL * (2 * count + values.shape[1]) * most
        within = (most < GREATEST) & (share < 0.5)
        lost = np.where(within, share / (1 - share) * absolute(reached) + flushed, np.inf)
    return error, lost


def _through_relus(activation: Activation, upper: FloatArray, error: FloatArray) -> FloatArray:
    """What is left of errors e of values up to u: where u < 0, relu(z) = 0 and relu(z') <= u + e.

    That is 0 of most units of a network of certified training.
    """
    most = np.maximum(upper + SLACK * error, 0)
    is_dead = (upper < 0) & ~activation.linear
    return np.where(is_dead, np.minimum(error, most), error)


def _bent(activation: Activation, values: FloatArray, error: FloatArray) -> FloatArray:
    """What curved units make of errors of their values, if their functions err by `FUNCTION`."""
    result = error.copy()
    for curve, units in activation.curves():
        at, own = values[:, units], error[:, units]
        steep = curve.steepest(at - own, at + own)
        found = np.abs(curve.value(at))
        jumps = np.where((curve.name == CURVES[Kind.SIGN].name) & (np.abs(at) <= own), 2.0, 0.0)
        result[:, units] = steep * own + FUNCTION * (1 + found + np.abs(at)) + jumps
    products, partners = activation.products, activation.partners[activation.products]
    first, second = error[:, products], error[:, partners]
    x, y = np.abs(values[:, products]), np.abs(values[:, partners])
    result[:, products] = x * second + y * first + first * second + FUNCTION * x * y
    return result


@np.errstate(all="ignore")
def point_error(network: ReluNetwork, points: FloatArray) -> FloatArray:
    """`output_error` at points of shape (n, inputs).

    Wider than `row_error`, which knows a ball's dead units. Of a curved network it is no proof:
    that float32 functions err by less is taken for granted.
    """
    values = network.preactivations(points)[:-1]
    read = [points, *(each(z) for each, z in zip(network.activations, values, strict=True))]
    sizes = [np.abs(each) for each in read]
    if not network.is_curved:
        return output_error(network, sizes)
    before, lost = _last_errors(network, sizes, values)
    last = network.roundings[-1].absolute_of(network.layers[-1])
    error = last.matrix.forward(before) + lost
    return np.where(np.isfinite(error), error, np.inf)
