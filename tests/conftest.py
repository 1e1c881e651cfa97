"""Fixtures that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from flows.processes import environment

environment.prepare(verbose=False)

from tasks.core.data import datasets  # noqa: E402
from tasks.core.data.datasets import Dataset  # noqa: E402
from tasks.core.data.download import MIRROR_VARIABLE  # noqa: E402
from tasks.core.models.runtimes import Classifier  # noqa: E402
from tasks.core.networks import block_matrix  # noqa: E402
from tasks.core.training import loop  # noqa: E402  after the environment is quiet
from tasks.core.training.training_settings import TrainingSettings  # noqa: E402


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return datasets.load("digits", Path("unused"))


@pytest.fixture(scope="session")
def classifier(digits: Dataset) -> Classifier:
    """A dense network of 32 units on the digits, a little trained."""
    settings = TrainingSettings(hidden=(32,), epochs=10, learning_rate=0.003)
    trained = loop.train(digits, settings, seed=0)
    return Classifier(trained.model)


@pytest.fixture(scope="session")
def linear() -> Classifier:
    """Two logits on 2x2 images, linear: its worst point in a ball is known in closed form."""
    model = keras.Sequential([keras.Input((2, 2)), keras.layers.Flatten(), keras.layers.Dense(2)])
    weight = np.array([[1.0, -1.0], [0.5, 0.25], [-1.0, 1.0], [0.0, 2.0]], dtype=np.float32)
    model.set_weights([weight, np.array([0.6, 0.0], dtype=np.float32)])
    return Classifier(model)


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every matrix that is lowered is stored in blocks, however small, and stays so."""
    monkeypatch.setattr(block_matrix, "LEAST_DENSE", 0)
    monkeypatch.setattr(block_matrix, "BLOCK_SHARE", np.inf)


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[None]:
    """A Prefect API for flows that run in this process; starting one takes ten seconds."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def mnist_mirror() -> Iterator[str]:
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror:
        pytest.skip(f"needs MNIST: set {MIRROR_VARIABLE} to a mirror that holds it")
    return mirror
