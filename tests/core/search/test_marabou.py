"""Marabou in our encoding: against an exact oracle, and where the raw encoding is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tasks.core.arrays import FloatArray
from tasks.core.attacks.falsification import descend
from tasks.core.bounds.linear import margin_lower_bounds, preactivation_bounds
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.box import Box
from tasks.core.properties.specification import Property, UnsafeRegion, margin_rows
from tasks.core.search import ladder, marabou
from tasks.core.sources import catalogue
from tasks.core.verdicts import NEAR_BOUNDARY, WITNESSED_ONLY, DecidedBy, Engine, Verdict
from tests import raw_marabou
from tests.networks import (
    ball_around,
    box,
    hand_computed,
    random_case,
    random_network,
    sampled_points,
)
from tests.oracle import least_margin

TIMEOUT_SECONDS = 20.0
AMBIGUOUS = 1e-5  # margins at which the oracle's own tolerance decides

Case = tuple[ReluNetwork, Box, int]


def decide(
    network: ReluNetwork, ball: Box, label: int, timeout_seconds: float = TIMEOUT_SECONDS
) -> marabou.MarabouAnswer:
    regions = Property.robustness(ball, label, network.num_outputs).unsafe
    return marabou.decide(network, ball, regions, timeout_seconds=timeout_seconds)


def polish(network: ReluNetwork, ball: Box, row: FloatArray, start: FloatArray) -> FloatArray:
    region = UnsafeRegion(ball, row[None], np.zeros(1))
    return descend(network, ball, region, start[None], num_steps=100)[0][0]


def margin_at(network: ReluNetwork, point: FloatArray, label: int) -> float:
    return float((margin_rows([label], network.num_outputs)[0] @ network(point[None])[0]).min())


def test_hand_computed_network() -> None:
    """y0 - y1 = relu(x1 + x2) + 1 - relu(x1 - x2): least at x2 = -1, where it is 1 - (x1 + 1)."""
    witness = decide(hand_computed(), box([0.0, 0.0], [1.0, 0.5]), 0)
    assert (witness.verdict, witness.reason) == (Verdict.UNKNOWN, WITNESSED_ONLY)
    answer = decide(hand_computed(), box([-1.0, -1.0], [1.0, 0.5]), 0)
    assert answer.verdict is Verdict.FALSIFIED
    assert answer.region == 0
    assert margin_at(hand_computed(), answer.candidates[0], 0) < 0


def test_agrees_with_the_exact_oracle() -> None:
    """250 random networks: no wrong answer, no undecided ball, none witnessed that breaks."""
    generator = np.random.default_rng(11)
    verdicts: Counter[str] = Counter()
    for _ in range(250):
        network, center, label, epsilon = random_case(generator)
        ball = ball_around(center[None], epsilon)
        exact, answer = least_margin(network, ball, label), decide(network, ball, label)
        if abs(exact) < AMBIGUOUS:
            continue
        is_witnessed = answer.reason == WITNESSED_ONLY
        verdicts["witnessed" if is_witnessed else answer.verdict.value] += 1
        if exact > 0:  # robust is what a constant row says
            assert answer.verdict in {Verdict.ROBUST, Verdict.UNKNOWN}
        else:
            assert answer.verdict in {Verdict.FALSIFIED, Verdict.UNKNOWN}
        if is_witnessed:
            assert exact > 0
            attacks = [
                polish(network, ball, row, start)
                for row in margin_rows([label], 3)[0]
                for start in sampled_points(generator, ball, 4)
            ]
            assert min(margin_at(network, point, label) for point in attacks) > 0
        if answer.verdict is Verdict.FALSIFIED:
            assert margin_at(network, answer.candidates[0], label) < 0
            assert ball.contains(answer.candidates[:1])[0]
    assert verdicts["witnessed"] + verdicts["robust"] > 100
    assert verdicts["robust"] < 10
    assert verdicts["falsified"] > 50
    assert verdicts["unknown"] <= 5


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # a1 = relu(x - 0.0005), a2 = x + 1; margin a2 - a1 - 1.0002: -0.0002 at x = 0, but 0.0003
        # everywhere if a1 were x - 0.0005
        pytest.param(
            Affine(np.array([[1.0], [1.0]]), np.array([-0.0005, 1.0])),
            Affine(np.array([[-1.0, 1.0], [0.0, 0.0]]), np.array([-1.0002, 0.0])),
            id="barely negative",
        ),
        # a1 = relu(x - 0.9995); margin 0.0003 - a1: -0.0002 at x = 1, but 0.0003 if a1 were 0
        pytest.param(
            Affine(np.array([[1.0]]), np.array([-0.9995])),
            Affine(np.array([[-1.0], [0.0]]), np.array([0.0003, 0.0])),
            id="barely positive",
        ),
    ],
)
def test_barely_unstable_neurons_are_not_made_stable(first: Affine, second: Affine) -> None:
    network, ball = ReluNetwork((first, second)), box([0.0], [1.0])
    assert least_margin(network, ball, 0) == pytest.approx(-0.0002, abs=1e-6)
    assert decide(network, ball, 0).verdict is not Verdict.ROBUST


def test_overflow_proves_nothing() -> None:
    """Weights whose products leave float64: bounds and solver see infinities and NaNs."""
    generator = np.random.default_rng(0)
    for scale in (1e200, 1e300):
        network = random_network(generator, (3, 5, 5, 2))
        network = ReluNetwork(tuple(Affine(a.weight * scale, a.bias) for a in network.layers))
        ball = ball_around(generator.random((1, 3)), 0.3)
        with np.errstate(all="ignore"):
            assert decide(network, ball, 0).verdict is not Verdict.ROBUST
            hidden = preactivation_bounds(network, ball, "crown")
            assert not (margin_lower_bounds(network, ball, [0], hidden) > 0).all()


def test_tie_everywhere_is_not_robust() -> None:
    """All logits are zero at every point: the margin's range and its rounding error are zero."""
    network = ReluNetwork((Affine(np.eye(2), np.zeros(2)), Affine(np.zeros((2, 2)), np.zeros(2))))
    with np.errstate(all="raise"):
        answer = decide(network, box([0.0, 0.0], [1.0, 1.0]), 0)
    assert (answer.verdict, answer.reason) == (Verdict.UNKNOWN, NEAR_BOUNDARY)


