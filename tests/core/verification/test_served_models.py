"""Models as people have them, on raw values, through the ladder: judged by their own decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tasks.core.models.loading import load
from tasks.core.readers.keras_network import relu_network
from tasks.core.training.architectures import moments
from tasks.core.verdicts import Verdict
from tasks.core.verification.balls import Sample
from tasks.core.verification.local_robustness import verify
from tests.core.training.test_tables import table
from tests.core.verification.test_local_robustness import ATTACK, RESOURCES, TIMEOUT_SECONDS

DATA = table()
EPSILONS = [0.02, 0.3]


def decisions(model: keras.Model, inputs: Any) -> np.ndarray:
    outputs = np.asarray(model(inputs))
    return (outputs[:, 0] > 0.5).astype(int) if outputs.shape[1] == 1 else outputs.argmax(axis=1)


NORMAL = keras.initializers.GlorotNormal(seed=2)


@pytest.mark.parametrize(
    "closing",
    [
        layers.Dense(1, "sigmoid", kernel_initializer=NORMAL),
        layers.Dense(2, "softmax", kernel_initializer=NORMAL),
    ],
)
def test_verdicts_are_about_the_models_own_decisions(closing: layers.Layer, tmp_path: Path) -> None:
    mean, variance = (values.tolist() for values in moments(DATA.train_inputs, DATA.domain))
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Normalization(mean=mean, variance=variance),
            layers.Dense(8, "relu", kernel_initializer=keras.initializers.GlorotNormal(seed=1)),
            closing,
        ]
    )
    logits = relu_network(model)(DATA.train_inputs)
    bias = np.array(model.layers[-1].bias)
    bias[-1] = np.median(logits[:, 0] - logits[:, 1])  # half of the rows on each side
    model.layers[-1].bias.assign(bias)
    model.save(tmp_path / "served.keras")
    loaded = load(tmp_path / "served.keras")
    inputs = DATA.test_inputs[:12]
    labels = decisions(model, inputs).astype(np.int64)
    results = verify(
        loaded.runtime,
        loaded.network,
        Sample(np.arange(12), inputs, labels, DATA.perturbation),
        EPSILONS,
        engine="ladder",
        attack=ATTACK,
        timeout_seconds=TIMEOUT_SECONDS,
        resources=RESOURCES,
    )
    assert {result.verdict for result in results} == {Verdict.ROBUST, Verdict.FALSIFIED}
    generator = np.random.default_rng(0)
    for result in results:
        row, label = (
            inputs[result.sample_index : result.sample_index + 1],
            labels[result.sample_index],
        )
        if result.verdict is Verdict.FALSIFIED:
            assert result.counterexample is not None
            assert decisions(model, result.counterexample[None])[0] == 1 - label
        else:
            lower, upper = DATA.perturbation.float32_bounds(row, result.epsilon)
            shares = generator.choice([0, 0.5, 1], (500, 5)).astype(np.float32)
            points = np.clip(lower + shares * (upper - lower), lower, upper)
            assert (decisions(model, points) == label).all()
            assert result.deployed is True
