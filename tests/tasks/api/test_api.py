"""The Python API: sound, complete where it can be, and plain about what it is given."""

from __future__ import annotations

import doctest
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import api
from tasks.core.data.datasets import Dataset
from tasks.core.models.runtimes import Classifier
from tests.networks import ball_around, random_network
from tests.oracle import least_excess, least_margin

SQUARE = api.box([0.0, 0.0], [1.0, 1.0])
IDENTITY = api.ReluNetwork((api.Affine(np.eye(2), np.zeros(2)), api.Affine(np.eye(2), np.zeros(2))))


@pytest.mark.parametrize("module", [api, api.properties], ids=lambda module: str(module.__name__))
def test_the_examples_in_the_documentation(module: Any) -> None:
    found = doctest.testmod(module)
    assert found.attempted >= 4
    assert found.failed == 0


def test_robustness_and_radius_agree_with_the_exact_oracle() -> None:
    verdicts = Counter[api.Verdict]()
    for seed in range(3):
        generator = np.random.default_rng(seed)
        network = random_network(generator, (5, 9, 9, 3))
        x = generator.random(5, dtype=np.float32)
        label = int(network(x[None])[0].argmax())
        for epsilon in (0.05, 0.15, 0.4):
            ball = api.linf_ball(x, epsilon)
            exact = least_margin(network, ball, label)
            found = api.verify(network, api.Robustness(ball, label), timeout_seconds=20)
            assert found.holds is (exact > 0)
            verdicts[found.verdict] += 1
            if found.holds:
                assert found.margin is not None
                assert 0 < found.margin <= exact + 1e-6
            else:
                assert found.counterexample is not None
                assert ball.contains(found.counterexample[None])[0]
                assert found.outputs is not None
                assert found.outputs.argmax() != label
        bracket = api.radius(network, x, max_epsilon=0.5)
        assert bracket.label == label
        assert bracket.complete
        for epsilon, sign in ((bracket.proved - 1e-9, 1), (bracket.falsified + 1e-6, -1)):
            if 0 < epsilon < 1:
                assert sign * least_margin(network, api.linf_ball(x, epsilon), label) > -1e-5
    assert min(verdicts[api.Verdict.ROBUST], verdicts[api.Verdict.FALSIFIED]) >= 2


def test_output_constraints_agree_with_the_exact_oracle() -> None:
    """Conjunctions of rows, and rows that are asked one by one."""
    for seed in range(2):
        generator = np.random.default_rng(seed)
        network, rows = random_network(generator, (3, 8, 2)), generator.normal(size=(2, 2))
        cube = api.box(np.zeros(3), np.ones(3))
        for offset in (-1.0, 0.3, 3.0):
            offsets = np.full(2, offset)
            both = api.verify(network, api.unreachable(cube, rows, offsets))
            region = api.UnsafeRegion(cube, rows, offsets)
            assert both.holds is (least_excess(network, region) > 0)
            each = api.verify(network, api.always_positive(cube, rows, offsets))
            single = [
                least_excess(network, api.UnsafeRegion(cube, rows[i : i + 1], offsets[:1]))
                for i in range(2)
            ]
            assert each.holds is (min(single) > 0)


def test_properties_may_mix_inputs_and_outputs() -> None:
    """Of the identity: y1 >= x1 + 0.1 is never reached, y1 >= x1 - 0.1 is."""
    for offset, holds in ((0.1, True), (-0.1, False)):
        prop = api.unreachable(SQUARE, [[-1.0, 0.0, 1.0, 0.0]], [offset])
        assert api.verify(IDENTITY, prop).holds is holds


