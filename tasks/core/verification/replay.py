"""Counterexamples to properties, replayed on the deployed float32 model."""

from __future__ import annotations

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.attacks import falsification
from tasks.core.models.loading import LoadedModel
from tasks.core.properties.specification import UnsafeRegion

POLISH_STEPS = 100


def replayed(
    model: LoadedModel, region: UnsafeRegion, candidates: FloatArray
) -> dict[str, list[float]] | None:
    """The first candidate that the deployed model takes into `region`, without any tolerance.

    Each of the candidates, shape (n, inputs), is moved to a float32 point of the box; where the box
    holds no float32 number, the model is fed the nearest one and X stays a number of the box.
    """
    box = region.box
    lower, upper = box.float32_bounds()
    for candidate in np.clip(candidates, box.lower, box.upper):
        thin = (lower > upper)[0]
        inside = np.minimum(np.maximum(candidate.astype(np.float32), lower[0]), upper[0])
        fed = np.where(thin, candidate.astype(np.float32), inside)
        x = np.where(thin, candidate, fed.astype(np.float64))
        y = model.runtime.logits(fed.reshape(1, *model.input_shape))[0].astype(np.float64)
        speaks_of_inputs = region.rows.shape[1] > len(y)
        values = np.append(y, x) if speaks_of_inputs else y
        if region.excess(values[None])[0] <= 0:
            return {"X": x.tolist(), "Y": y.tolist()}
    return None


def confirmed(
    model: LoadedModel, region: UnsafeRegion, candidates: FloatArray
) -> dict[str, list[float]] | None:
    """A counterexample among the candidates, as `replayed` says, else deeper in the region."""
    found = replayed(model, region, candidates)
    if found is not None:
        return found
    network = model.network
    if region.rows.shape[1] > network.num_outputs:
        network = network.with_inputs()
    deeper, _ = falsification.descend(
        network, region.box, region, candidates, num_steps=POLISH_STEPS
    )
    return replayed(model, region, deeper)
