"""Counterexamples to properties: candidates that the deployed model takes into an unsafe region."""

from __future__ import annotations

import numpy as np

from tasks.core.arrays import FloatArray
from tasks.core.attacks import falsification
from tasks.core.models.loading import LoadedModel
from tasks.core.properties.domain import Domain
from tasks.core.properties.specification import UnsafeRegion
from tasks.core.tensors.endings import GAP
from tasks.core.verification.replay import replayed

POLISH_STEPS = 100


def reached(
    model: LoadedModel,
    region: UnsafeRegion,
    candidates: FloatArray,
    domain: Domain | None = None,
) -> dict[str, list[float]] | None:
    """The first candidate that the deployed model takes into `region`, without any tolerance.

    Each of the candidates, shape (n, inputs), is replayed in the region's box, and counts where the
    domain, if there is one, has it. X is a number of the
    box also where that holds no float32 number, and the model is fed the nearest one.
    """
    box = region.box
    # Probabilities in float32 may order what is nearer otherwise than the logits before them.
    gap = GAP * np.abs(region.rows).max(initial=0) if model.has_softmax else 0.0
    for candidate in candidates:
        fed, logits = replayed(model.runtime, box, candidate)
        x = np.clip(fed.reshape(-1).astype(np.float64), box.lower[0], box.upper[0])
        if domain is not None and not domain.contains(x[None])[0]:
            continue
        y = logits.astype(np.float64)
        speaks_of_inputs = region.rows.shape[1] > len(y)
        values = np.append(y, x) if speaks_of_inputs else y
        if region.excess(values[None])[0] <= -gap:
            return {"X": x.tolist(), "Y": model.outputs(y).tolist()}
    return None


def confirmed(
    model: LoadedModel,
    region: UnsafeRegion,
    candidates: FloatArray,
    domain: Domain | None = None,
) -> dict[str, list[float]] | None:
    """A counterexample among the candidates, as `reached` says, else deeper in the region."""
    found = reached(model, region, candidates, domain)
    if found is not None:
        return found
    network = model.network
    if region.rows.shape[1] > network.num_outputs:
        network = network.with_inputs()
    deeper, _ = falsification.descend(
        network, region.box, region, candidates, num_steps=POLISH_STEPS, domain=domain
    )
    return reached(model, region, deeper, domain)
