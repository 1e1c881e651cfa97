"""Accuracy, undisturbed and under attack, found anew on the data themselves.

Attacks are seeded, yet on another processor sums in another order move a few points: what differs
is counted, and judged by how much that can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import BoolArray, Float32Array
from tasks.core.attacks import gradient
from tasks.core.data.datasets import Dataset
from tasks.core.errors import ContradictionError
from tasks.core.models.runtimes import Attackable
from tasks.core.networks.network import ReluNetwork
from tasks.core.search import whole_set

CERTIFIED = "bounds/certified_accuracy"
# Shares of the points that may be held otherwise on another machine.
CLEAN_SLACK, ATTACK_SLACK = 0.001, 0.01


@dataclass(frozen=True)
class Again:
    """One number found anew.

    Attributes:
        metric, epsilon: as `recount.Name`.
        differing: points that held before and do not now, or the other way.
    """

    metric: str
    epsilon: float | None
    claimed: float
    found: float
    differing: int
    points: int

    @property
    def same(self) -> bool:
        """Whether no more points differ than another processor explains."""
        if self.metric == CERTIFIED:  # a proof is one on every machine
            return self.differing == 0
        slack = CLEAN_SLACK if self.epsilon is None else ATTACK_SLACK
        return self.differing <= max(1, round(slack * self.points))


def clean(points: Mapping[str, NDArray[Any]], logits: Float32Array, data: Dataset) -> Again:
    """Clean accuracy beside what `points`, the test set's table, say of it."""
    return _beside(
        "clean_accuracy", None, points["clean"], logits.argmax(axis=1) == data.test_labels
    )


def certified(
    points: Mapping[str, NDArray[Any]], network: ReluNetwork, data: Dataset
) -> list[Again]:
    """At every radius of `points`, those of the certified that linear bounds prove again."""
    found = []
    for epsilon, before in zip(points["epsilons"].tolist(), points["certified"], strict=True):
        now = np.zeros_like(before)
        rows = np.flatnonzero(before)
        proved = whole_set.certified(
            network, data.test_inputs[rows], data.test_labels[rows], data.perturbation, epsilon
        )
        now[rows[proved]] = True
        found.append(_beside(CERTIFIED, epsilon, before, now))
    return found


def attacked(
    points: Mapping[str, NDArray[Any]],
    model: Attackable,
    data: Dataset,
    *,
    num_steps: int,
    num_restarts: int,
    seed: int,
) -> list[Again]:
    """FGSM and PGD at every radius of `points`, with the settings of the run.

    Raises:
        ContradictionError: a point that is certified is broken now.
    """
    epsilons: Sequence[float] = points["epsilons"].tolist()
    right = model.predictions(data.test_inputs) == data.test_labels
    predictions, _ = gradient.fgsm(
        model, data.test_inputs, data.test_labels, data.perturbation, epsilons
    )
    fgsm_right = right & (predictions == data.test_labels)
    broken = gradient.broken_by_pgd(
        model,
        data.test_inputs,
        data.test_labels,
        data.perturbation,
        epsilons,
        fgsm_right,
        num_steps=num_steps,
        num_restarts=num_restarts,
        seed=seed,
    )
    wrong = points["certified"] & broken
    if wrong.any():
        index, point = np.argwhere(wrong)[0]
        raise ContradictionError(
            f"test point {point}: certified at epsilon {epsilons[index]:g}, yet an attack breaks it"
        )
    found = []
    for index, epsilon in enumerate(epsilons):
        for metric, before, now in (
            ("fgsm", points["fgsm"], fgsm_right),
            ("pgd", points["pgd"], ~broken),
        ):
            name = f"{metric}/robust_accuracy"
            found.append(_beside(name, epsilon, before[index], now[index]))
    return found


def _beside(metric: str, epsilon: float | None, before: BoolArray, now: BoolArray) -> Again:
    return Again(
        metric,
        epsilon,
        float(before.mean()),
        float(now.mean()),
        int((before != now).sum()),
        len(now),
    )