def test_no_time_is_a_timeout_and_no_proof() -> None:
    network, ball = hand_computed(), box([0.0, 0.0], [1.0, 0.5])
    assert decide(network, ball, 0, timeout_seconds=0).verdict is Verdict.TIMEOUT


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("unsat", Verdict.UNKNOWN),
        ("sat", Verdict.UNKNOWN),  # a candidate that replay has not confirmed
        ("TIMEOUT", Verdict.TIMEOUT),
        ("UNKNOWN", Verdict.UNKNOWN),
        ("ERROR", Verdict.ERROR),
        ("QUIT_REQUESTED", Verdict.ERROR),
        ("", Verdict.ERROR),
        ("something new", Verdict.ERROR),
    ],
)
def test_every_answer_of_the_solver(
    code: str, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None proves; an answer nobody has seen is an error."""
    ball = box([0.2, 0.0], [0.3, 0.1])

    def answer(self: object, *arguments: object) -> tuple[str, FloatArray]:
        return code, ball.lower[0]

    monkeypatch.setattr("tasks.core.search.marabou._Query.ask_at_most", answer)
    assert decide(hand_computed(), ball, 0).verdict is verdict


def test_what_marabou_only_witnesses_is_proved_again() -> None:
    """By the other stages, in the time that is left; without it the answer stays open."""
    prop = Property.robustness(box([0.2, 0.0], [0.3, 0.1]), 0, 2)
    answer = ladder.decide(hand_computed(), prop, engine="marabou", timeout_seconds=5)
    assert (answer.verdict, answer.witness) == (Verdict.ROBUST, "confirmed")
    assert answer.decided_by is not DecidedBy.MARABOU
    open_answer = ladder.decide(
        hand_computed(), prop, engine="marabou", timeout_seconds=5, prove_again=False
    )
    assert (open_answer.verdict, open_answer.reason) == (
        Verdict.UNKNOWN,
        WITNESSED_ONLY,
    )


CONSTANT_ROWS = {  # of y_2, which is 1 everywhere, with whether the region can be reached by it
    "tight": ([0.0, 0.0, 1.0], -1.0, True),
    "hardly": ([0.0, 0.0, 1.0], -1 - 1e-13, True),
    "loose": ([0.0, 0.0, 1.0], -100.0, True),
    "zeros": ([0.0, 0.0, 0.0], -1e-10, True),
    "varies a little": ([1e-14, 0.0, 1.0], -1.001, True),
    "positive": ([0.0, 0.0, 1.0], -0.9, False),
}


@pytest.mark.parametrize("name", CONSTANT_ROWS)
@pytest.mark.parametrize("engine", ["marabou", "ladder"])
def test_constant_rows_of_a_conjunction(name: str, engine: Engine) -> None:
    """A fifth of the box has y_0 below the threshold; a row that always holds changes nothing."""
    network = ReluNetwork(
        (
            Affine(np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 0.5]]), np.array([0.1, 0.0, 0.2])),
            Affine(
                np.array([[1.0, -1.0, 0.5], [0.3, 0.7, -1.0], [0.0, 0.0, 0.0]]),
                np.array([0.0, 0.1, 1.0]),
            ),
        )
    )
    ball = box([-1.0, -1.0], [1.0, 1.0])
    seen = network(sampled_points(np.random.default_rng(0), ball, 2000))[:, 0]
    row, offset, reachable = CONSTANT_ROWS[name]
    rows = np.array([[1.0, 0.0, 0.0], row])
    region = UnsafeRegion(ball, rows, np.array([-np.quantile(seen, 0.2), offset]))
    answer = ladder.decide(network, Property((region,)), engine=engine, timeout_seconds=5)
    if not reachable:
        assert (answer.verdict, answer.margin) == (Verdict.ROBUST, pytest.approx(0.1))
    else:
        assert answer.verdict in {Verdict.FALSIFIED, Verdict.UNKNOWN}
        assert name == "tight" or answer.verdict is Verdict.FALSIFIED


@pytest.fixture(scope="module")
def decayed() -> ReluNetwork:
    """64-64-32-10 on the digits, trained with weight decay: many neurons have tiny weights."""
    import keras
    from keras import layers

    from tasks.core.readers.keras_network import relu_network

    data = catalogue.load("digits", Path("unused"))
    keras.utils.set_random_seed(0)
    decay = keras.regularizers.L2(1e-2)
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Flatten(),
            layers.Dense(64, activation="relu", kernel_regularizer=decay),
            layers.Dense(32, activation="relu", kernel_regularizer=decay),
            layers.Dense(10, kernel_regularizer=decay),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(data.train_inputs, data.train_labels, epochs=40, batch_size=32, verbose=0)
    return relu_network(model)


def broken_balls(network: ReluNetwork, count: int) -> Iterator[tuple[Box, int, FloatArray]]:
    """Balls around digits with a counterexample found by descent: (ball, label, margin row)."""
    data = catalogue.load("digits", Path("unused"))
    for image, label in zip(data.test_inputs, data.test_labels, strict=True):
        for epsilon in (0.1, 0.2):
            ball = ball_around(image[None], epsilon)
            rows = margin_rows([label], 10)[0]
            points = [polish(network, ball, row, image.ravel()) for row in rows]
            values = [
                row @ network(point[None])[0] for row, point in zip(rows, points, strict=True)
            ]
            if min(values) < -1e-3 and margin_at(network, image.ravel().astype(float), label) > 0:
                yield ball, int(label), rows[int(np.argmin(values))]
                count -= 1
                if count == 0:
                    return


def test_raw_encoding_is_wrong_where_ours_is_right(decayed: ReluNetwork) -> None:
    """Each of 100 queries has a known counterexample; `unsat` is false."""
    raw: Counter[str] = Counter()
    ours: Counter[Verdict] = Counter()
    for ball, label, row in broken_balls(decayed, 100):
        raw[raw_marabou.ask(decayed, ball, row)] += 1
        ours[decide(decayed, ball, label).verdict] += 1
    assert raw["unsat"] >= 10, "Marabou is cured: the encoding can be simplified"
    assert ours == {Verdict.FALSIFIED: 100}


def rescaled(network: ReluNetwork, scale: float) -> ReluNetwork:
    """First layer's weights and biases times `scale`, the second's divided: the same function."""
    first, second, *rest = network.layers
    return ReluNetwork(
        (
            Affine(first.weight * scale, first.bias * scale),
            Affine(second.weight / scale, second.bias),
            *rest,
        )
    )


def shrunk(network: ReluNetwork, scale: float) -> ReluNetwork:
    """All logits times `scale`: the same labels, tiny margins."""
    *rest, last = network.layers
    return ReluNetwork((*rest, Affine(last.weight * scale, last.bias * scale)))


def with_gap(network: ReluNetwork, ball: Box, label: int, gap: float) -> ReluNetwork:
    """The true logit's bias moved so that the least margin descent finds is exactly -gap."""
    rows = margin_rows([label], network.num_outputs)[0]
    center = (ball.lower[0] + ball.upper[0]) / 2
    points = [polish(network, ball, row, center) for row in rows]
    least = min(row @ network(p[None])[0] for row, p in zip(rows, points, strict=True))
    *rest, last = network.layers
    bias = last.bias.copy()
    bias[label] -= least + gap
    return ReluNetwork((*rest, Affine(last.weight, bias)))


def near_the_boundary(
    network: ReluNetwork, generator: np.random.Generator
) -> tuple[FloatArray, int] | None:
    """A point just on its label's side of a decision boundary, by bisection, if there is one."""
    points = generator.random((50, network.num_inputs))
    labels = network(points).argmax(axis=1)
    others = np.flatnonzero(labels != labels[0])
    if len(others) == 0:
        return None
    inside, outside, label = points[0], points[others[0]], int(labels[0])
    for _ in range(60):
        middle = (inside + outside) / 2
        if network(middle[None]).argmax() == label:
            inside = middle
        else:
            outside = middle
    return inside, label


def hard_cases(kind: str, size: float) -> Iterator[Case]:
    """Balls that contain a known float64 counterexample, with something tiny about them."""
    generator = np.random.default_rng(7)
    while True:
        network = random_network(generator, (6, 12, 10, 4))
        found = near_the_boundary(network, generator)
        if found is None:
            continue
        inside, label = found
        ball = ball_around(inside[None], 0.05)
        match kind:
            case "radius":
                ball = ball_around(inside[None], size)
            case "first layer":
                network = rescaled(network, size)
            case "logits":
                network = shrunk(network, size)
            case "gap":
                network = with_gap(network, ball, label, size)
        yield network, ball, label


@pytest.mark.parametrize("kind", ["radius", "first layer", "logits", "gap"])
@pytest.mark.parametrize("size", [1e-3, 1e-5, 1e-7, 1e-9])
def test_never_robust_when_a_counterexample_is_known(kind: str, size: float) -> None:
    """12 cases each, 192 in all: gaps, radii and weights down to 1e-9."""
    falsified = checked = 0
    for network, ball, label in hard_cases(kind, size):
        rows = margin_rows([label], 4)[0]
        center = (ball.lower[0] + ball.upper[0]) / 2
        points = [polish(network, ball, row, center) for row in rows]
        if min(margin_at(network, point, label) for point in points) >= 0:
            continue  # no counterexample is known here
        verdict = decide(network, ball, label).verdict
        assert verdict in {Verdict.FALSIFIED, Verdict.UNKNOWN}
        falsified += verdict is Verdict.FALSIFIED
        checked += 1
        if checked == 12:
            break
    assert falsified >= 6
