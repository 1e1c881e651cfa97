"""Losses that make a classifier robust: adversarial training, and training on sound bounds.

Every loss is a function of a batch (inputs, labels) and of what the schedule says (epsilon, the
robust loss's weight w, the ramp from 0 to 1), and adds a clean and a robust cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tasks.core.arrays import Float32Array
from tasks.core.attacks.gradient import PGD_STEP
from tasks.core.properties.perturbation import Perturbation
from tasks.core.training.batch_moments import OfBatch
from tasks.core.training.training_bounds import Balls, BoundedNetwork, BoxTensors
from tasks.core.training.training_settings import Defence

if TYPE_CHECKING:
    import keras

FGSM_NOISE = 2.0  # times epsilon, of the random start (de Jorge et al. 2022)
TRADES_START = 0.001  # standard deviation of the start's noise (Zhang et al. 2019)
WARMUP_PENALTY = 0.5  # lambda_0 of Shi et al. 2021
TOLERANCE = 0.5  # their tau

Loss = Callable[..., Any]  # (inputs, labels, epsilon, weight, ramp, seed) -> scalar tensor
Mean = Callable[[Any, Any], Any]  # (values, labels), (batch,) each -> their weighted mean
Logits = Callable[[], Any]  # of a batch, (batch, classes)
LossAt = Callable[[Any], Any]  # points -> the loss of each, (batch,)
Attack = Callable[[Any, Any, Any, Any], Any]  # (inputs, labels, epsilon, seed) -> points
BoxOf = Callable[[Any, Any, Any, Any], BoxTensors]  # the same, to what is bounded


def loss_of(
    defence: Defence,
    model: keras.Sequential,
    perturbation: Perturbation,
    attack_steps: int,
    subselection_ratio: float,
    class_weights: Float32Array,
) -> Loss:
    """The loss to be minimised; every input counts with the weight of its class, (classes,).

    - `none`: cross-entropy.
    - `fgsm`: (1 - w) clean + w at FGSM points (Goodfellow et al. 2015, eq. 1) from a random start
      (Wong et al. 2020, "Fast is better than free"), which is drawn from twice the ball, and the
      points are not projected to it (de Jorge et al. 2022, "Make Some Noise"): within the ball
      training comes to hold against one step more than against many.
    - `pgd`: (1 - w) clean + w at the end of projected gradient ascent (Madry et al. 2018, eq. 2.1).
    - `trades`: clean + w KL(clean || attacked), attacked to maximise that (Zhang et al. 2019, eq.
      5).
    - `ibp`: (1 - w) clean + w at the worst logits within interval bounds (Gowal et al. 2018),
      and on the ramp the penalties of Shi et al. 2021.
    - `crown_ibp`: the same, where the bounds are (1 - ramp) CROWN-IBP + ramp interval (Zhang et al.
      2020): after the ramp it is `ibp`.
    - `sabr`: `ibp` on a box of radius `subselection_ratio` times epsilon alone, around the end of
      an attack in what that leaves of the ball (Müller et al. 2023, "Certified Training: Small
      Boxes are All You Need", section 3).

    Raises:
        CertiflowError: `ibp`, `crown_ibp` or `sabr` with a layer that cannot be bounded.
    """
    balls, mean = Balls.of(perturbation), _weighted_mean(class_weights)
    return {
        "none": lambda: _clean(model, mean),
        "fgsm": lambda: _adversarial(model, mean, _noisy_fgsm(model, balls)),
        "pgd": lambda: _adversarial(model, mean, _pgd(model, balls, attack_steps)),
        "trades": lambda: _trades(model, mean, balls, attack_steps),
        "ibp": lambda: _bounded(model, mean, _whole_ball(balls), linear=False),
        "crown_ibp": lambda: _bounded(model, mean, _whole_ball(balls), linear=True),
        "sabr": lambda: _bounded(
            model,
            mean,
            _small_box(balls, _pgd(model, balls, attack_steps), subselection_ratio),
            linear=False,
        ),
    }[defence]()


def _weighted_mean(class_weights: Float32Array) -> Mean:
    import tensorflow as tf

    def mean(values: Any, labels: Any) -> Any:
        return tf.reduce_mean(values * tf.gather(class_weights, labels))

    return mean


def _cross_entropies(logits: Any, labels: Any) -> Any:
    import tensorflow as tf

    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def _clean(model: keras.Sequential, mean: Mean) -> Loss:
    def loss(inputs: Any, labels: Any, epsilon: Any, weight: Any, ramp: Any, seed: Any) -> Any:
        return mean(_cross_entropies(model(inputs, training=True), labels), labels)

    return loss


def _adversarial(model: keras.Sequential, mean: Mean, attack: Attack) -> Loss:
    def loss(inputs: Any, labels: Any, epsilon: Any, weight: Any, ramp: Any, seed: Any) -> Any:
        points = attack(inputs, labels, epsilon, seed)
        robust = mean(_cross_entropies(model(points, training=True), labels), labels)
        return _mixed(lambda: model(inputs, training=True), mean, labels, robust, weight)

    return loss


def _noisy_fgsm(model: keras.Sequential, balls: Balls) -> Attack:
    import tensorflow as tf

    def attack(inputs: Any, labels: Any, epsilon: Any, seed: Any) -> Any:
        start = inputs + _noise(balls, tf.shape(inputs), FGSM_NOISE * epsilon, seed)
        uphill = _uphill(_cross_entropy_of(model, labels), start)
        ends = start + epsilon * _moves(balls, uphill)
        return tf.stop_gradient(tf.clip_by_value(ends, balls.lower, balls.upper))

    return attack


def _pgd(model: keras.Sequential, balls: Balls, num_steps: int) -> Attack:
    """From random points of the balls."""
    import tensorflow as tf

    def attack(inputs: Any, labels: Any, epsilon: Any, seed: Any) -> Any:
        start = inputs + _noise(balls, tf.shape(inputs), epsilon, seed)
        return _ascend(_cross_entropy_of(model, labels), start, inputs, balls, epsilon, num_steps)

    return attack


def _trades(model: keras.Sequential, mean: Mean, balls: Balls, num_steps: int) -> Loss:
    import tensorflow as tf

    def loss(inputs: Any, labels: Any, epsilon: Any, weight: Any, ramp: Any, seed: Any) -> Any:
        fixed = model(inputs, training=False)
        noise = TRADES_START * tf.random.stateless_normal(tf.shape(inputs), seed)
        noise *= tf.maximum(balls.down, balls.up)
        points = _ascend(
            lambda points: _divergences(fixed, model(points, training=False)),
            inputs + noise,
            inputs,
            balls,
            epsilon,
            num_steps,
        )
        logits = model(inputs, training=True)
        drift = mean(_divergences(logits, model(points, training=True)), labels)
        return mean(_cross_entropies(logits, labels), labels) + weight * drift

    return loss


def _bounded(model: keras.Sequential, mean: Mean, box_of: BoxOf, *, linear: bool) -> Loss:
    import tensorflow as tf

    network = BoundedNetwork.of(model)

    def loss(inputs: Any, labels: Any, epsilon: Any, weight: Any, ramp: Any, seed: Any) -> Any:
        ball, moments = network.normalised(box_of(inputs, labels, epsilon, seed)), OfBatch()
        hidden = network.preactivations(ball.lower, ball.upper, moments)
        margins = network.interval_margins(labels, hidden, ball)
        if linear:
            margins = tf.cond(
                ramp < 1,
                lambda: (
                    ramp * margins
                    + (1 - ramp) * network.crown_margins(labels, hidden, ball, moments)
                ),
                lambda: margins,
            )
        worst = mean(_cross_entropies(-margins, labels), labels)
        points = network.normalised(BoxTensors(inputs, inputs)).lower
        robust = _mixed(lambda: network.logits(points, moments), mean, labels, worst, weight)
        penalty = tf.cond(ramp < 1, lambda: (1 - ramp) * warmup_penalty(hidden, ball), lambda: 0.0)
        return robust + WARMUP_PENALTY * penalty

    return loss


def _whole_ball(balls: Balls) -> BoxOf:
    return lambda inputs, labels, epsilon, seed: balls.around(inputs, epsilon)


def _small_box(balls: Balls, attack: Attack, ratio: float) -> BoxOf:
    def box(inputs: Any, labels: Any, epsilon: Any, seed: Any) -> BoxTensors:
        points = attack(inputs, labels, (1 - ratio) * epsilon, seed)
        return balls.around(points, ratio * epsilon)

    return box


def _mixed(logits: Logits, mean: Mean, labels: Any, robust: Any, weight: Any) -> Any:
    """(1 - weight) clean + weight robust; the clean pass is left out where it has no weight."""
    import tensorflow as tf

    clean = tf.cond(
        weight < 1,
        lambda: (1 - weight) * mean(_cross_entropies(logits(), labels), labels),
        lambda: 0.0,
    )
    return clean + weight * robust


def _divergences(logits: Any, others: Any) -> Any:
    """Kullback-Leibler divergence of `others`' distribution from that of `logits`, (batch,)."""
    import tensorflow as tf

    log_p, log_q = tf.nn.log_softmax(logits), tf.nn.log_softmax(others)
    return tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=1)


