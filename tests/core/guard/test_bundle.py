"""A version's files: whole, of one another, and true of clean data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.guard import bundle
from tasks.core.guard.clean import radii_grid
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.sources.catalogue import load
from tests.networks import random_network

EPSILONS = (0.01, 0.05)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load("digits", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def network(digits: Dataset) -> ReluNetwork:
    """Nearest class means: a linear classifier that is right on most digits."""
    inputs = digits.train_inputs.reshape(len(digits.train_inputs), -1)
    means = np.stack([inputs[digits.train_labels == label].mean(axis=0) for label in range(10)])
    identity = Affine(np.eye(64), np.zeros(64))  # pixels are not negative: the ReLU passes them
    return ReluNetwork((identity, Affine(2 * means, -(means**2).sum(axis=1))))


@pytest.fixture(scope="module")
def folder(digits: Dataset, network: ReluNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guard")
    bundle.write(folder, network, digits, EPSILONS, seed=0)
    return folder


def test_it_comes_back_whole(folder: Path, digits: Dataset, network: ReluNetwork) -> None:
    read = bundle.read(folder)
    assert read.description.class_names == digits.class_names
    assert read.description.perturbation.sha256 == digits.perturbation.both_ways().sha256
    points = digits.test_inputs[:5]
    np.testing.assert_array_equal(read.network(points), network(points))
    certified = read.certificate.certified(points, EPSILONS)
    assert (certified.labels == network(points).argmax(axis=1)).all()


def test_clean_radii_are_those_that_one_question_each_gives(folder: Path, digits: Dataset) -> None:
    read = bundle.read(folder)
    grid = radii_grid(EPSILONS)
    inputs = digits.test_inputs
    certified = read.certificate.certified(inputs, grid)
    radii = np.concatenate([[0.0], grid])[certified.grades]
    np.testing.assert_allclose(np.sort(read.clean.radii), np.sort(radii))
    assert read.clean.right.mean() == (certified.labels == digits.test_labels).mean()
    assert 0.5 < read.clean.accepted(0.01) == (radii >= 0.01).mean()
    assert read.clean.accepted(0.05) <= read.clean.accepted(0.01)
    assert read.clean.accepted(1.0) == 0
    half = read.clean.half_accepted_to
    assert read.clean.accepted(half) >= 0.5 > read.clean.accepted(half * (1 + 1e-9))


@pytest.mark.parametrize("name", [bundle.CERTIFICATE, bundle.NETWORK, bundle.CLEAN])
def test_a_file_that_is_another_is_refused(name: str, folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_bytes((folder / name).read_bytes() + b"\0")
    with pytest.raises(CertiflowError, match="fetch it again"):
        bundle.read(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CertiflowError, match="guard's files"):
        bundle.read(tmp_path)


def test_a_model_of_numbers_is_refused(digits: Dataset, tmp_path: Path) -> None:
    network = random_network(np.random.default_rng(0), (64, 4, 3))
    with pytest.raises(CertiflowError, match="certiflow predict"):
        bundle.write(tmp_path, network, replace(digits, tolerance=1.0), EPSILONS, seed=0)
