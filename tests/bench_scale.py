"""What verifying a point costs, by network and radius: `python -m tests.bench_scale`.

The cost model of docs/scale.md rests on it. Needs the mirror in `CERTIFLOW_DATASET_MIRROR` (MNIST).
"""

from __future__ import annotations

from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table

from tasks.core.data.datasets import Dataset
from tasks.core.execution.asking import Resources
from tasks.core.models.runtimes import Classifier
from tasks.core.readers.keras_network import relu_network
from tasks.core.search.first_stages import AttackStrength
from tasks.core.training import loop
from tasks.core.training.architectures import Architecture, describe
from tasks.core.training.training_settings import TrainingSettings
from tasks.core.verdicts import DecidedBy, Verdict, VerificationResult
from tasks.core.verification import local_robustness
from tasks.core.verification.balls import Sample

NETWORKS: tuple[tuple[Architecture, tuple[int, ...]], ...] = (
    ("dense", (128,)),
    ("dense", (256, 256)),
    ("dense", (256, 256, 256, 256)),
    ("cnn_small", (100,)),
)
EPSILONS = (0.01, 0.03)
POINTS, POINT_SECONDS = 40, 10.0
MEMORY = 4 * 2**30


def _went_to_a_process(result: VerificationResult) -> bool:
    """The batched attack comes before the bounds, the ladder's own after them.

    A process that was ended from outside told nothing of its stages.
    """
    if result.verdict is Verdict.TIMEOUT:
        return True
    is_attacked = result.decided_by is DecidedBy.ATTACK and "crown" in result.stage_seconds
    return is_attacked or not {"attack", "interval", "crown"} >= set(result.stage_seconds)


def costs(data: Dataset, console: Console) -> None:
    """One process; the batched stages (attack, bounds) beside what solver processes take."""
    table = Table(title=f"{data.name}, first {POINTS} test points, one solver process")
    for column in (
        "network",
        "parameters",
        "epsilon",
        "decided",
        "batched s",
        "solved",
        "solver s",
    ):
        table.add_column(column, justify="left" if column == "network" else "right")
    rows = np.arange(POINTS)
    sample = Sample(rows, data.test_inputs[rows], data.test_labels[rows], data.perturbation)
    for architecture, hidden in NETWORKS:
        classifier = _trained(data, architecture, hidden)
        for epsilon in EPSILONS:
            started = perf_counter()
            results = local_robustness.verify(
                classifier,
                relu_network(classifier.model),
                sample,
                [epsilon],
                engine="ladder",
                attack=AttackStrength(20, 1, 0),
                timeout_seconds=POINT_SECONDS,
                resources=Resources(1, MEMORY),
            )
            wall = perf_counter() - started
            decided = sum(r.verdict in {Verdict.ROBUST, Verdict.FALSIFIED} for r in results)
            solved = [r for r in results if _went_to_a_process(r)]
            solver = sum(result.seconds for result in solved)
            table.add_row(
                describe(architecture, hidden),
                f"{classifier.model.count_params():,}",
                f"{epsilon:g}",
                str(decided),
                f"{wall - solver:.1f}",
                str(len(solved)),
                f"{solver:.1f}",
            )
    console.print(table)


def _trained(data: Dataset, architecture: Architecture, hidden: tuple[int, ...]) -> Classifier:
    settings = TrainingSettings(architecture=architecture, hidden=hidden)
    trained = loop.train(data, settings, seed=0)
    return Classifier(trained.model)


if __name__ == "__main__":
    from tests.bench import bench_data

    costs(bench_data(), Console())
