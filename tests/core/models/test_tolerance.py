"""A deployed model's number, compared in float32: what it decides, and how far it may err."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tasks.core.arrays import Float32Array
from tasks.core.bounds.float32_error import point_error
from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.models.agreement import check_agreement
from tasks.core.models.loading import LoadedModel
from tasks.core.models.runtimes import NumpyRuntime
from tasks.core.models.tolerance import ToleranceRuntime, answering
from tasks.core.networks.network import ReluNetwork
from tasks.core.networks.tolerance import in_float32, within
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import Perturbation
from tests.networks import random_network


@dataclass(frozen=True)
class Saying:
    """A model that says the sum of its inputs, and a constant more."""

    more: float

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (2,)

    def logits(self, points: Float32Array) -> Float32Array:
        return points.sum(axis=1, keepdims=True) + np.float32(self.more)


def numbers(rows: Float32Array, tolerance: float | None) -> Dataset:
    """Rows of two features and a reference."""
    references = () if tolerance is None else (Feature(name="y", lower=-9, mutable=False),)
    features = (Feature(name="a"), Feature(name="b"), *references)
    perturbation = Perturbation.of_table(Domain.of_table(features), rows, "absolute")
    labels = np.zeros(len(rows), np.int64)
    names = ("within", "too high", "too low")
    return Dataset("numbers", rows, labels, rows, labels, names, perturbation, tolerance=tolerance)


@pytest.mark.parametrize(
    ("excess", "label"),
    [(0, 0), (1.5, 0), (-1.5, 0), (2, 1), (-2, 2), (3, 1), (-9, 2), (np.inf, 1), (-np.inf, 2)],
)
def test_exactly_the_tolerance_is_not_within_it(excess: float, label: int) -> None:
    runtime = ToleranceRuntime(Saying(excess), np.float32(2))
    logits = runtime.logits(np.float32([[1, 2, 3]]))
    assert logits.dtype == np.float32
    assert logits[0].argmax() == label
    assert runtime.excess(np.float32([[1, 2, 3]])) == np.float32(excess)


def test_what_is_no_number_is_not_within() -> None:
    runtime = ToleranceRuntime(Saying(np.nan), np.float32(2))
    assert runtime.logits(np.float32([[1, 2, 3]]))[0].argmax() != 0


@pytest.mark.parametrize("tolerance", [1e-7, 1e-3, 1.0, 3e4, 1e20])
def test_float32_errs_by_no_more_than_is_allowed(tolerance: float) -> None:
    """Numbers about as great as the tolerance, and a million times as great."""
    for seed in range(20):
        generator = np.random.default_rng(seed)
        shape = random_network(generator, (4, 30, 30, 1))
        last, size = shape.layers[-1], tolerance * 10.0 ** generator.integers(0, 7)
        layers = (*shape.layers[:-1], type(last)(last.weight * size, last.bias * size))
        network = ReluNetwork(layers)
        runtime = ToleranceRuntime(NumpyRuntime(network), in_float32(tolerance))
        x = generator.normal(size=(50, 4)).astype(np.float32)
        y = network(x)[:, 0] + tolerance * generator.uniform(-2, 2, 50)
        rows = np.column_stack([x, y.astype(np.float32)])
        asked = within(network, tolerance)
        check_agreement(asked, runtime, rows.astype(np.float64))
        exact = asked(rows)
        assert (np.abs(runtime.logits(rows) - exact) <= point_error(asked, rows)).all()
        # no proof of what is deployed where float32 says another label
        certain = exact[:, :1] - exact[:, 1:] > point_error(asked, rows)[:, 1:]
        labels = runtime.logits(rows).argmax(axis=1)
        assert (labels[certain.all(axis=1)] == 0).all()


def test_a_model_and_its_data_meet() -> None:
    network = random_network(np.random.default_rng(0), (2, 5, 1))
    model = LoadedModel(network, NumpyRuntime(network))
    rows = np.random.default_rng(1).random((20, 3), dtype=np.float32)
    asked = answering(model, numbers(rows, 0.5))
    assert (asked.network.num_inputs, asked.network.num_outputs) == (3, 3)
    assert asked.input_shape == (3,)
    number = network(rows[:, :2])[:, 0]
    is_within = np.abs(number - rows[:, 2]) < 0.5
    assert 0 < is_within.sum() < 20
    np.testing.assert_array_equal(asked.runtime.logits(rows).argmax(axis=1) == 0, is_within)


def test_a_runtime_that_says_another_number_is_refused() -> None:
    network = random_network(np.random.default_rng(0), (2, 5, 1))
    with pytest.raises(CertiflowError, match="its runtime gives"):
        answering(LoadedModel(network, Saying(0.5)), numbers(np.zeros((3, 3), np.float32), 0.5))


def test_classifiers_and_numbers_are_not_mixed_up() -> None:
    generator = np.random.default_rng(0)
    number = random_network(generator, (2, 5, 1))
    classes = random_network(generator, (2, 5, 3))
    rows = np.zeros((3, 3), np.float32)
    with pytest.raises(CertiflowError, match=r"decides between 3 classes.* one linear output"):
        answering(LoadedModel(classes, NumpyRuntime(classes)), numbers(rows, 0.5))
    with pytest.raises(CertiflowError, match="give the schema a tolerance in the place of classes"):
        answering(LoadedModel(number, NumpyRuntime(number)), numbers(rows[:, :2], None))
    three = random_network(generator, (3, 5, 1))
    with pytest.raises(CertiflowError, match="3 inputs and 1 outputs: numbers needs 2 and 1"):
        answering(LoadedModel(three, NumpyRuntime(three)), numbers(rows, 0.5))
