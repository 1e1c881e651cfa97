"""The ladder, end to end on real Keras models: verdicts, evidence, and its own doubts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tasks.core.attacks.gradient import pgd
from tasks.core.data.datasets import Dataset
from tasks.core.errors import ContradictionError
from tasks.core.execution.asking import Resources
from tasks.core.models.runtimes import Classifier, NumpyRuntime, Runtime
from tasks.core.networks.network import Affine, ReluNetwork
from tasks.core.properties.perturbation import Perturbation
from tasks.core.readers.keras_network import relu_network
from tasks.core.search.answer import Answer
from tasks.core.search.first_stages import AttackStrength
from tasks.core.training import architectures
from tasks.core.verdicts import DecidedBy, Engine, Verdict, VerificationResult
from tasks.core.verification import local_robustness
from tasks.core.verification.balls import Ball, Sample
from tasks.core.verification.local_robustness import LocalRobustness, verify
from tests.networks import ball_around, pixels, random_network
from tests.oracle import least_margin

if TYPE_CHECKING:
    import keras

ATTACK = AttackStrength(num_steps=10, num_restarts=2, seed=0)
RESOURCES = Resources(num_workers=2, memory_limit_bytes=2**31)
TIMEOUT_SECONDS = 30.0


def take(digits: Dataset, count: int) -> Sample:
    return Sample(
        np.arange(count),
        digits.test_inputs[:count],
        digits.test_labels[:count],
        digits.perturbation,
    )


def verified(
    classifier: Classifier, sample: Sample, epsilons: list[float], engine: Engine
) -> list[VerificationResult]:
    network = relu_network(classifier.model)
    return verify(
        classifier,
        network,
        sample,
        epsilons,
        engine=engine,
        attack=ATTACK,
        timeout_seconds=TIMEOUT_SECONDS,
        resources=RESOURCES,
    )


def witness_question(
    runtime: Runtime, network: ReluNetwork, perturbation: Perturbation
) -> LocalRobustness:
    return LocalRobustness(
        runtime, network, perturbation, "marabou", TIMEOUT_SECONDS, ATTACK, prove_again=False
    )


@pytest.mark.parametrize("engine", ["ladder", "marabou"])
def test_every_verdict_has_its_evidence(
    engine: Engine, classifier: Classifier, digits: Dataset
) -> None:
    sample, epsilons = take(digits, 15), [0.02, 0.08, 0.15]
    results = verified(classifier, sample, epsilons, engine)
    keys = [(result.sample_index, result.epsilon) for result in results]
    assert keys == [(index, epsilon) for index in range(15) for epsilon in epsilons]
    for result in results:
        image, label = sample.inputs[result.sample_index], sample.labels[result.sample_index]
        ball = ball_around(image[None], result.epsilon)
        if result.verdict is Verdict.FALSIFIED:
            assert result.counterexample is not None
            point = result.counterexample[None]
            assert ball.contains(point)[0]
            assert classifier.predictions(point)[0] == result.target != label
        else:
            assert result.counterexample is None
        if result.verdict is Verdict.ROBUST:
            assert result.margin is not None
            assert result.margin > 0
            broken = pgd(
                classifier,
                image[None],
                label[None],
                sample.perturbation,
                result.epsilon,
                num_steps=40,
                num_restarts=20,
                seed=1,
            ).broken
            assert not broken.any()
    assert {result.verdict for result in results} >= {Verdict.ROBUST, Verdict.FALSIFIED}
    if engine == "marabou":
        for result in results:
            if result.verdict is Verdict.ROBUST:  # Marabou's word, proved by another stage
                assert result.witness == "confirmed"
                assert result.decided_by is not DecidedBy.MARABOU
            else:
                assert result.decided_by in {DecidedBy.CLEAN, DecidedBy.MARABOU}
    else:
        stages = {result.decided_by for result in results}
        assert DecidedBy.ATTACK in stages
        assert stages & {DecidedBy.INTERVAL, DecidedBy.CROWN}


def test_engines_never_contradict_each_other(classifier: Classifier, digits: Dataset) -> None:
    sample = take(digits, 20)
    ladder, marabou = (
        verified(classifier, sample, [0.05, 0.1], engine) for engine in ("ladder", "marabou")
    )
    for ours, theirs in zip(ladder, marabou, strict=True):
        assert {ours.verdict, theirs.verdict} != {Verdict.ROBUST, Verdict.FALSIFIED}


def small_model(architecture: str, seed: int) -> keras.Sequential:
    """Small enough for the oracle."""
    import keras  # solver processes import this file, and need none of it

    if architecture == "dense":
        return architectures.build("dense", (4, 4), 3, (8, 6), seed)
    return keras.Sequential(
        [
            keras.Input((4, 4)),
            keras.layers.Reshape((4, 4, 1)),
            keras.layers.Conv2D(2, 2, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="relu"),
            keras.layers.Dense(3),
        ]
    )


@pytest.mark.parametrize("architecture", ["dense", "convolutional"])
def test_ladder_agrees_with_the_exact_oracle(architecture: str) -> None:
    """Random Keras models on 4x4 images through the whole ladder, 16 balls each."""
    verdicts: Counter[Verdict] = Counter()
    import keras

    for seed in range(5):
        keras.utils.set_random_seed(seed)
        fresh = small_model(architecture, seed)
        classifier = Classifier(fresh)
        images = np.random.default_rng(seed).random((8, 4, 4), dtype=np.float32)
        sample = Sample(np.arange(8), images, classifier.predictions(images), pixels(images))
        network = relu_network(fresh)
        for result in verified(classifier, sample, [0.05, 0.2], "ladder"):
            image = images[result.sample_index][None]
            exact = least_margin(network, ball_around(image, result.epsilon), result.label)
            if abs(exact) < 1e-5:
                continue
            assert result.verdict in {
                Verdict.ROBUST if exact > 0 else Verdict.FALSIFIED,
                Verdict.UNKNOWN,
            }
            verdicts[result.verdict] += 1
    assert min(verdicts[Verdict.ROBUST], verdicts[Verdict.FALSIFIED]) >= 10
    assert verdicts[Verdict.UNKNOWN] <= 4


@pytest.mark.parametrize("epsilon", [0.05, 0.15])
def test_margin_is_the_least_over_all_classes(epsilon: float) -> None:
    """Class 1 is 0.001 below class 0 everywhere: whichever stage proves the rest, that is least."""
    proved = 0
    for seed in range(4):
        generator = np.random.default_rng(seed)
        *hidden, last = random_network(generator, (14, 20, 20, 3)).layers
        weight, bias = last.weight.copy(), last.bias.copy()
        weight[1], bias[1] = weight[0], bias[0] - 1e-3
        network = ReluNetwork((*hidden, Affine(weight, bias)))
        images = generator.random((40, 14), dtype=np.float32)
        images = images[network(images).argmax(axis=1) == 0][:8]
        labels = np.zeros(len(images), dtype=np.int64)
        sample = Sample(np.arange(len(images)), images, labels, pixels(images))
        for result in verify(
            NumpyRuntime(network),
            network,
            sample,
            [epsilon],
            engine="ladder",
            attack=ATTACK,
            timeout_seconds=TIMEOUT_SECONDS,
            resources=RESOURCES,
        ):
            if result.verdict is Verdict.ROBUST:
                proved += 1
                assert result.margin is not None
                assert 0 < result.margin <= 1e-3
    assert proved >= 8


def test_misclassified_sample_is_its_own_counterexample(
    classifier: Classifier, digits: Dataset
) -> None:
    wrong = np.flatnonzero(classifier.predictions(digits.test_inputs) != digits.test_labels)[:2]
    sample = Sample(
        wrong, digits.test_inputs[wrong], digits.test_labels[wrong], digits.perturbation
    )
    results = verified(classifier, sample, [0.01, 0.02], "ladder")
    assert len(results) == 4
    for result in results:
        assert (result.verdict, result.decided_by) == (Verdict.FALSIFIED, DecidedBy.CLEAN)
        image = digits.test_inputs[result.sample_index]
        np.testing.assert_array_equal(result.counterexample, image)


def test_false_proof_stops_the_run(
    classifier: Classifier, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A solver that calls everything robust is found out by the attack on its proofs."""
    monkeypatch.setattr(local_robustness, "LadderSolver", Liar)
    with pytest.raises(ContradictionError, match=r"marabou proved it robust at epsilon 0\.5"):
        verified(classifier, take(digits, 3), [0.5], "marabou")