@pytest.mark.parametrize("method", ["interval", "crown"])
def test_bounds_hold_at_every_point_and_crown_is_no_looser(method: Any) -> None:
    generator = np.random.default_rng(0)
    network, lower = random_network(generator, (4, 10, 10, 3)), generator.random((5, 4))
    found = api.bounds(network, lower, lower + 0.3, method=method)
    points = lower[:, None] + 0.3 * generator.random((5, 200, 4))
    outputs = network(points.reshape(-1, 4)).reshape(5, 200, 3)
    assert (found.lower[:, None] <= outputs).all()
    assert (outputs <= found.upper[:, None]).all()
    assert (found.widths <= api.bounds(network, lower, lower + 0.3, method="interval").widths).all()
    alone = api.bounds(network, lower[1], lower[1] + 0.3, method=method)
    assert alone.lower.shape == (3,)
    np.testing.assert_allclose(alone.lower, found.lower[1], rtol=1e-9)


def test_models_in_memory_and_in_files_are_the_same(
    classifier: Classifier, digits: Dataset, tmp_path: Path
) -> None:
    """A Keras model, its file, and the same network: one verdict, and images keep their shape."""
    classifier.model.save(tmp_path / "digits.keras")
    right = classifier.predictions(digits.test_inputs) == digits.test_labels
    row = int(np.flatnonzero(right)[0])
    image, label = digits.test_inputs[row], int(digits.test_labels[row])
    forms: list[api.Model] = [classifier.model, str(tmp_path / "digits.keras")]
    loaded = [api.load(form) for form in forms]
    assert loaded[0].network.sha256 == loaded[1].network.sha256
    assert api.load(loaded[0]) is loaded[0]
    for model in (*loaded, loaded[0].network):
        holds = {
            epsilon: api.verify(model, api.Robustness(api.linf_ball(image, epsilon), label))
            for epsilon in (0.001, 0.5)
        }
        assert holds[0.001].holds
        broken = holds[0.5]
        assert broken.counterexample is not None
        assert broken.counterexample.size == image.size
        assert broken.outputs is not None
        assert broken.outputs.argmax() != label
    assert broken.counterexample.shape == (64,)  # a network's inputs are flat
    bracket = api.radius(loaded[0], image, label, max_epsilon=0.5, tolerance=0.01)
    assert bracket.counterexample is not None
    assert bracket.counterexample.shape == image.shape
    assert classifier.predictions(bracket.counterexample[None])[0] != label
    assert ball_around(image[None], bracket.falsified).contains(bracket.counterexample[None])[0]


def test_what_the_time_does_not_suffice_for_stays_open() -> None:
    generator = np.random.default_rng(0)
    network = random_network(generator, (30, 60, 60, 60, 5))
    x = generator.random(30, dtype=np.float32)
    asked = api.Robustness(api.linf_ball(x, 0.2), int(network(x[None])[0].argmax()))
    found = api.verify(network, asked, timeout_seconds=1e-3, engine="bounds")
    assert found.verdict in {api.Verdict.TIMEOUT, api.Verdict.UNKNOWN, api.Verdict.FALSIFIED}
    short = api.radius(network, x, timeout_seconds=1e-3)
    assert not short.complete
    assert short.reason


def test_vnnlib_files_are_properties(tmp_path: Path) -> None:
    text = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)"
    text += "(declare-const Y_1 Real)(assert (>= X_0 0))(assert (<= X_0 {}))"
    text += "(assert (>= X_1 0.5))(assert (<= X_1 1))(assert (>= Y_0 Y_1))"
    path = tmp_path / "ask.vnnlib"
    for most, holds in ((0.25, True), (0.75, False), (-1, True)):  # no input is below 0
        path.write_text(text.format(most if most >= 0 else "(- 1)"))
        assert api.verify(IDENTITY, path).holds is holds


def other_domain() -> api.Property:
    from dataclasses import replace

    from tasks.core.properties.domain import Domain

    return replace(api.unreachable(SQUARE, [[1.0, 0.0]], [0.0]), domain=Domain((2,)))


