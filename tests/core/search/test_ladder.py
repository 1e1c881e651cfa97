"""The ladder decides as the exact oracle does: no wrong verdict, no margin that is too high."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Literal, get_args

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.attacks import falsification
from tasks.core.networks.block_matrix import BlockMatrix
from tasks.core.networks.matrices import DenseMatrix
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.specification import LinfBall, Property, UnsafeRegion
from tasks.core.search.ladder import Answer, decide
from tasks.core.verdicts import WITNESSED_ONLY, DecidedBy, Engine, Verdict
from tests.networks import (
    KINDS,
    Kind,
    box,
    convolutional,
    hand_computed,
    random_network,
    random_network_of,
    random_property,
    sampled_points,
)
from tests.oracle import least_excess_at

CASES = int(os.environ.get("CERTIFLOW_ORACLE_CASES", "200"))
ENGINES: tuple[Engine, ...] = get_args(Engine)
TIMEOUT_SECONDS = 10.0
ORACLE_TOLERANCE = 1e-6
NEAR_BOUNDARY = 1e-4


def cube(inputs: int, radius: float) -> LinfBall:
    return LinfBall(np.full((1, inputs), -radius), np.full((1, inputs), radius))


def single(region: UnsafeRegion) -> Property:
    return Property((region,))


def seen_by(network: ReluNetwork, prop: Property) -> ReluNetwork:
    """The network whose outputs the property's rows speak of."""
    mixed = prop.unsafe[0].rows.shape[1] > network.num_outputs
    return network.with_inputs() if mixed else network


def least_found(
    generator: np.random.Generator, network: ReluNetwork, region: UnsafeRegion, start: FloatArray
) -> float:
    """The least excess that descent finds from the oracle's point and 20 restarts."""
    starts = np.vstack([start, sampled_points(generator, region.box, 20)])
    return float(falsification.descend(network, region.box, region, starts, num_steps=60)[1].min())


def check_falsified(network: ReluNetwork, prop: Property, answer: Answer) -> None:
    """The first candidate lies in its region's box and reaches the region when evaluated alone."""
    assert answer.region is not None
    region, point = prop.unsafe[answer.region], answer.candidates[:1]
    assert region.box.contains(point)[0]
    assert region.excess(network(point))[0] <= 0


def check_answer(
    generator: np.random.Generator,
    network: ReluNetwork,
    prop: Property,
    answer: Answer,
    exact: float,
) -> None:
    if answer.verdict is Verdict.FALSIFIED:
        check_falsified(network, prop, answer)
        assert exact < ORACLE_TOLERANCE
    elif answer.verdict is Verdict.ROBUST:
        assert exact > -ORACLE_TOLERANCE
        assert answer.margin is not None
        assert 0 < answer.margin <= exact + ORACLE_TOLERANCE
    else:
        assert answer.verdict in {Verdict.UNKNOWN, Verdict.TIMEOUT}, answer.reason


