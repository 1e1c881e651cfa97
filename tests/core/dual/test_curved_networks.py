"""Bounds of networks with curved units hold at samples, whatever is chosen and split."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tasks.core.bounds.linear import Method, linear_lower_bounds, preactivation_bounds
from tasks.core.bounds.relaxations import Bounds
from tasks.core.dual.ascent import Limits
from tasks.core.dual.choices import Choices
from tasks.core.dual.dual_problem import DualProblem
from tasks.core.dual.subproblems import Subproblems
from tasks.core.dual.tightening import tightened_hidden
from tasks.core.networks.network import Affine
from tasks.core.properties.box import Box
from tests.curved_networks import curved_network
from tests.networks import sampled_points

METHODS: tuple[Method, ...] = ("interval", "crown")


def random_box(generator: np.random.Generator, inputs: int) -> Box:
    center = generator.normal(size=(2, inputs))
    radius = 10.0 ** generator.uniform(-6, 0.3, size=(2, 1)) * generator.random((2, inputs))
    return Box(center - radius, center + radius)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("method", METHODS)
def test_bounds_hold_at_samples(seed: int, method: Method) -> None:
    generator = np.random.default_rng(seed)
    network = curved_network(generator, 3)
    boxes = random_box(generator, 3)
    hidden = preactivation_bounds(network, boxes, method)
    rows = np.concatenate([np.eye(network.num_outputs), -np.eye(network.num_outputs)])
    lower = linear_lower_bounds(network, len(network.layers) - 1, rows, hidden, boxes)
    for row in range(2):
        points = sampled_points(generator, boxes, 400, row)
        *values, outputs = network.preactivations(points)
        for found, bounds in zip(values, hidden, strict=True):
            assert (found >= bounds.lower[row]).all()
            assert (found <= bounds.upper[row]).all()
        assert (outputs @ rows.T >= lower[row]).all()


@pytest.mark.parametrize("seed", range(30))
def test_what_is_chosen_keeps_bounds_sound(seed: int) -> None:
    """Whatever shares, multipliers and splits by value: where the splits hold, so do the bounds."""
    generator = np.random.default_rng(seed)
    network = curved_network(generator, 3)
    box = random_box(generator, 3)[:1]
    hidden = preactivation_bounds(network, box, "crown")
    problem = DualProblem(network, box, hidden)
    rows = generator.normal(size=(1, 2, network.num_outputs))
    points = sampled_points(generator, box, 600)
    values = np.concatenate(network.preactivations(points)[:-1], axis=1)
    excess = (network(points) @ rows[0].T).max(axis=1)
    count = problem.num_units
    for _ in range(3):
        signs = np.zeros((1, count), dtype=np.int8)
        lower, upper = problem.bounds.lower.copy(), problem.bounds.upper.copy()
        for unit in generator.permutation(np.flatnonzero(problem.activation.movable))[:2].tolist():
            point = lower[0, unit] + generator.random() * (upper[0, unit] - lower[0, unit])
            signs[0, unit] = generator.choice([-1, 1])
            (lower if signs[0, unit] > 0 else upper)[0, unit] = point
        inside = ((values >= lower) & (values <= upper)).all(axis=1)
        problems = Subproblems(rows, np.zeros((1, 2)), signs, Bounds(lower, upper))
        start = problem.initial_choices(problems)
        drawn = Choices(
            *(
                generator.normal(0.5, 1, size=part.shape).astype(np.float32)
                for part in start.parts()
            )
        )
        least = excess[inside].min(initial=np.inf)
        for choices in (start, drawn):
            assert problem.certified(problems, choices)[0] <= least
        found = problem.optimise(problems, start, Limits(8, np.inf))
        lower = problem.certified(problems, found.choices)[0]
        assert problem.certified(problems, start)[0] - 1e-6 <= lower <= least


@pytest.mark.parametrize("seed", range(10))
def test_tightened_bounds_hold_and_are_no_wider(seed: int) -> None:
    generator = np.random.default_rng(seed)
    network = curved_network(generator, 3)
    box = random_box(generator, 3)[:1]
    hidden = preactivation_bounds(network, box, "crown")
    tightened = tightened_hidden(network, box, hidden, 5, np.inf)
    values = network.preactivations(sampled_points(generator, box, 500))[:-1]
    for before, bounds, found in zip(hidden, tightened, values, strict=True):
        assert ((bounds.lower >= before.lower) & (bounds.upper <= before.upper)).all()
        assert ((found >= bounds.lower) & (found <= bounds.upper)).all()


@pytest.mark.parametrize("seed", range(20))
def test_the_gradient_is_that_of_differences(seed: int) -> None:
    generator = np.random.default_rng(seed)
    network = curved_network(generator, 3)
    point, direction = (
        generator.normal(size=(1, 3)),
        generator.normal(size=(1, network.num_outputs)),
    )
    gradient = network.gradient(network.preactivations(point), direction)[0]
    step = 1e-6 * np.eye(3)
    rises = (network(point + step) - network(point - step)) @ direction[0] / 2e-6
    sizes = np.abs(gradient).max() + 1
    # a kink within the step, of the sign's jump a step of infinite slope, is no mistake
    assert (np.abs(rises - gradient) < 1e-4 * sizes).mean() >= 2 / 3 or np.abs(rises).max() > 1e4


@pytest.mark.parametrize("seed", range(12))
def test_fixed_inputs_are_folded_with_their_rounding(seed: int) -> None:
    generator = np.random.default_rng(seed)
    network = curved_network(generator, 5)
    free = np.array([True, False, True, False, False])
    values = generator.normal(size=5) * 10.0 ** generator.uniform(-3, 3, size=5)
    box = Box(values[None].copy(), values[None].copy())
    box.lower[:, free] -= 0.1
    folded = network.fixed(free, values)
    part = Box(box.lower[:, free], box.upper[:, free])
    (first, *_) = preactivation_bounds(folded, part, "interval")
    exact = network.preactivations(sampled_points(generator, box, 100))[0]
    assert ((exact >= first.lower) & (exact <= first.upper)).all()
    assert (folded.layers[0].sizes >= np.abs(folded.layers[0].bias)).all()


def test_dead_units_go_and_partners_stay() -> None:
    for seed in itertools.islice(itertools.count(), 20):
        generator = np.random.default_rng(seed)
        network = curved_network(generator, 3)
        kept = [each.linear | each.curved for each in network.activations]
        if all(mask.any() for mask in kept):
            smaller = network.restricted(kept)
            assert [len(a) for a in smaller.activations] == [int(mask.sum()) for mask in kept]
            products = sum(len(a.products) for a in network.activations)
            assert sum(len(a.products) for a in smaller.activations) == products


def test_where_a_function_has_no_value_nothing_is_proved() -> None:
    from tasks.core.networks.curves import Kind
    from tasks.core.tensors.lowering import Lowering

    for kind in (Kind.RECIPROCAL, Kind.LOG, Kind.SQRT):
        lowering = Lowering((1, 1))
        network = lowering.network(lowering.curved(kind, lowering.input))
        box = Box(np.array([[-1.0]]), np.array([[2.0]]))
        for method in METHODS:
            hidden = preactivation_bounds(network, box, method)
            lower = linear_lower_bounds(network, 1, np.array([[1.0], [-1.0]]), hidden, box)
            assert (lower == -np.inf).all()
    assert isinstance(network.layers[0], Affine)
