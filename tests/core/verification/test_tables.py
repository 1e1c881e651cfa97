"""Rows of tables, end to end: the whole `verify` and radii of Keras models that normalise."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.execution import asking
from tasks.core.execution.asking import Resources
from tasks.core.models.runtimes import Classifier
from tasks.core.networks.network import ReluNetwork
from tasks.core.properties.perturbation import Perturbation
from tasks.core.properties.specification import margins
from tasks.core.readers.keras_endings import deciding
from tasks.core.readers.keras_network import relu_network
from tasks.core.search.first_stages import AttackStrength
from tasks.core.verdicts import Verdict
from tasks.core.verification.balls import Sample
from tasks.core.verification.critical_radius import critical_radii
from tasks.core.verification.local_robustness import verify
from tasks.core.verification.radius_search import RadiusGoal
from tests.core.search.test_tables import all_rows, random_row, random_table
from tests.one_process import outcomes_here

RESOURCES = Resources(num_workers=1, memory_limit_bytes=2**31)
ATTACK = AttackStrength(num_steps=5, num_restarts=2, seed=0)
EPSILONS = [0.4, 1.0, 2.0]
ROWS = 8


def model_on(rows: FloatArray, ending: str) -> keras.Model:
    normal = keras.layers.Normalization(mean=rows.mean(axis=0), variance=rows.var(axis=0) + 0.01)
    bias = "random_normal"  # without one, dead units would leave ties
    hidden = keras.layers.Dense(8, activation="relu", bias_initializer=bias)
    outputs = 1 if ending == "sigmoid" else 3
    last = keras.layers.Dense(outputs, activation=ending, bias_initializer=bias)
    return keras.Sequential([keras.Input(rows.shape[1:]), normal, hidden, last])


def broken_rows(
    network: ReluNetwork, table: Perturbation, row: FloatArray, label: int, epsilon: float
) -> FloatArray:
    """The rows within reach at which the label does not win."""
    reached = all_rows(table, row, epsilon)
    least = margins(network(reached), np.full(len(reached), label)).min(axis=1)
    return reached[least <= 0]


@pytest.mark.parametrize("ending", ["linear", "softmax", "sigmoid"])
def test_verdicts_and_radii_are_those_of_an_enumeration(
    ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "outcomes", outcomes_here)
    verdicts: Counter[Verdict] = Counter()
    for case in range(3):
        generator = np.random.default_rng([31, case])
        table = random_table(generator)
        rows = np.stack([random_row(generator, table.domain) for _ in range(ROWS)])
        keras.utils.set_random_seed(case)
        model = model_on(rows, ending)
        network, runtime = relu_network(model), Classifier(deciding(model))
        inputs = rows.astype(np.float32)
        labels = runtime.predictions(inputs)
        sample = Sample(np.arange(ROWS), inputs, labels, table)

        for result in verify(
            runtime,
            network,
            sample,
            EPSILONS,
            engine="ladder",
            attack=ATTACK,
            timeout_seconds=10,
            resources=RESOURCES,
        ):
            row, label = rows[result.sample_index], int(labels[result.sample_index])
            wrong = broken_rows(network, table, row, label, result.epsilon)
            verdicts[result.verdict] += 1
            if result.verdict is Verdict.ROBUST:
                assert len(wrong) == 0
            else:
                assert result.verdict is Verdict.FALSIFIED, result
                assert result.counterexample is not None
                assert (wrong == result.counterexample).all(axis=1).any()
        for bracket in critical_radii(runtime, network, sample, RadiusGoal(1, 0.02, 10), RESOURCES):
            row, label = rows[bracket.sample_index], int(labels[bracket.sample_index])
            assert bracket.complete
            if bracket.proved > 0:
                assert len(broken_rows(network, table, row, label, bracket.proved)) == 0
            if 0 < bracket.falsified <= 1:
                assert len(broken_rows(network, table, row, label, bracket.falsified)) > 0
    assert min(verdicts[Verdict.ROBUST], verdicts[Verdict.FALSIFIED]) > 10
