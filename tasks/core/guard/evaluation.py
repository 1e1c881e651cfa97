"""What a guarded version does with clean inputs, with attackers who know it, and with strangers.

The service's own certificate decides throughout (`certificate.CertificateRuntime`); TensorFlow only
looks for what it might be wrong about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import FloatArray, Inputs, IntArray, Mask
from tasks.core.attacks.gradient import pgd
from tasks.core.data.datasets import Dataset
from tasks.core.errors import ContradictionError
from tasks.core.guard.adaptive import Attacker, Reach
from tasks.core.guard.bundle import Bundle
from tasks.core.guard.clean import CleanRadii
from tasks.core.guard.detectors import (
    ActivationBoxes,
    Certificate,
    Detector,
    FeatureSqueezing,
    Mahalanobis,
    SoftmaxThreshold,
    calibrated,
    scores,
)
from tasks.core.guard.escalation import Escalation, Question
from tasks.core.guard.shifts import strangers
from tasks.core.models.runtimes import Classifier
from tasks.core.properties.domain import Domain
from tasks.core.verdicts import Verdict

if TYPE_CHECKING:
    import keras

FACTORS = (0.5, 1.0, 1.5, 2.0, 3.0)  # of epsilon, that an attacker may move by
CROWN_SHARE = 10  # one input in so many is attacked through CROWN: that takes far longer
FITTED = 10_000  # training inputs that detectors are fitted on
Row = dict[str, Any]


@dataclass(frozen=True)
class Effort:
    """How much is tried.

    Attributes:
        budget_seconds: of the ladder, for each clean input that intervals leave open.
        points: rightly classified test inputs that are attacked.
        attempts: adaptive ones through the certificate at epsilon, together.
        num_steps: of each.
        blind: steps and restarts of PGD that knows nothing of the detector.
    """

    budget_seconds: float = 0.05
    points: int = 1000
    attempts: int = 100_000
    num_steps: int = 20
    blind: tuple[int, int] = (40, 10)
    seed: int = 0


class Evaluation:
    """Of one version at one epsilon."""

    def __init__(
        self,
        model: keras.Sequential,
        read: Bundle,
        data: Dataset,
        epsilon: float,
        effort: Effort,
    ) -> None:
        self.model, self.network, self.data = model, read.network, data
        self.certificate = read.certificate
        self.epsilon, self.effort = epsilon, effort
        self.perturbation = data.perturbation
        self.through = [
            Certificate.of(model, self.perturbation, epsilon, by_crown=by_crown)
            for by_crown in (False, True)
        ]
        self.attacker = Attacker(model, self.perturbation, effort.num_steps)
        labels, self._accepted = self.judged(data.test_inputs)
        self._blind_points: dict[float, Inputs] = {}
        self._labels, self._right = labels, labels == data.test_labels
        order = np.random.default_rng(effort.seed).permutation(len(labels))
        chosen = np.sort(order[self._right[order]][: effort.points])
        self.inputs, self.labels = data.test_inputs[chosen], data.test_labels[chosen]

    def judged(self, inputs: Inputs, radius: float | None = None) -> tuple[IntArray, Mask]:
        """Labels, and whether they are proved at a radius, or at epsilon."""
        found = self.certificate.certified(inputs, [self.epsilon if radius is None else radius])
        return found.labels, found.margins[:, 0] > 0

    def clean(self) -> dict[str, float]:
        """Shares of the test set; `accepted` with the ladder, each input within the budget."""
        _, twice = self.judged(self.data.test_inputs, 2 * self.epsilon)
        accepted, is_open = self._accepted.copy(), ~self._accepted
        accepted[is_open] = self._by_the_ladder(
            self.data.test_inputs[is_open], self._labels[is_open]
        )
        return {
            "accuracy": float(self._right.mean()),
            "accepted": float(accepted.mean()),
            "accepted_by_intervals": float(self._accepted.mean()),
            "accepted_wrong": float((accepted & ~self._right).mean()),
            "guaranteed_service": float((twice & self._right).mean()),
        }

    def _by_the_ladder(self, inputs: Inputs, labels: IntArray) -> Mask:
        """Which it accepts, one after another, as a service with one process has it."""
        accepted = np.zeros(len(inputs), dtype=bool)
        if not len(inputs):
            return accepted
        perturbation, seconds = self.perturbation.both_ways(), self.effort.budget_seconds
        with closing(Escalation(self.network, perturbation, 1, 2)) as escalation:
            escalation.wait_until_started()
            for row, (point, label) in enumerate(zip(inputs, labels.tolist(), strict=True)):
                started = monotonic()
                asked = Question(point, label, self.epsilon, seconds)
                found = escalation.submit(asked).result()
                in_time = monotonic() - started <= seconds
                accepted[row] = in_time and found.verdict is Verdict.ROBUST
        return accepted

    def attacks(self) -> Iterator[Row]:
        """At each radius: attempts, and those that end in another label that is accepted.

        Raises:
            ContradictionError: one at most epsilon away does, which the proof excludes.
        """
        for factor in FACTORS:
            for name, runs in self._attacks(factor).items():
                attempts = fooled = 0
                broken = np.zeros(len(self.inputs), dtype=bool)
                tried = np.zeros(len(self.inputs), dtype=bool)
                for points, rows in runs():
                    tried[rows] = True
                    found, accepted = self.judged(points)
                    wrong = found != self.labels[rows]
                    attempts, fooled = attempts + len(points), fooled + int(wrong.sum())
                    broken[rows[wrong & accepted]] = True
                if broken.any() and factor <= 1:
                    raise ContradictionError(
                        f"{name} at {factor:g} epsilon: {broken.sum()} accepted labels are wrong "
                        "though the proof excludes it: this is a defect of certiflow; please "
                        "report it with the run's artifacts"
                    )
                yield {
                    "attack": name,
                    "factor": factor,
                    "radius": factor * self.epsilon,
                    "attempts": attempts,
                    "mislabelled": fooled,
                    "points": int(tried.sum()),
                    "accepted_adversarial": int(broken.sum()),
                }

    def _attacks(self, factor: float) -> dict[str, Callable[[], Iterator[tuple[Inputs, IntArray]]]]:
        """By name, what gives points and the places of the inputs that they are made of."""
        everyone = np.arange(len(self.inputs))
        some = everyone[: max(1, len(everyone) // CROWN_SHARE)]
        classes = self.data.num_classes - 1
        rounds = -(-self.effort.attempts // (len(self.inputs) * classes)) if factor == 1 else 1

        def blind() -> Iterator[tuple[Inputs, IntArray]]:
            yield self._blind(factor), everyone

        def orthogonal() -> Iterator[tuple[Inputs, IntArray]]:
            for number in range(rounds):
                reach = self._reach(factor, number)
                detector, attacker = self.through[0], self.attacker
                yield attacker.orthogonal(detector, self.inputs, self.labels, reach), everyone

        def towards(
            certificate: Certificate, rows: IntArray, rounds: int
        ) -> Iterator[tuple[Inputs, IntArray]]:
            for number in range(rounds * classes):
                targets = (self.labels[rows] + 1 + number % classes) % (classes + 1)
                reach = self._reach(factor, number)
                yield self.attacker.towards(certificate, self.inputs[rows], targets, reach), rows

        return {
            "PGD, blind": blind,
            "through the intervals": lambda: towards(self.through[0], everyone, rounds),
            "through CROWN": lambda: towards(self.through[1], some, 1),
            "orthogonal PGD": orthogonal,
        }

    def denial(self) -> Iterator[Row]:
        """At each radius: rightly accepted inputs whose acceptance an attacker can take.

        `denied` are not accepted by the ladder either. Attacked through intervals and CROWN.
        """
        _, accepted = self.judged(self.inputs)
        rows = np.flatnonzero(accepted)[: max(1, len(self.inputs) // CROWN_SHARE)]
        inputs, labels = self.inputs[rows], self.labels[rows]
        for factor in FACTORS if len(rows) else ():
            taken, denied = np.zeros((2, len(rows)), dtype=bool)
            for certificate in self.through:
                reach = self._reach(factor, 0)
                points = self.attacker.denial(certificate, inputs, labels, reach)
                found, still = self.judged(points)
                still_right = still & (found == labels)
                taken |= ~still_right
                is_open = ~still & (found == labels)
                still_right[is_open] = self._by_the_ladder(points[is_open], labels[is_open])
                denied |= ~still_right
            yield {
                "factor": factor,
                "radius": factor * self.epsilon,
                "points": len(rows),
                "denied_by_intervals": int(taken.sum()),
                "denied": int(denied.sum()),
            }

    def strangers(self) -> dict[str, float]:
        """The accepted share of inputs that are not of the training's kind, by what they are."""
        made = strangers(self.perturbation.domain, self.inputs, self.effort.seed)
        return {name: float(self.judged(each)[1].mean()) for name, each in made.items()}

    def baselines(self) -> Iterator[Row]:
        """Detectors that flag as many clean inputs as the certificate, attacked at epsilon."""
        train = np.random.default_rng(self.effort.seed).permutation(len(self.data.train_inputs))
        fitted = train[:FITTED]
        known = self.data.train_inputs[fitted], self.data.train_labels[fitted]
        others: list[Detector] = [
            SoftmaxThreshold(),
            Mahalanobis.of(self.model, *known),
            ActivationBoxes.of(self.model, *known),
        ]
        if not self.perturbation.domain.is_table:  # it is about the bits of a pixel
            others.append(FeatureSqueezing(self.model))
        calibrated(others, self.model, self.data.test_inputs, float((~self._accepted).mean()))
        blind = self._blind(1.0)
        for detector in others:
            broken = self._evades(detector, blind)
            blind_count = int(broken.sum())
            for number in range(3):
                reach = self._reach(1.0, number)
                points = self.attacker.orthogonal(detector, self.inputs, self.labels, reach)
                broken |= self._evades(detector, points)
            clean = scores(detector, self.model, self.data.test_inputs)
            yield {
                "detector": detector.name,
                "clean_flagged": float((clean > detector.threshold).mean()),
                "points": len(self.inputs),
                "blind": blind_count,
                "adaptive": int(broken.sum()),
            }

    def _blind(self, factor: float) -> Inputs:
        """Where PGD ends that knows the model and no detector; found once for each factor."""
        if factor not in self._blind_points:
            steps, restarts = self.effort.blind
            self._blind_points[factor] = pgd(
                Classifier(self.model),
                self.inputs,
                self.labels,
                self.perturbation,
                factor * self.epsilon,
                num_steps=steps,
                num_restarts=restarts,
                seed=self.effort.seed,
            ).points
        return self._blind_points[factor]

    def _evades(self, detector: Detector, points: Inputs) -> Mask:
        """Whether points are mislabelled and not flagged."""
        labels = Classifier(self.model).predictions(points)
        passed = scores(detector, self.model, points) <= detector.threshold
        evades: Mask = (labels != self.labels) & passed
        return evades

    def _reach(self, factor: float, number: int) -> Reach:
        return Reach(factor * self.epsilon, self.effort.seed + number)


def evasion_distances(clean: CleanRadii, epsilon: float, domain: Domain) -> FloatArray:
    """Of rightly accepted clean inputs: an accepted wrong answer lies farther away than this.

    Within a proved radius r of the input every label is right, and within epsilon of the answer
    every one is wrong: the balls have no point in common. Where all between two inputs is an input,
    they are more than r + epsilon apart. Whole numbers can step from one ball into the other: then
    neither center lies in the other's ball, and they are more than the greater radius apart.
    """
    radii = clean.radii[clean.right & (clean.radii >= epsilon)]
    return np.maximum(radii, epsilon) if domain.whole.any() else radii + epsilon
