"""`make bench`, second part: what the verification engine decides, and how fast.

Needs the mirror in `CERTIFLOW_DATASET_MIRROR` (MNIST, `vnncomp2021`); says what it leaves out.
"""

from __future__ import annotations

import json
import os
import resource
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tasks.core.bounds.linear import margin_lower_bounds, preactivation_bounds
from tasks.core.data.datasets import Dataset
from tasks.core.execution.asking import Resources
from tasks.core.models.runtimes import Classifier
from tasks.core.queries.properties import Instance, verify_instances
from tasks.core.readers.keras_network import relu_network
from tasks.core.search.first_stages import AttackStrength
from tasks.core.sources.download import MIRROR_VARIABLE
from tasks.core.training import loop
from tasks.core.training.training_settings import TrainingSettings
from tasks.core.verdicts import Engine, Verdict, VerificationResult
from tasks.core.verification import local_robustness
from tasks.core.verification.balls import Sample
from tests.networks import ball_around

EPSILONS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
POINTS, EPSILON, POINT_SECONDS = 100, 0.05, 10.0
MEMORY = 4 * 2**30


@dataclass(frozen=True)
class Family:
    """Instances of VNN-COMP 2021 with the verdicts on which its tools agree."""

    name: str
    folder: Path

    def entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = json.loads((self.folder / "expected.json").read_text())
        return entries


def vnncomp(console: Console) -> None:
    """All instances of the mirror in one process."""
    mirror = os.environ.get(MIRROR_VARIABLE, "")
    root = Path(mirror.removeprefix("file://")) / "vnncomp2021"
    if not mirror.startswith("file://") or not root.is_dir():
        console.print(f"VNN-COMP is left out: {MIRROR_VARIABLE} names no folder that holds it")
        return
    table = Table(title="VNN-COMP 2021, one process, each instance's own limit")
    for column in ("family", "instances", "decided", "wrong", "median s", "slowest s", "all s"):
        table.add_column(column, justify="left" if column == "family" else "right")
    for name in ("mnistfc", "acasxu"):
        family = Family(name, root / name)
        entries = family.entries()
        found = verify_instances(
            [
                Instance(
                    family.folder / entry["network"],
                    family.folder / entry["property"],
                    entry["timeout_seconds"],
                )
                for entry in entries
            ],
            Resources(1, MEMORY),
            engine="ladder",
            seed=0,
            store=None,
            fresh=True,
        )
        decided = [r for r in found if r.verdict in {"sat", "unsat"}]
        wrong = sum(
            {r.verdict, e["expected"]} == {"sat", "unsat"}
            for r, e in zip(found, entries, strict=True)
        )
        seconds = [result.seconds for result in found]
        table.add_row(
            name,
            str(len(found)),
            str(len(decided)),
            str(wrong),
            f"{median(seconds):.2f}",
            f"{max(seconds):.2f}",
            f"{sum(seconds):.1f}",
        )
    console.print(table)


def reference_points(classifier: Classifier, data: Dataset, console: Console) -> None:
    """The same test points by the ladder and by Marabou alone."""
    network = relu_network(classifier.model)
    rows = np.arange(POINTS)
    sample = Sample(rows, data.test_inputs[rows], data.test_labels[rows], data.perturbation)
    resources = Resources(len(os.sched_getaffinity(0)), MEMORY)
    table = Table(title=f"{data.name}, first {POINTS} test points at {EPSILON:g}, 10 s a point")
    for column in ("engine", "decided", "robust", "falsified", "seconds"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    engines: tuple[Engine, ...] = ("ladder", "marabou")
    found: dict[Engine, list[VerificationResult]] = {}
    for engine in engines:
        started = perf_counter()
        found[engine] = local_robustness.verify(
            classifier,
            network,
            sample,
            [EPSILON],
            engine=engine,
            attack=AttackStrength(20, 1, 0),
            timeout_seconds=POINT_SECONDS,
            resources=resources,
        )
        counts = Counter(result.verdict for result in found[engine])
        decided = counts[Verdict.ROBUST] + counts[Verdict.FALSIFIED]
        numbers = (decided, counts[Verdict.ROBUST], counts[Verdict.FALSIFIED])
        table.add_row(engine, *map(str, numbers), f"{perf_counter() - started:.1f}")
    console.print(table)
    differing = [
        ours.sample_index
        for ours, theirs in zip(found["ladder"], found["marabou"], strict=True)
        if {ours.verdict, theirs.verdict} == {Verdict.ROBUST, Verdict.FALSIFIED}
    ]
    console.print(f"points on which the engines contradict each other: {differing or 'none'}")
    proved = np.array([result.verdict is Verdict.ROBUST for result in found["ladder"]])
    attacked = AttackStrength(40, 20, 1).pgd(
        classifier,
        sample.inputs[proved],
        sample.labels[proved],
        sample.perturbation,
        EPSILON,
    )
    console.print(
        f"the ladder's {proved.sum()} proofs that PGD with 20 restarts breaks: "
        f"{attacked.broken.sum()}"
    )


def certified_accuracy(classifier: Classifier, data: Dataset, console: Console) -> None:
    """Interval and CROWN bounds for the whole test set over the epsilon grid."""
    network, started = relu_network(classifier.model), perf_counter()
    shares = []
    for epsilon in EPSILONS:
        certified = 0
        for rows in classifier.batches(len(data.test_labels)):
            ball = ball_around(data.test_inputs[rows], epsilon)
            hidden = preactivation_bounds(network, ball, "crown")
            lower = margin_lower_bounds(network, ball, data.test_labels[rows], hidden)
            certified += int((lower > 0).all(axis=1).sum())
        shares.append(f"{certified / len(data.test_labels):.4f}")
    console.print(
        f"Certified accuracy, {len(data.test_labels)} images x {len(EPSILONS)} radii: "
        f"{perf_counter() - started:.1f} s ({', '.join(shares)})"
    )


def run(data: Dataset) -> None:
    """Prints the tables, and the greatest memory of any process."""
    console = Console()
    vnncomp(console)
    trained = loop.train(data, TrainingSettings(), seed=0)
    classifier = Classifier(trained.model)
    certified_accuracy(classifier, data, console)
    reference_points(classifier, data, console)
    peaks = [
        resource.getrusage(who).ru_maxrss / 2**20
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    console.print(f"greatest memory of a process: {max(peaks):.2f} GB")


if __name__ == "__main__":
    from tests.bench import bench_data

    run(bench_data())
