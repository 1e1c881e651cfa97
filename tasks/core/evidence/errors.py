"""Measures of predicted numbers."""

from __future__ import annotations

import numpy as np

from tasks.core.arrays import Float32Array


def error_measures(excess: Float32Array) -> dict[str, float]:
    """`mean_absolute_error` and `root_mean_squared_error`, in the target's unit.

    `excess`, (n,), is by how much predictions exceed their targets.
    """
    errors = excess.astype(np.float64)
    return {
        "mean_absolute_error": float(np.abs(errors).mean()),
        "root_mean_squared_error": float(np.sqrt((errors**2).mean())),
    }
