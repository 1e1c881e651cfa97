"""The certificate in float32: below every exact bound and float32 evaluation, and not loose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.bounds.float32_error import row_error
from tasks.core.bounds.linear import interval_lower_bounds, preactivation_bounds
from tasks.core.errors import CertiflowError
from tasks.core.guard.certificate import BATCH, CertificateRuntime, Certified, as_served, exported
from tasks.core.networks.network import Affine, ReluNetwork, Roundings
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import Perturbation
from tasks.core.properties.specification import margin_rows
from tests.core.bounds.test_float32_error import in_some_order
from tests.networks import KINDS, Kind, random_network_of
from tests.oracle import least_margin

EPSILONS = np.array([0.0, 0.01, 0.05, 0.2])
ONE = np.ones((1, 1), dtype=np.float32)


def runtime_of(
    network: ReluNetwork, perturbation: Perturbation, folder: Path
) -> CertificateRuntime:
    onnx.save(exported(network, perturbation), folder / "certificate.onnx")
    return CertificateRuntime(folder / "certificate.onnx")


def pixels(network: ReluNetwork) -> Perturbation:
    return Perturbation.of_images((network.num_inputs,))


def points_of(generator: np.random.Generator, network: ReluNetwork) -> np.ndarray:
    inputs = generator.uniform(0, 1, size=(8, network.num_inputs)).astype(np.float32)
    inputs[0], inputs[1] = 0, 1
    return inputs


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_interval_bounds_say_less_rounding(kind: Kind, tmp_path: Path) -> None:
    generator = np.random.default_rng(KINDS.index(kind))
    proved = 0
    for case in range(20):
        network = random_network_of(generator, kind, "few" if case % 2 else "many")
        perturbation, inputs = pixels(network), points_of(generator, network)
        found = runtime_of(network, perturbation, tmp_path).certified(inputs, EPSILONS)
        np.testing.assert_allclose(found.logits, network(inputs), atol=1e-4)
        assert (found.labels == found.logits.argmax(axis=1)).all()
        for epsilon, margins in zip(EPSILONS, found.margins.T, strict=True):
            box = perturbation.box(inputs, epsilon)
            rows = margin_rows(found.labels, network.num_outputs)
            hidden = preactivation_bounds(network, box, "interval")
            lower = interval_lower_bounds(network, rows, hidden, box)
            error = row_error(as_served(network), rows, hidden, box)
            assert (margins < lower.min(axis=1)).all()
            # its own rounding and the model's, at every layer, and what makes up for them
            assert (margins > (lower - 16 * error).min(axis=1) - 1e-9).all()
            proved += int((margins > 0).sum())
    assert proved > 100


@pytest.mark.parametrize("kind", KINDS)
def test_no_margin_is_above_the_exact_one(kind: Kind, tmp_path: Path) -> None:
    generator = np.random.default_rng(10 + KINDS.index(kind))
    proved = 0
    for _ in range(8):
        network = random_network_of(generator, kind, "few")
        perturbation, inputs = pixels(network), points_of(generator, network)[2:4]
        found = runtime_of(network, perturbation, tmp_path).certified(inputs, EPSILONS[1:])
        for place, label in enumerate(found.labels):
            for epsilon, margin in zip(EPSILONS[1:], found.margins[place], strict=True):
                if margin > 0:
                    box = perturbation.box(inputs[place : place + 1], epsilon)
                    assert margin <= least_margin(network, box, int(label)) + 1e-5
                    proved += 1
    assert proved > 5


@pytest.mark.parametrize("kind", KINDS)
def test_no_float32_evaluation_in_a_proved_ball_has_another_label(
    kind: Kind, tmp_path: Path
) -> None:
    generator = np.random.default_rng(20 + KINDS.index(kind))
    tried = 0
    for _ in range(8):
        network = random_network_of(generator, kind, "few")
        perturbation, inputs = pixels(network), points_of(generator, network)
        found = runtime_of(network, perturbation, tmp_path).certified(inputs, EPSILONS)
        for place, column in np.argwhere(found.margins > 0):
            lower, upper = perturbation.float32_bounds(
                inputs[place : place + 1], float(EPSILONS[column])
            )
            ends = generator.random((3, network.num_inputs)) < 0.5
            for point in np.where(ends, lower, upper):
                logits = in_some_order(generator, network, point)
                others = np.delete(logits, found.labels[place])
                assert (logits[found.labels[place]] > others).all()
                tried += 1
    assert tried > 100


def cancelling(power: int) -> ReluNetwork:
    """Logits x and 0.5, the first as (x + 2^power) - 2^power: in float32 a multiple of an ulp."""
    large = 2.0**power
    return ReluNetwork(
        (
            Affine(np.eye(1), np.array([large])),
            Affine(np.array([[1.0], [0.0]]), np.array([-large, 0.5])),
        )
    )


@pytest.mark.parametrize("power", range(26))
def test_what_float32_loses_is_not_proved(power: int, tmp_path: Path) -> None:
    """At the least proved input above 1/2 both ways of rounding x + 2^power keep the label."""
    network = cancelling(power)
    runtime = runtime_of(network, pixels(network), tmp_path)
    inputs = np.linspace(0, 1, 1001, dtype=np.float32)[:, None]
    found = runtime.certified(inputs, np.zeros(1))
    proved = found.margins[:, 0] > 0
    spacing = 2.0 ** (power - 23)
    for rounded in (np.floor, np.ceil):
        first = rounded(inputs[proved, 0] / spacing) * spacing
        assert ((first > 0.5) == (inputs[proved, 0] > 0.5)).all()
        assert (first != 0.5).all()
    if power < 12:
        assert proved.mean() > 0.9


def test_every_rounding_of_the_model_s_own_counts(tmp_path: Path) -> None:
    """2^14 roundings in a layer move its outputs by 2^-10 of their magnitudes."""
    network = two_logits([1.0], 0.5)
    rounded = replace(network, roundings=(Roundings(2**14, 1.0),))
    found = runtime_of(rounded, pixels(network), tmp_path).certified(ONE, np.zeros(1))
    assert 0.49 < found.margins[0, 0] <= 0.5 - 2.0**-10 * 1.5


def test_what_may_be_flushed_to_zero_is_not_proved(tmp_path: Path) -> None:
    network = two_logits([2.0**-140], 0.0)
    found = runtime_of(network, pixels(network), tmp_path).certified(ONE, np.zeros(1))
    assert found.margins[0, 0] <= 0


def test_inputs_that_are_no_numbers_have_no_certificate(tmp_path: Path) -> None:
    network = random_network_of(np.random.default_rng(0), "dense", "few")
    runtime = runtime_of(network, pixels(network), tmp_path)
    for wrong in (np.nan, np.inf, -np.inf):
        inputs = np.full((1, network.num_inputs), 0.5, dtype=np.float32)
        inputs[0, 0] = wrong
        assert not (runtime.certified(inputs, EPSILONS).margins > 0).any()


def two_logits(weights: list[float], offset: float) -> ReluNetwork:
    """Logits `weights @ x` and the offset."""
    return ReluNetwork(
        (Affine(np.array([weights, [0.0] * len(weights)]), np.array([0.0, offset])),)
    )


FEATURES = (
    Feature(name="amount", lower=-10, upper=1000),
    Feature(name="count", kind="integer", lower=0, upper=300),
    Feature(name="age", kind="integer", lower=0, upper=120, mutable=False),
    Feature(name="region", kind="category", categories=("north", "south")),
)


def rows_and_perturbation() -> tuple[FloatArray, Perturbation]:
    domain = Domain.of_table(FEATURES)
    train = np.array([[-10, 0, 0, 1, 0], [1000, 300, 120, 0, 1]], dtype=np.float32)
    perturbation = Perturbation.of_table(domain, train).both_ways()
    rows = np.array([[500.25, 150, 40, 1, 0], [-10, 300, 120, 0, 1], [3.3, 0, 0, 1, 0]])
    return rows.astype(np.float32), perturbation


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_table_s_box_is_the_perturbation_s(column: int, sign: float, tmp_path: Path) -> None:
    """The least of one column is what the margin to a constant below it shows."""
    rows, perturbation = rows_and_perturbation()
    weights, constant = [0.0] * 5, -5000.0
    weights[column] = sign
    runtime = runtime_of(two_logits(weights, constant), perturbation, tmp_path)
    epsilons = np.array([0.001, 0.01, 1 / 300, 0.05, 0.9])
    epsilons.sort()
    found = runtime.certified(rows, epsilons)
    for epsilon, margins in zip(epsilons, found.margins.T, strict=True):
        box = perturbation.box(rows, epsilon)
        least = (box.lower if sign > 0 else -box.upper)[:, column] - constant
        assert (margins <= least).all()
        assert (margins >= least - 0.05).all()


def test_what_cannot_be_certified_in_float32_is_refused() -> None:
    wide = Domain.of_table([Feature(name="x", lower=0, upper=1e30)])
    train = np.array([[0.0], [1e30]], dtype=np.float32)
    perturbation = Perturbation.of_table(wide, train)
    with pytest.raises(CertiflowError, match="narrow the features' bounds"):
        exported(two_logits([1e30], 0.0), perturbation)
    changing = Perturbation.of_table(
        Domain.of_table(FEATURES), np.zeros((2, 5), dtype=np.float32), most_changes=1
    )
    with pytest.raises(CertiflowError, match="category_changes"):
        exported(two_logits([1.0] * 5, 0.0), changing)


def test_roundings_beyond_all_bounds_are_refused() -> None:
    """2^22 roundings: their share of a value is no longer bounded by gamma."""
    network = replace(two_logits([1.0], 0.5), roundings=(Roundings(2**22, 1.0),))
    with pytest.raises(CertiflowError, match="may reach inf"):
        exported(network, pixels(network))


def test_many_inputs_are_certified_like_each_alone(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    network = random_network_of(generator, "convolutional", "many")
    runtime = runtime_of(network, pixels(network), tmp_path)
    inputs = generator.uniform(0, 1, (2 * BATCH + 3, network.num_inputs)).astype(np.float32)
    together = runtime.certified(inputs, EPSILONS)
    alone = [runtime.certified(each[None], EPSILONS) for each in inputs]
    assert together.margins.shape == (len(inputs), len(EPSILONS))
    assert (together.labels == [each.labels[0] for each in alone]).all()
    expected = np.concatenate([each.margins for each in alone])
    np.testing.assert_allclose(together.margins, expected, atol=1e-5)
    assert len(runtime.certified(inputs[:0], EPSILONS).labels) == 0


def test_a_grade_ends_at_the_first_gap() -> None:
    margins = np.array([[1, 1, -1], [1, -1, 1], [-1, 1, 1], [1, 1, 1], [np.nan, 1, 1]])
    found = Certified(np.zeros(5, dtype=np.int64), np.zeros((5, 2)), margins)
    assert found.grades.tolist() == [2, 1, 0, 3, 0]