def of_mixed_rows() -> api.Property:
    regions = [api.unreachable(SQUARE, [[1.0] * n], [0.0]).unsafe[0] for n in (2, 4)]
    return api.Property(tuple(regions))


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda: api.load("none.onnx"), "no such file"),
        (lambda: api.load("model.pt"), "unknown kind of model"),
        (lambda: api.load(3), "of type int: expected the path"),
        (lambda: api.box([0.0], [0.0, 1.0]), "lower has shape"),
        (lambda: api.box([0.0, 1.0], [0.0, 0.5]), "input 1: lower is 1, above upper, 0.5"),
        (lambda: api.box([np.nan], [1.0]), "lower holds nan"),
        (lambda: api.box(["a"], [1.0]), "lower is no array of numbers"),
        (lambda: api.linf_ball([0.5], -0.1), "epsilon is -0.1"),
        (lambda: api.linf_ball([1.5], 0.1), "input 0 of the center is 1.5: expected within 0 to 1"),
        (lambda: api.linf_ball([0.5], 0.1, lower=[0, 0]), "or the center's shape"),
        (lambda: api.unreachable(SQUARE, [1.0, 0.0], [0.0]), r"rows has shape \(2,\)"),
        (lambda: api.verify(IDENTITY, api.Robustness(SQUARE, 2)), "the label is 2"),
        (lambda: api.verify(IDENTITY, api.Robustness(SQUARE, 0.5)), "the label is 0.5"),  # type: ignore[arg-type]
        (lambda: api.radius(IDENTITY, [0.2, 0.5], 0.5), "the label is 0.5"),  # type: ignore[arg-type]
        (lambda: api.verify(IDENTITY, of_mixed_rows()), "others of outputs and inputs"),
        (lambda: api.verify(IDENTITY, api.Robustness(api.box([0], [1]), 0)), "Box of 1"),
        (lambda: api.verify(IDENTITY, api.unreachable(SQUARE, [[1.0]], [0.0])), "1 columns"),
        (lambda: api.verify(IDENTITY, api.Property(())), "no unsafe region"),
        (lambda: api.verify(IDENTITY, other_domain()), "a domain of its own"),
        (lambda: api.verify(IDENTITY, 7), "of type int"),  # type: ignore[arg-type]
        (lambda: api.verify(IDENTITY, "none.vnnlib"), "none.vnnlib"),
        (lambda: api.verify(IDENTITY, api.Robustness(SQUARE, 0), timeout_seconds=0), "time limit"),
        (lambda: api.radius(IDENTITY, [0.5]), r"x has shape \(1,\)"),
        (lambda: api.radius(IDENTITY, [0.2, 0.5], 5), "the label is 5"),
        (lambda: api.radius(IDENTITY, [0.2, 1.5]), "set lower and upper"),
        (lambda: api.radius(IDENTITY, [0.2, 0.5], max_epsilon=2), "greatest epsilon"),
        (lambda: api.radius(IDENTITY, [0.2, 0.5], upper=1e38), "greater units"),
        (lambda: api.bounds(IDENTITY, [0.0], [1.0]), "lower has shape"),
        (lambda: api.bounds(IDENTITY, [0.0, 1.0], [1.0, 0.5]), "exchange them"),
        (lambda: api.bounds(IDENTITY, [0.0, 0.0], [1.0, 1.0], method="best"), "method is 'best'"),  # type: ignore[arg-type]
    ],
)
def test_what_users_cause_is_said_in_a_line(ask: Callable[[], Any], why: str) -> None:
    with pytest.raises(api.CertiflowError, match=why) as caught:
        ask()
    assert "\n" not in str(caught.value)


def test_a_misclassified_input_has_radius_0() -> None:
    found = api.radius(IDENTITY, [0.2, 0.8], label=0)
    assert (found.proved, found.falsified) == (0.0, 0.0)


def test_radii_beyond_the_unit_box() -> None:
    """Of the identity the two inputs meet at half their difference, whatever their units."""
    found = api.radius(IDENTITY, [30.0, 31.0], lower=-100, upper=100, max_epsilon=1.0)
    assert found.proved <= 0.5 <= found.falsified <= found.proved + 0.001