@pytest.mark.usefixtures("in_blocks")
@pytest.mark.parametrize("num_inputs", ["few", "many"])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_exact_oracle(kind: Kind, num_inputs: Literal["few", "many"]) -> None:
    """All engines on the same random properties; the ladder leaves none but near zero."""
    verdicts: Counter[Verdict] = Counter()
    stages: Counter[DecidedBy] = Counter()
    for case in range(-(-CASES // 6)):
        generator = np.random.default_rng([KINDS.index(kind), num_inputs == "many", case])
        network = random_network_of(generator, kind, num_inputs)
        kept = {type(layer.matrix) for layer in network.layers}
        assert kept == {DenseMatrix if kind == "dense" else BlockMatrix}
        prop = random_property(generator, network)
        whole = seen_by(network, prop)
        found = [least_excess_at(whole, region) for region in prop.unsafe]
        exact = min(value for value, _ in found)
        answers = {
            engine: decide(network, prop, engine=engine, timeout_seconds=TIMEOUT_SECONDS)
            for engine in ENGINES
        }
        for answer in answers.values():
            check_answer(generator, whole, prop, answer, exact)
        given = {answer.verdict for answer in answers.values()}
        assert not given >= {Verdict.ROBUST, Verdict.FALSIFIED}
        if Verdict.ROBUST in given:
            for region, (_, start) in zip(prop.unsafe, found, strict=True):
                assert least_found(generator, whole, region, start) > 0
        if answers["ladder"].verdict is Verdict.UNKNOWN:
            witnessed = answers["ladder"].reason == WITNESSED_ONLY  # with more time, proved
            assert abs(exact) < NEAR_BOUNDARY or (witnessed and exact > 0)
        verdicts[answers["ladder"].verdict] += 1
        stages[answers["ladder"].decided_by] += 1
    total = verdicts.total()
    assert verdicts[Verdict.UNKNOWN] <= max(1, total / 50)
    if total >= 30:  # the cases are worth something
        assert verdicts[Verdict.ROBUST] >= total / 5
        assert verdicts[Verdict.FALSIFIED] >= total / 5
        assert stages[DecidedBy.BRANCH_AND_BOUND] >= 1


def test_hand_computed() -> None:
    """Margin relu(x1 + x2) + 1 - relu(x1 - x2): at least 2/3 on the first box, 0 at (-1, -2)."""
    near = Property.robustness(box([0.0, 0.0], [1.0, 0.5]), 0, 2)
    answer = decide(hand_computed(), near, timeout_seconds=TIMEOUT_SECONDS)
    assert answer.verdict is Verdict.ROBUST
    assert answer.margin == pytest.approx(2 / 3)
    far = Property.robustness(box([-1.0, -2.0], [1.0, 0.5]), 0, 2)
    answer = decide(hand_computed(), far, timeout_seconds=TIMEOUT_SECONDS)
    assert answer.verdict is Verdict.FALSIFIED
    check_falsified(hand_computed(), far, answer)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_region_named_is_the_one_reached(engine: Engine) -> None:
    """Two boxes, taken in turn; only the third region, in the second box, is reached."""
    identity = ReluNetwork((Affine(np.eye(2), np.zeros(2)),))
    row, one, other = np.array([[1.0, 0.0]]), box([1.0, 0.0], [2.0, 1.0]), box([3.0] * 2, [4.0] * 2)
    offsets = (-0.5, -2.5, -3.5, 0.0)
    prop = Property(
        tuple(
            UnsafeRegion(ball, row, np.array([offset]))
            for ball, offset in zip((one, other, other, one), offsets, strict=True)
        )
    )
    answer = decide(identity, prop, engine=engine, timeout_seconds=TIMEOUT_SECONDS)
    assert (answer.verdict, answer.region) == (Verdict.FALSIFIED, 2)
    check_falsified(identity, prop, answer)


@pytest.mark.parametrize("engine", ENGINES)
def test_conjunction_is_reached_only_where_all_rows_are(engine: Engine) -> None:
    """x1 <= 0 and x1 >= gap are each reached in the box, but never both."""
    network = ReluNetwork((Affine(np.array([[1.0, 0.0]]), np.zeros(1)),))
    rows = np.array([[1.0], [-1.0]])
    for gap, allowed in ((0.5, {Verdict.ROBUST, Verdict.UNKNOWN}), (-0.5, {Verdict.FALSIFIED})):
        region = UnsafeRegion(box([-1.0] * 2, [1.0] * 2), rows, np.array([0.0, gap]))
        answer = decide(network, single(region), engine=engine, timeout_seconds=TIMEOUT_SECONDS)
        assert answer.verdict in allowed
        assert engine == "bounds" or answer.verdict is not Verdict.UNKNOWN


@pytest.mark.parametrize("seed", range(6))
def test_conjunction_over_a_network_without_hidden_layers(seed: int) -> None:
    """More than twelve inputs, so phases would be split: there are none."""
    generator = np.random.default_rng(seed)
    network = random_network(generator, (15, 4))
    offsets = generator.uniform(0, 4, 3)
    region = UnsafeRegion(cube(15, 1.0), generator.normal(size=(3, 4)), offsets)
    answer = decide(network, single(region), timeout_seconds=TIMEOUT_SECONDS)
    check_answer(generator, network, single(region), answer, least_excess_at(network, region)[0])


def test_regions_of_unlike_numbers_of_rows() -> None:
    """One, two and three rows over one box, close to being reached: the search mixes them."""
    branched = 0
    for seed in range(24):
        generator = np.random.default_rng(seed)
        network = random_network(generator, (15, 12, 12, 4))
        ball = cube(15, 0.5)
        outputs = network(sampled_points(generator, ball, 2000))
        regions = []
        for count in (1, 3, 2):
            rows = generator.normal(size=(count, 4))
            offset = 0.9 - (outputs @ rows.T).max(axis=1).min()
            regions.append(UnsafeRegion(ball, rows, np.full(count, offset)))
        prop = Property(tuple(regions))
        answer = decide(network, prop, timeout_seconds=2.0)
        assert answer.verdict in {Verdict.FALSIFIED, Verdict.ROBUST, Verdict.TIMEOUT}
        if answer.verdict is Verdict.FALSIFIED:
            check_falsified(network, prop, answer)
        if answer.verdict is Verdict.ROBUST:
            starts = sampled_points(generator, ball, 20)
            for region in regions:
                found = falsification.descend(network, ball, region, starts, num_steps=60)[1]
                assert answer.margin is not None
                assert answer.margin <= found.min()
        branched += answer.decided_by is DecidedBy.BRANCH_AND_BOUND
        if branched == 4:
            break
    assert branched == 4


def test_rounded_weights_of_a_conjunction_prove_nothing() -> None:
    """`rows * (x1 - t) <= 0` in every row at x1 = t exactly, though each weighted sum is rounded.

    The rows sum to zero, so with equal weights the bound is nothing but rounding error.
    """
    generator = np.random.default_rng(0)
    network = ReluNetwork(
        (Affine(np.eye(1, 13), np.zeros(1)), Affine(np.eye(1), np.zeros(1))),
        (np.ones(1, dtype=bool),),
    )
    for _ in range(60):
        rows = generator.integers(-9, 10, size=int(generator.integers(2, 6))).astype(float)
        rows[-1] -= rows.sum()
        t = float(generator.integers(1, 2**40)) / 2**40  # rows * t are exact
        lower, upper, point = np.zeros((3, 1, 13))
        lower[0, 0], upper[0, 0] = t - generator.random() * 0.1, t + generator.random() * 0.1
        point[0, 0] = t
        region = UnsafeRegion(LinfBall(lower, upper), rows[:, None], -rows * t)
        assert region.excess(network(point))[0] == 0
        answer = decide(network, single(region), timeout_seconds=0.02)
        assert answer.verdict is not Verdict.ROBUST


def test_margin_is_the_least_of_all_regions_over_all_boxes() -> None:
    """|x| + 0.01 and 1000 |x| + 1: the first is excluded early in every part of the box."""
    network = ReluNetwork(
        (
            Affine(np.ones((2, 1)), np.array([0.0, 2.0])),
            Affine(np.array([[2.0, -1.0], [2000.0, -1000.0]]), np.array([2.0, 2000.0])),
        )
    )
    for upper in (1.2, 1.22, 1.24, 1.27):
        ball = box([-1.0], [upper])
        regions = tuple(
            UnsafeRegion(ball, row[None], np.array([offset]))
            for row, offset in zip(np.eye(2), (0.01, 1.0), strict=True)
        )
        answer = decide(network, Property(regions), timeout_seconds=TIMEOUT_SECONDS)
        assert (answer.verdict, answer.decided_by) == (Verdict.ROBUST, DecidedBy.BRANCH_AND_BOUND)
        assert answer.margin is not None
        assert answer.margin <= 0.01


def test_candidates_reach_their_region_when_evaluated_alone() -> None:
    """Both outputs are one sum in two orders, so their difference is rounding error alone.

    It depends on the size of the batch: what a batch finds must be checked alone.
    """
    falsified = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        inputs = int(generator.integers(3, 9))
        first = random_network(generator, (inputs, 17)).layers[0]
        order, last = generator.permutation(17), generator.normal(size=17)
        weight = np.zeros((2, 34))
        weight[0, :17], weight[1, 17:] = last, last[order]
        network = ReluNetwork(
            (
                Affine(
                    np.vstack([first.weight, first.weight[order]]),
                    np.concatenate([first.bias, first.bias[order]]),
                ),
                Affine(weight, np.zeros(2)),
            )
        )
        region = UnsafeRegion(cube(inputs, 0.5), np.array([[1.0, -1.0]]), np.zeros(1))
        answer = decide(network, single(region), timeout_seconds=0.1)
        assert answer.verdict is not Verdict.ROBUST
        if answer.verdict is Verdict.FALSIFIED:
            check_falsified(network, single(region), answer)
            falsified += 1
    assert falsified >= 20


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("inputs", [3, 14])
def test_point_box_gives_the_forward_pass(engine: Engine, inputs: int) -> None:
    generator = np.random.default_rng(5)
    for _ in range(5):
        network = random_network(generator, (inputs, 7, 7, 3))
        point = generator.normal(size=(1, inputs))
        row = generator.normal(size=(1, 3))
        value = float(row[0] @ network(point)[0])
        for gap, verdict in ((1e-9, Verdict.ROBUST), (-1e-9, Verdict.FALSIFIED)):
            region = UnsafeRegion(LinfBall(point, point), row, np.array([gap - value]))
            answer = decide(network, single(region), engine=engine, timeout_seconds=5.0)
            assert answer.verdict is verdict
            assert answer.margin is None or answer.margin <= gap + 1e-12


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("inputs", [3, 14])
@pytest.mark.parametrize("scale", [1e20, 1e150, 1e200, 1e300])
def test_overflow_is_never_robust(engine: Engine, inputs: int, scale: float) -> None:
    """Weights whose products leave float32 or float64: infinities and NaNs prove nothing."""
    generator = np.random.default_rng(3)
    network = random_network(generator, (inputs, 5, 5, 2))
    network = ReluNetwork(tuple(Affine(a.weight * scale, a.bias) for a in network.layers))
    ball = cube(inputs, 0.5)
    # each row alone is below zero somewhere: the network is nearly odd in its last layer
    rows = np.array([[1.0, 0.0], [-1.0, 0.0]])
    prop = Property(tuple(UnsafeRegion(ball, row[None], np.zeros(1)) for row in rows))
    with np.errstate(all="ignore"):
        answer = decide(network, prop, engine=engine, timeout_seconds=1.0)
    assert answer.verdict is not Verdict.ROBUST


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("inputs", [2, 13])
def test_a_tie_everywhere_is_never_robust(engine: Engine, inputs: int) -> None:
    """All logits are zero at every point: a tie reaches the region."""
    zero = Affine(np.zeros((2, inputs)), np.zeros(2))
    network = ReluNetwork((Affine(np.eye(inputs), np.zeros(inputs)), zero))
    prop = Property.robustness(cube(inputs, 1.0), 0, 2)
    answer = decide(network, prop, engine=engine, timeout_seconds=1.0)
    assert answer.verdict in {Verdict.FALSIFIED, Verdict.UNKNOWN}


@pytest.mark.parametrize("engine", ENGINES)
def test_no_unsafe_region_is_no_proof(engine: Engine) -> None:
    answer = decide(hand_computed(), Property(()), engine=engine, timeout_seconds=1.0)
    assert answer.verdict is Verdict.UNKNOWN
    assert answer.reason


def hard_property(inputs: int) -> tuple[ReluNetwork, Property]:
    network = random_network(np.random.default_rng(9), (inputs, 40, 40, 1))
    return network, nearly_unsafe(network, cube(inputs, 2.0))


def nearly_unsafe(network: ReluNetwork, ball: LinfBall) -> Property:
    """Of the first output; safe by a little, so that only a long search could prove it."""
    row = np.eye(1, network.num_outputs)
    region = UnsafeRegion(ball, row, np.zeros(1))
    starts = sampled_points(np.random.default_rng(9), ball, 200)
    least = falsification.descend(network, ball, region, starts, num_steps=100)[1].min()
    return single(UnsafeRegion(ball, row, np.array([0.2 - least])))


@pytest.mark.parametrize("inputs", [10, 20])
@pytest.mark.parametrize("engine", ENGINES)
def test_no_time_is_no_proof(engine: Engine, inputs: int) -> None:
    network, prop = hard_property(inputs)
    answer = decide(network, prop, engine=engine, timeout_seconds=0.0)
    assert answer.verdict in {Verdict.TIMEOUT, Verdict.UNKNOWN}
    assert answer.reason


@pytest.mark.parametrize("inputs", [10, 20])
def test_the_deadline_is_kept(inputs: int) -> None:
    network, prop = hard_property(inputs)
    decide(network, prop, timeout_seconds=0.0)  # compiles the kernel
    started = time.monotonic()
    answer = decide(network, prop, timeout_seconds=1.0)
    assert answer.verdict is not Verdict.ROBUST
    assert time.monotonic() - started < 4.0  # Marabou counts whole seconds
    assert answer.stage_seconds["branch_and_bound"] < 1.5


@pytest.mark.parametrize("inputs", [10, 20])
def test_without_marabou_the_search_has_all_the_time_and_the_last_word(inputs: int) -> None:
    network, prop = hard_property(inputs)
    answer = decide(network, prop, timeout_seconds=0.5, with_marabou=False)
    assert (answer.verdict, answer.decided_by) == (Verdict.TIMEOUT, DecidedBy.BRANCH_AND_BOUND)
    assert "marabou" not in answer.stage_seconds
    assert " open of " in answer.reason


def test_every_stage_keeps_the_deadline_on_a_convolutional_network() -> None:
    """None of them decides this property in these limits."""
    network = convolutional(np.random.default_rng(0), (28, 28), (16, 32), 100, 10)
    assert isinstance(network.layers[1].matrix, BlockMatrix)
    center = np.random.default_rng(1).random((1, 784))
    prop = nearly_unsafe(network, LinfBall.around(center, 0.1))
    for limit in (0.0, 0.3, 1.0, 3.0):
        started = time.monotonic()
        answer = decide(network, prop, timeout_seconds=limit, with_marabou=False)
        assert answer.verdict is Verdict.TIMEOUT
        assert time.monotonic() - started < limit + 15.0  # a busy machine; alone it is 0.4


def test_point_that_the_whole_network_does_not_reach_is_a_candidate_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without its dead units a network rounds otherwise: ties are for the deployed model."""
    network, ball = hand_computed(), box([-0.5, -0.45], [1.0, 0.5])
    point = np.array([0.0, 0.0])
    monkeypatch.setattr(falsification, "search", lambda *arguments, **settings: point)
    prop = Property.robustness(ball, 0, 2)
    assert prop.unsafe[0].excess(network(point[None]))[0] > 0
    answer = decide(network, prop, engine="bounds", timeout_seconds=5)
    assert answer.verdict is Verdict.UNKNOWN
    np.testing.assert_array_equal(answer.candidates, [point, point])  # of both attacks
