"""Counterexamples replayed on the deployed float32 model: the only way from float64 to it."""

from __future__ import annotations

import numpy as np

from tasks.core.arrays import Float32Array, FloatArray
from tasks.core.models.runtimes import Runtime
from tasks.core.properties.box import Box


def float32_inside(box: Box, points: FloatArray | Float32Array) -> Float32Array:
    """The float32 points of `box` (one box) next to `points`, (n, inputs), input by input.

    Where the box holds no float32 number, the one nearest to the point moved into the box.
    """
    lower, upper = box.float32_bounds()
    near = np.clip(points, box.lower, box.upper).astype(np.float32)
    return np.where(lower > upper, near, np.minimum(np.maximum(near, lower), upper))


def nearest_box(boxes: Box, point: FloatArray | Float32Array) -> Box:
    """The one that `point`, (inputs,) in any shape, lies in, or is least far from."""
    flat = point.reshape(1, -1)
    far = np.maximum(boxes.lower - flat, flat - boxes.upper).clip(0).sum(axis=1)
    nearest = int(far.argmin())
    return boxes[nearest : nearest + 1]


def replayed(
    runtime: Runtime, boxes: Box, point: FloatArray | Float32Array
) -> tuple[Float32Array, Float32Array]:
    """The float32 point next to `point` of the box nearest to it, and its logits, alone.

    The point comes in the model's input shape, the logits as (outputs,).
    """
    fed = float32_inside(nearest_box(boxes, point), point.reshape(1, -1))
    fed = fed.reshape(1, *runtime.input_shape)
    return fed[0], runtime.logits(fed)[0]
