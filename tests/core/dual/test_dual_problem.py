"""Whatever is chosen, the certified bound is sound: against samples, the oracle and fractions."""

from __future__ import annotations

from fractions import Fraction

import numba
import numpy as np
import pytest

from tasks.core.bounds.linear import preactivation_bounds
from tasks.core.bounds.relaxations import Bounds
from tasks.core.dual import dual_problem
from tasks.core.dual.ascent import Limits
from tasks.core.dual.choices import Choices
from tasks.core.dual.dual_problem import DualProblem
from tasks.core.dual.subproblems import SignArray, Subproblems
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import UnsafeRegion
from tests.networks import KINDS, Kind, random_network_of, sampled_points
from tests.oracle import least_excess


def where_split(bounds: Bounds, signs: SignArray) -> Bounds:
    """The bounds where the splits hold."""
    lower = np.where(signs > 0, np.maximum(bounds.lower, 0), bounds.lower)
    return Bounds(lower, np.where(signs < 0, np.minimum(bounds.upper, 0), bounds.upper))


def random_region(generator: np.random.Generator, network: ReluNetwork) -> UnsafeRegion:
    center = generator.normal(size=(1, network.num_inputs)) * 0.5
    radius = generator.uniform(0.05, 0.8)
    rows = generator.normal(size=(int(generator.integers(1, 4)), network.num_outputs))
    return UnsafeRegion(Box(center - radius, center + radius), rows, rows.sum(axis=1) * 0.1)


def random_choices(generator: np.random.Generator, problem: DualProblem, rows: int) -> Choices:
    """Slopes and multipliers also out of their ranges, weights that do not sum to 1."""
    units = problem.num_units
    first = len(problem.network.layers[0].bias)
    return Choices(
        generator.uniform(-0.5, 1.5, size=(1, units)).astype(np.float32),
        (generator.normal(size=(1, units)) * generator.choice([0.1, 1.0])).astype(np.float32),
        np.append(generator.uniform(-0.5, 2, size=rows - 1), 1.0)[None].astype(np.float32),
        generator.normal(0.5, 0.5, size=(1, first)).astype(np.float32),
        generator.normal(0, 0.5, size=(1, problem.network.num_inputs)).astype(np.float32),
        np.zeros((1, 0), dtype=np.float32),
    )


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("kind", KINDS)
def test_certified_is_sound_for_any_choices_and_splits(kind: Kind) -> None:
    """Signs are those of a sampled point, so that some samples satisfy the splits."""
    satisfied = 0
    for case in range(40):
        generator = np.random.default_rng([KINDS.index(kind), case])
        network = random_network_of(generator, kind, "few")
        region = random_region(generator, network)
        problem = DualProblem(
            network, region.box, preactivation_bounds(network, region.box, "crown")
        )
        points = sampled_points(generator, region.box, 400)
        hidden = np.concatenate([np.zeros((400, 0)), *network.preactivations(points)[:-1]], axis=1)
        excess = region.excess(network(points))
        exact = least_excess(network, region)
        for count in (0, 1, 2, 4):
            signs = np.zeros((1, problem.num_units), dtype=np.int8)
            split = generator.permutation(problem.num_units)[:count]
            signs[0, split] = np.where(hidden[0, split] >= 0, 1, -1)
            problems = Subproblems(
                region.rows[None], region.offsets[None], signs, where_split(problem.bounds, signs)
            )
            holds = (signs * hidden >= 0).all(axis=1)
            satisfied += int(holds.sum())
            for _ in range(5):
                choices = random_choices(generator, problem, len(region.rows))
                lower = problem.certified(problems, choices)[0]
                assert lower <= excess[holds].min()
                assert count > 0 or lower <= exact + 1e-6
            start = problem.initial_choices(problems)
            found = problem.optimise(problems, start, Limits(10, np.inf))
            before = problem.estimated(problems, start)[0]
            assert before <= problem.estimated(problems, found.choices)[0] + 1e-4
            assert problem.certified(problems, found.choices)[0] <= excess[holds].min()
    assert satisfied > 5000


def test_planes_are_rounded_outwards() -> None:
    """The bound of minus one ReLU is tight, so that rounding alone could lift it over the minimum.

    That is minus the value at the box's highest corner, in fractions.
    """
    tight = 0
    for seed in range(100):
        generator = np.random.default_rng(seed)
        weight, bias = generator.normal(size=(1, 20)), generator.normal(size=1)
        network = ReluNetwork((Affine(weight, bias), Affine(-np.ones((1, 1)), np.zeros(1))))
        center, radius = generator.normal(size=(1, 20)), generator.uniform(0.1, 1, size=(1, 20))
        box = Box(center - radius, center + radius)
        corner = np.where(weight[0] > 0, box.upper[0], box.lower[0])
        terms = zip(weight[0].tolist(), corner.tolist(), strict=True)
        least = -sum((Fraction(w) * Fraction(x) for w, x in terms), Fraction(float(bias[0])))
        hidden = preactivation_bounds(network, box, "crown")
        problem = DualProblem(network, box, hidden)
        signs = np.zeros((1, 1), dtype=np.int8)
        problems = Subproblems(np.ones((1, 1, 1)), np.zeros((1, 1)), signs, problem.bounds)
        lower = problem.certified(problems, problem.initial_choices(problems))[0]
        assert Fraction(float(lower)) <= min(least, 0)
        tight += bool(hidden[0].unstable(network.activations[0])) and lower >= float(least) - 1e-6
    assert tight > 80