def _cross_entropy_of(model: keras.Sequential, labels: Any) -> LossAt:
    return lambda points: _cross_entropies(model(points, training=False), labels)


def _ascend(
    loss: LossAt, points: Any, inputs: Any, balls: Balls, epsilon: Any, num_steps: int
) -> Any:
    """Gradient sign steps up, projected to the balls; the result carries no gradient."""
    import tensorflow as tf

    ball = balls.around(inputs, epsilon)
    step = PGD_STEP / num_steps * epsilon
    points = ball.clip(points)
    for _ in tf.range(num_steps):
        points = ball.clip(points + step * _moves(balls, _uphill(loss, points)))
    return tf.stop_gradient(points)


def _noise(balls: Balls, shape: Any, epsilon: Any, seed: Any) -> Any:
    """Uniform from the ball around zero."""
    import tensorflow as tf

    return epsilon * _moves(balls, tf.random.stateless_uniform(shape, seed, -1.0, 1.0))


def _moves(balls: Balls, direction: Any) -> Any:
    """How far a direction in [-1, 1] leads at epsilon 1."""
    import tensorflow as tf

    return direction * tf.where(direction < 0, balls.down, balls.up)


def _uphill(loss: LossAt, points: Any) -> Any:
    """The sign of the loss's gradient."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(points)
        value = loss(points)
    return tf.sign(tape.gradient(value, points))


def warmup_penalty(hidden: list[BoxTensors], ball: BoxTensors) -> Any:
    """Keeps bounds tight and ReLUs of both signs while epsilon grows, after Shi et al. 2021.

    Per ReLU layer: how far the mean radius exceeds the input's by more than 1/tau; and how far
    active and inactive units fall apart, by what they add to the mean and to the variance of the
    boxes' centers. Zero where the ratios are at least tau. A unit counts by the sign of its center,
    where they leave out those that may have both.
    """
    import tensorflow as tf

    terms = [tf.constant(0.0)]  # a network without ReLUs has nothing to keep
    input_radius = tf.reduce_mean(ball.upper - ball.lower)
    for box in hidden:
        radius = tf.reduce_mean(box.upper - box.lower)
        center = (box.upper + box.lower) / 2
        active = tf.cast(center > 0, center.dtype)
        spread = tf.square(center - tf.reduce_mean(center))
        ratios = [
            tf.math.divide_no_nan(tf.stop_gradient(input_radius), radius),
            _balance(tf.reduce_sum(active * center), -tf.reduce_sum((1 - active) * center)),
            _balance(tf.reduce_sum(active * spread), tf.reduce_sum((1 - active) * spread)),
        ]
        terms += [tf.nn.relu(TOLERANCE - ratio) / TOLERANCE for ratio in ratios]
    return tf.add_n(terms) / max(len(hidden), 1)


def _balance(first: Any, second: Any) -> Any:
    """The lesser of two positive numbers over the greater."""
    import tensorflow as tf

    return tf.math.divide_no_nan(tf.minimum(first, second), tf.maximum(first, second))


def initialise_for_intervals(model: keras.Sequential, seed: int) -> None:
    """Kernels from N(0, 2 pi / fan_in^2): then interval widths neither grow nor shrink with depth.

    Shi et al. 2021, section 3.1.
    """
    import keras
    import numpy as np

    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense | keras.layers.Conv2D):
            shape = layer.kernel.shape
            deviation = np.sqrt(2 * np.pi) / np.prod(shape[:-1])
            layer.kernel.assign(generator.normal(0, deviation, shape))