class Liar:
    """Stands in for the solver in a worker process."""

    def __init__(self, network: ReluNetwork, *settings: object) -> None:
        self.inputs = network.num_inputs

    def __call__(self, ball: Ball) -> Answer:
        nothing = np.empty((0, self.inputs))
        return Answer(Verdict.ROBUST, DecidedBy.MARABOU, nothing, margin=1.0)


class OnTheBoundary(Liar):
    """Answers `falsified` with a point that the deployed model classifies right."""

    def __call__(self, ball: Ball) -> Answer:
        return Answer(
            Verdict.FALSIFIED, DecidedBy.MARABOU, ball.center.reshape(1, -1).astype(float), region=0
        )


def test_counterexample_that_does_not_replay_is_unknown(
    classifier: Classifier, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_robustness, "LadderSolver", OnTheBoundary)
    right = classifier.predictions(digits.test_inputs) == digits.test_labels
    rows = np.flatnonzero(right)[:2]
    sample = Sample(rows, digits.test_inputs[rows], digits.test_labels[rows], digits.perturbation)
    for result in verified(classifier, sample, [0.05], "marabou"):
        assert (result.verdict, result.reason) == (Verdict.UNKNOWN, "near_boundary")
        assert result.counterexample is None


def test_proved_yet_broken_at_a_smaller_radius_is_a_contradiction() -> None:
    from tasks.core.verdicts import check_no_contradiction

    broken = VerificationResult(7, 1, 0.01, Verdict.FALSIFIED, DecidedBy.ATTACK, 0.0)
    proved = replace(broken, epsilon=0.02, verdict=Verdict.ROBUST, decided_by=DecidedBy.CROWN)
    with pytest.raises(ContradictionError, match=r"sample 7: proved robust at epsilon 0\.02"):
        check_no_contradiction([proved, broken])
    check_no_contradiction([replace(proved, epsilon=0.005), broken])
