"""What a Dask cluster on this machine gains and costs: `python -m tests.bench_cluster`.

Needs the mirror in `CERTIFLOW_DATASET_MIRROR` (MNIST), and two cores that are free.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from tasks.core.data.datasets import Dataset
from tasks.core.evidence import metrics
from tasks.core.execution.asking import Resources
from tasks.core.execution.cluster import run_on_cluster
from tasks.core.models.runtimes import Classifier
from tasks.core.readers.keras_network import relu_network
from tasks.core.search.answer import Known
from tasks.core.search.first_stages import AttackStrength, FirstStages
from tasks.core.training import loop
from tasks.core.training.training_settings import TrainingSettings
from tasks.core.verification import local_robustness
from tasks.core.verification.balls import Sample
from tests.dask_cluster import Cluster
from tests.solvers import assassin

POINTS, EPSILON, POINT_SECONDS = 3000, 0.05, 20.0
MEMORY = 4 * 2**30
REPEATS = 3
EMPTY_JOBS = 1000


@contextmanager
def cluster_of(num_workers: int) -> Iterator[str | None]:
    """The address; None when there are no workers."""
    if num_workers == 0:
        yield None
        return
    with TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        try:
            for _ in range(num_workers):
                cluster.start_worker()
            yield cluster.address
        finally:
            cluster.end()


def stage(
    classifier: Classifier, sample: Sample, num_processes: int, address: str | None
) -> tuple[float, pd.DataFrame]:
    """The verification stage's seconds, and its table without them."""
    started = perf_counter()
    results = local_robustness.verify(
        classifier,
        relu_network(classifier.model),
        sample,
        [EPSILON],
        engine="ladder",
        attack=AttackStrength(20, 1, 0),
        timeout_seconds=POINT_SECONDS,
        resources=Resources(num_processes, MEMORY, address),
    )
    seconds = perf_counter() - started
    table = metrics.verification_table(results)
    return seconds, table[[name for name in table if not name.startswith("seconds")]]


def speed(classifier: Classifier, sample: Sample, console: Console) -> None:
    """One process and two, here and on a cluster's workers."""
    table = Table(title=f"{len(sample.labels)} points at {EPSILON:g}, {REPEATS} times")
    for column in ("where", "processes", "median s", "s", "same table"):
        table.add_column(column)
    expected = None
    for where, processes in (("local", 1), ("local", 2), ("cluster", 1), ("cluster", 2)):
        with cluster_of(processes if where == "cluster" else 0) as address:
            runs = [stage(classifier, sample, processes, address) for _ in range(REPEATS)]
        expected = runs[0][1] if expected is None else expected
        same = all(expected.equals(found) for _, found in runs)
        seconds = [seconds for seconds, _ in runs]
        each = " ".join(f"{value:.1f}" for value in seconds)
        table.add_row(where, str(processes), f"{median(seconds):.1f}", each, str(same))
    console.print(table)


def overhead(classifier: Classifier, sample: Sample, console: Console) -> None:
    """What travels, pickled, and the seconds of jobs that cost nothing."""
    network = relu_network(classifier.model)
    attack = AttackStrength(20, 1, 0)
    stages = FirstStages(
        classifier, network, sample.inputs, sample.labels, sample.perturbation, attack
    )
    found = dict(stages.run(range(len(sample.labels)), EPSILON))
    job = next(
        replace(ball, known=known)
        for ball in sample.balls([EPSILON])
        if isinstance(known := found[ball.row], Known)
    )
    console.print(f"sent once: {len(pickle.dumps(network))} bytes")
    console.print(f"sent per job: {len(pickle.dumps(job))} bytes")
    with cluster_of(1) as address:
        assert address is not None
        for run in ("first", "second"):
            started = perf_counter()
            outcomes = run_on_cluster(
                address,
                assassin,
                (),
                ["spare"] * EMPTY_JOBS,
                timeout_seconds=lambda job: POINT_SECONDS,
                memory_limit_bytes=MEMORY,
            )
            next(outcomes)
            begun = perf_counter()
            count = sum(1 for _ in outcomes)
            console.print(
                f"{run} run of {EMPTY_JOBS} empty jobs: {begun - started:.2f} s until the first, "
                f"then {(perf_counter() - begun) / count * 1000:.2f} ms each"
            )


def run(data: Dataset) -> None:
    """Prints the figures and the table."""
    console = Console()
    trained = loop.train(data, TrainingSettings(), seed=0)
    classifier, rows = Classifier(trained.model), np.arange(POINTS)
    sample = Sample(rows, data.test_inputs[rows], data.test_labels[rows], data.perturbation)
    overhead(classifier, sample, console)
    speed(classifier, sample, console)


if __name__ == "__main__":
    from tests.bench import bench_data

    run(bench_data())