@pytest.mark.parametrize(("lower", "upper"), [(np.nan, 1.0), (-1.0, np.nan), (np.nan, np.nan)])
def test_a_hidden_bound_that_is_nan_proves_nothing(lower: float, upper: float) -> None:
    """Although a plane needs no hidden bound: what is NaN hides something that went wrong."""
    network = ReluNetwork((Affine(np.eye(2), np.zeros(2)), Affine(np.ones((1, 2)), np.ones(1))))
    ball = Box(np.full((1, 2), -1.0), np.ones((1, 2)))
    hidden = [Bounds(np.array([[lower, -1.0]]), np.array([[upper, 1.0]]))]
    problem = DualProblem(network, ball, hidden)
    signs = np.zeros((1, 2), dtype=np.int8)
    problems = Subproblems(np.ones((1, 1, 1)), np.zeros((1, 1)), signs, problem.bounds)
    with np.errstate(invalid="ignore"):
        found = problem.optimise(problems, problem.initial_choices(problems), Limits(3))
        start = problem.initial_choices(problems)
        lowers = [problem.certified(problems, some)[0] for some in (start, found.choices)]
    assert not any(value > 0 for value in lowers)


def several_problems(
    generator: np.random.Generator, kind: Kind
) -> tuple[DualProblem, Subproblems, Choices]:
    """Seven regions of one box, each with a split."""
    network = random_network_of(generator, kind, "many")
    center = generator.normal(size=(1, network.num_inputs)) * 0.5
    ball = Box(center - 0.4, center + 0.4)
    problem = DualProblem(network, ball, preactivation_bounds(network, ball, "crown"))
    signs = np.zeros((7, problem.num_units), dtype=np.int8)
    units = generator.permutation(np.flatnonzero(problem.splittable(problem.bounds)[0]))
    if len(units):
        signs[np.arange(7), np.resize(units, 7)] = generator.choice([-1, 1], size=7)
    bounds = where_split(problem.bounds[np.zeros(7, dtype=np.intp)], signs)
    rows = generator.normal(size=(7, 2, network.num_outputs))
    problems = Subproblems(rows, generator.normal(size=(7, 2)), signs, bounds)
    return problem, problems, problem.initial_choices(problems)


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_subproblem_is_bounded_alike_alone_and_in_any_batch(
    kind: Kind, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a batch is parted, and whichever others are left on the way."""
    for case in range(5):
        generator = np.random.default_rng([KINDS.index(kind), case])
        problem, problems, start = several_problems(generator, kind)
        stop = float(np.median(problem.estimated(problems, start))) + 0.05
        monkeypatch.setattr(dual_problem, "AT_ONCE", 100)
        whole = problem.optimise(problems, start, Limits(6, stop))
        monkeypatch.setattr(dual_problem, "AT_ONCE", 2)
        monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", num_threads)
        parted = problem.optimise(problems, start, Limits(6, stop))
        expected = np.minimum(whole.estimates, stop)  # beyond it, steps are taken or not
        np.testing.assert_allclose(np.minimum(parted.estimates, stop), expected, atol=1e-4)
        for row in range(7):
            at = slice(row, row + 1)
            alone = problem.optimise(problems[at], start[at], Limits(6, stop))
            np.testing.assert_allclose(np.minimum(alone.estimates, stop), expected[at], atol=1e-4)
        proved = problem.certified(problems, whole.choices)
        assert (proved >= whole.estimates - 1e-3).all()


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("kind", KINDS)
def test_estimates_of_splits_are_those_of_split_subproblems(kind: Kind) -> None:
    compared = 0
    for case in range(10):
        generator = np.random.default_rng([KINDS.index(kind), case])
        problem, problems, start = several_problems(generator, kind)
        left = problem.splittable(problems.bounds) & (problems.signs == 0)
        if left.sum(axis=1).min() < 3:
            continue
        units = np.stack([generator.permutation(np.flatnonzero(row))[:3] for row in left])
        found = problem.estimated_splits(problems, start, units)
        for place, side in enumerate((1, -1)):
            for rank in range(units.shape[1]):
                signs = problems.signs.copy()
                signs[np.arange(7), units[:, rank]] = side
                bounds = where_split(problems.bounds, signs)
                parts = Subproblems(problems.rows, problems.offsets, signs, bounds)
                expected = problem.estimated(parts, start)
                np.testing.assert_allclose(found[place, :, rank], expected, atol=1e-4)
                compared += 7
    assert compared > 100
