"""The deployed model's error: no order of float32 sums goes beyond it, and where it matters."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx.helper import make_node

from tasks.core.arrays import FloatArray
from tasks.core.bounds.float32_error import output_error, point_error, row_error
from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.models.loading import load
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.specification import Property, UnsafeRegion
from tasks.core.search.ladder import decide
from tasks.core.tensors.lowering import Lowering
from tasks.core.verdicts import Verdict
from tests.model_files import saved_onnx
from tests.networks import KINDS, Kind, box, random_network, random_network_of, sampled_points

Single = np.float32


def in_some_order(
    generator: np.random.Generator, network: ReluNetwork, point: FloatArray
) -> FloatArray:
    """One float32 forward pass, every sum in a random order and parenthesisation, some fused."""
    values = point.astype(Single)
    for index, layer in enumerate(network.layers):
        weight, bias = layer.weight.astype(Single), layer.bias.astype(Single)
        sums = []
        for row, start in zip(weight, bias, strict=True):
            order = generator.permutation(len(row) + 1)
            terms = np.append(row * values, start)[order]
            fused = generator.random() < 0.5
            sums.append(
                fused_sum(row[order[order < len(row)]], values[order[order < len(row)]], start)
                if fused
                else tree_sum(generator, list(terms))
            )
        outputs = np.array(sums, dtype=Single)
        if index < len(network.linear):
            outputs = np.where(network.linear[index], outputs, np.maximum(outputs, 0))
        values = outputs
    return values.astype(np.float64)


def tree_sum(generator: np.random.Generator, terms: list[Single]) -> Single:
    """Two terms at a time, drawn at random, become their sum."""
    while len(terms) > 1:
        first = terms.pop(int(generator.integers(len(terms))))
        other = int(generator.integers(len(terms)))
        terms[other] = Single(terms[other] + first)
    return terms[0]


def fused_sum(row: np.ndarray, values: np.ndarray, start: Single) -> Single:
    """Each product and sum rounded once, as fused multiply-add does."""
    total = start
    for weight, value in zip(row, values, strict=True):
        total = Single(np.float64(weight) * np.float64(value) + np.float64(total))
    return total


@pytest.mark.parametrize("kind", KINDS)
def test_no_order_of_sums_goes_beyond_the_error(kind: Kind) -> None:
    generator = np.random.default_rng(KINDS.index(kind))
    greatest = 0.0
    for _ in range(15):
        network = random_network_of(generator, kind, "few")
        ball = box([-1.0] * network.num_inputs, [1.0] * network.num_inputs)
        hidden = preactivation_bounds(network, ball, "interval")
        everywhere = row_error(network, np.eye(network.num_outputs), hidden, ball)[0]
        for point in sampled_points(generator, ball, 6).astype(Single).astype(np.float64):
            at_point = point_error(network, point[None])[0]
            off = np.abs(in_some_order(generator, network, point) - network(point[None])[0])
            assert (off <= np.minimum(at_point, everywhere)).all()
            greatest = max(greatest, float((off / at_point).max()))
    assert greatest > 0.01  # the error is not so large that nothing could fail


def test_a_unit_that_is_dead_may_be_alive_in_float32() -> None:
    """A sum just below 0 that float32 has above 0: what comes out is covered."""
    found = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        weights, point = (generator.normal(size=9).astype(Single) for _ in range(2))
        exact = sum(
            Fraction(float(w)) * Fraction(float(x)) for w, x in zip(weights, point, strict=True)
        )
        bias = Single(-float(exact) - 1e-8)
        above = fused_sum(weights, point, bias)
        if not exact + Fraction(float(bias)) < 0 < above:
            continue
        network = ReluNetwork(
            (
                Affine(weights[None].astype(np.float64), np.array([float(bias)])),
                Affine(np.ones((1, 1)), np.zeros(1)),
            )
        )
        ball = box(point.tolist(), point.tolist())
        hidden = preactivation_bounds(network, ball, "interval")
        (error,) = row_error(network, np.ones((1, 1)), hidden, ball)[0]
        assert above <= error
        found += 1
    assert found > 20


def test_units_that_stay_dead_in_float32_pass_no_errors_on() -> None:
    """1e6 x - 2e6 over [0, 1] is below -1e6; beside it passes x, whose error is that of one sum."""
    first = Affine(np.array([[1e6], [1.0]]), np.array([-2e6, 0.0]))
    network = ReluNetwork((first, Affine(np.array([[1e6, 1.0]]), np.zeros(1))))
    ball = box([0.0], [1.0])
    hidden = preactivation_bounds(network, ball, "interval")
    (error,) = row_error(network, np.ones((1, 1)), hidden, ball)[0]
    assert 2.0**-24 < error < 20 * 2.0**-24
    linear = ReluNetwork(network.layers, (np.array([True, False]),))
    assert row_error(linear, np.ones((1, 1)), hidden, ball)[0, 0] > 1e4


def test_error_grows_with_cancellation() -> None:
    """(x + 2^k) - 2^k is x in exact arithmetic, and off by up to 2^(k - 24) in float32."""
    for power in (0, 10, 20):
        large = 2.0**power
        network = ReluNetwork(
            (Affine(np.eye(1), np.array([large])), Affine(np.eye(1), np.array([-large])))
        )
        (error,) = point_error(network, np.array([[0.5]]))[0]
        assert 2.0 ** (power - 24) <= error <= 2.0 ** (power - 24) * 40


def test_what_cancels_out_in_float64_keeps_its_error_in_deeper_layers() -> None:
    """relu(x) + (3003 x - 3 * 1001 x): the sum is 0 in exact arithmetic, and not in float32."""
    lowering = Lowering((1,))
    x = lowering.input
    nothing = x.scaled(3003.0)
    for _ in range(3):
        nothing = lowering.add(nothing, x.scaled(-1001.0))
    network = lowering.network(lowering.add(lowering.relu(x), nothing))
    points = np.linspace(0.1, 0.9, 50, dtype=Single)[:, None]
    exact = points.astype(np.float64)
    np.testing.assert_array_equal(network(exact), exact)
    part = Single(1001) * points
    found = points + (Single(3003) * points - part - part - part)
    assert (np.abs(found - exact) > 1e-5).any()
    assert (np.abs(found - exact) <= point_error(network, exact)).all()


def test_constants_that_cancel_out_keep_their_error_in_deeper_layers() -> None:
    """relu(x) + (2^24 + 1 - 2^24 - 1): the constant is 0 in exact arithmetic, -1 in float32."""
    parts = (2.0**24, 1.0, -(2.0**24), -1.0)
    lowering = Lowering((2,))
    x = lowering.input
    nothing = lowering.constant(parts[0])
    for part in parts[1:]:
        nothing = lowering.add(nothing, lowering.constant(part))
    varying = lowering.add(x, nothing).taken(np.arange(1))
    mixed = lowering.stacked([varying, nothing.spread((1,))])
    network = lowering.network(lowering.add(lowering.relu(x), mixed))
    point = np.array([[0.25, 0.75]])
    np.testing.assert_array_equal(network(point), [[0.5, 0.75]])
    rounded = Single(parts[0])
    for part in parts[1:]:
        rounded = rounded + Single(part)
    assert rounded == -1
    assert (point_error(network, point) >= 1).all()


def test_nothing_is_known_beyond_float32() -> None:
    for weight, point in ((1e30, 1e10), (1e39, 1e-30), (np.float64(2.0**127), 1.0)):
        network = ReluNetwork((Affine(np.full((1, 1), weight), np.zeros(1)),))
        assert np.isinf(output_error(network, [np.full((1, 1), point)])).all()


def test_numbers_flushed_to_zero_are_counted() -> None:
    """TensorFlow may take what is below 2^-126 for zero: the sum of 100 such weights as well."""
    weight = float(np.float32(2.0**-130))
    network = ReluNetwork((Affine(np.full((1, 100), weight), np.zeros(1)),))
    (error,) = point_error(network, np.ones((1, 100)))[0]
    assert error >= 100 * weight


def rounding_model(folder: Path) -> Path:
    """Y_0 = (x + 2^23) - 2^23, which is x, and Y_1 = 1/4; float32 rounds x to a whole number."""
    large = np.float32(2.0**23)
    nodes = [
        make_node("Gemm", ["x", "one", "large"], ["sum"]),
        make_node("Relu", ["sum"], ["hidden"]),
        make_node("Gemm", ["hidden", "out", "back"], ["y"]),
    ]
    constants = {
        "one": np.ones((1, 1), dtype=Single),
        "large": np.array([large]),
        "out": np.array([[1, 0]], dtype=Single),
        "back": np.array([-large, 0.25], dtype=Single),
    }
    return saved_onnx(folder, nodes, constants, shape=(1, 1))


def test_a_proof_that_the_deployed_model_breaks_says_so(tmp_path: Path) -> None:
    """Over the reals Y_0 > Y_1 on all of [0.45, 0.75]; in float32 Y_0 = 0 at 0.45."""
    path = rounding_model(tmp_path)
    network = load(path).network
    prop = Property.robustness(box([0.45], [0.75]), 0, 2)
    answer = decide(network, prop, timeout_seconds=10)
    assert answer.verdict is Verdict.ROBUST
    assert answer.margin == pytest.approx(0.2, abs=1e-6)
    session = onnxruntime.InferenceSession(path)
    outputs = session.run(None, {"x": np.array([[0.46]], dtype=Single)})[0][0]
    assert outputs.tolist() == [0.0, 0.25]
    assert answer.deployed is False


@pytest.mark.parametrize("inputs", [3, 14])  # by splitting inputs, and phases
def test_search_goes_on_for_the_deployed_model(inputs: int) -> None:
    """Where the true margin is beyond the error, branch and bound does not stop at a bare proof."""
    deployed = proved = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        network = random_network(generator, (inputs, 10, 10, 2))
        ball = box([-0.3] * inputs, [0.3] * inputs)
        row = np.array([[1.0, -1.0]])
        least = min(
            float((network(p[None]) @ row.T)[0, 0]) for p in sampled_points(generator, ball, 500)
        )
        region = UnsafeRegion(ball, row, np.array([0.1 - least]))
        answer = decide(network, Property((region,)), timeout_seconds=10)
        if answer.verdict is not Verdict.ROBUST:
            continue
        proved += 1
        deployed += bool(answer.deployed)
        hidden = preactivation_bounds(network, ball, "crown")
        error = row_error(network, row, hidden, ball)[0, 0]
        assert not answer.deployed or answer.margin > error / 2
    assert proved >= 8
    assert deployed == proved
