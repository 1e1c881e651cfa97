"""Attacks on the deployed float32 Keras model.

Every point they return is one that an attacker can make: it lies in its perturbation's box, and is
valid: with whole numbers where there are no others, one category of each, all relations satisfied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.arrays import Inputs, IntArray, Mask
from tasks.core.models.runtimes import Attackable
from tasks.core.properties.perturbation import Perturbation

PGD_STEP = 2.5  # times epsilon, over all steps together (Madry et al. 2018)


@dataclass(frozen=True, eq=False)
class Attacked:
    """Points, the inputs' shape, the model's labels for them, and whether these are wrong."""

    points: Inputs
    predictions: IntArray
    broken: NDArray[np.bool_]

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        """The three, each with a place for every point."""
        return self.points, self.predictions, self.broken

    @classmethod
    def joined(cls, parts: Sequence[Attacked]) -> Attacked:
        """Of batches, one after another."""
        return cls(*(np.concatenate(each) for each in zip(*(p.arrays for p in parts), strict=True)))


def fgsm(
    classifier: Attackable,
    inputs: Inputs,
    labels: IntArray,
    perturbation: Perturbation,
    epsilons: Sequence[float],
    *,
    on_batch: Callable[[int], None] = lambda count: None,
) -> tuple[IntArray, NDArray[np.bool_]]:
    """Labels after the fast gradient sign method (Goodfellow et al. 2015, eq. 1) at each epsilon.

    x' is the corner of x's box in the direction of the gradient's sign: of images
    clip(x + epsilon * sign(gradient)). The gradient does not depend on epsilon, so it is computed
    once per batch.

    Returns:
        Predictions, shape (epsilons, n), and whether a point's gradient vanished altogether, shape
        (n,): where it did the attack does nothing, and its failure says nothing.
    """
    predictions = np.empty((len(epsilons), len(inputs)), dtype=np.int64)
    vanished = np.empty(len(inputs), dtype=bool)
    for rows in classifier.batches(len(inputs)):
        choices = _Choices.of(classifier, inputs[rows], labels[rows], perturbation, max(epsilons))
        direction = choices.gradient_sign()
        flat = direction[choices.itself].reshape(len(choices.itself), -1)
        vanished[rows] = ~flat.any(axis=1)
        for index, epsilon in enumerate(epsilons):
            found = choices.judged(corners(perturbation, choices.centers, direction, epsilon))
            predictions[index, rows] = choices.strongest(found, epsilon).predictions
        on_batch(len(choices.itself))
    return predictions, vanished


def fgsm_points(
    classifier: Attackable,
    inputs: Inputs,
    labels: IntArray,
    perturbation: Perturbation,
    epsilon: float,
) -> Attacked:
    """The FGSM points themselves at one epsilon."""
    parts = [_nothing(inputs)]
    for rows in classifier.batches(len(inputs)):
        choices = _Choices.of(classifier, inputs[rows], labels[rows], perturbation, epsilon)
        points = corners(perturbation, choices.centers, choices.gradient_sign(), epsilon)
        parts.append(choices.strongest(choices.judged(points), epsilon))
    return Attacked.joined(parts)


def gradient_sign(classifier: Attackable, inputs: Inputs, labels: IntArray) -> Inputs:
    """The sign of the cross-entropy's gradient by the inputs; zero where it vanishes."""
    return np.sign(np.asarray(classifier.loss_gradient(inputs, labels)))


def corners(
    perturbation: Perturbation, centers: Inputs, direction: Inputs, epsilon: float
) -> Inputs:
    """The farthest points of the boxes in a direction, by its signs; zero stays."""
    lower, upper = perturbation.float32_bounds(centers, epsilon)
    return np.where(direction > 0, upper, np.where(direction < 0, lower, centers))


def pgd(
    classifier: Attackable,
    inputs: Inputs,
    labels: IntArray,
    perturbation: Perturbation,
    epsilon: float,
    *,
    num_steps: int,
    num_restarts: int,
    seed: int,
    from_fgsm: bool = True,
) -> Attacked:
    """Projected gradient descent on the least margin (Madry et al. 2018).

    The first run starts at the FGSM point, so PGD breaks at least what FGSM breaks; the others
    start at seeded uniform points of the box, and without `from_fgsm` all of them do. Points that
    stay unbroken keep their last run's end.
    """
    generator = np.random.default_rng(seed)
    parts = [_nothing(inputs)]
    for rows in classifier.batches(len(inputs)):
        choices = _Choices.of(classifier, inputs[rows], labels[rows], perturbation, epsilon)
        lower, upper = perturbation.float32_bounds(choices.centers, epsilon)
        step = np.float32(PGD_STEP * epsilon / max(num_steps, 1)) * perturbation.reach
        start = choices.centers.copy()
        if from_fgsm:
            start = corners(perturbation, start, choices.gradient_sign(), epsilon)
        best = choices.judged(start)
        for restart in range(num_restarts):
            left = np.flatnonzero(~best.broken)
            if len(left) == 0:
                break
            if restart > 0 or not from_fgsm:
                spread = generator.random(start[left].shape, dtype=np.float32)
                drawn = lower[left] + spread * (upper[left] - lower[left])
                start[left] = np.clip(drawn, lower[left], upper[left])
            bounds = lower[left], upper[left]
            best = choices.with_runs(best, left, start[left], bounds, step, num_steps)
        parts.append(choices.strongest(best, epsilon))
    return Attacked.joined(parts)


@dataclass(frozen=True, eq=False)
class _Choices:
    """Inputs with every choice of their categories, each attacked by itself.

    `owners` has the place of the input that each center is a choice of, ascending; `itself` the
    place of each input among the centers.
    """

    classifier: Attackable
    perturbation: Perturbation
    centers: Inputs
    labels: IntArray
    owners: IntArray
    itself: IntArray

    @classmethod
    def of(
        cls,
        classifier: Attackable,
        inputs: Inputs,
        labels: IntArray,
        perturbation: Perturbation,
        epsilon: float,
    ) -> _Choices:
        centers, owners = perturbation.alternatives(inputs, epsilon)
        itself = np.flatnonzero(np.diff(owners, prepend=-1))
        return cls(classifier, perturbation, centers, labels[owners], owners, itself)

    def gradient_sign(self) -> Inputs:
        return gradient_sign(self.classifier, self.centers, self.labels)

    def judged(self, points: Inputs) -> Attacked:
        """The points, those that are not valid replaced by their centers."""
        return self._judged(points, np.arange(len(points)))

    def with_runs(
        self,
        best: Attacked,
        rows: IntArray,
        starts: Inputs,
        bounds: tuple[Inputs, Inputs],
        step: Inputs,
        num_steps: int,
    ) -> Attacked:
        """What is best, with the ends of runs from `starts` in the places `rows`."""
        descend = self.classifier.margin_descent
        ends = np.asarray(descend(starts, self.labels[rows], *bounds, step, num_steps))
        found = self._judged(ends, rows)
        parts = []
        for before, now in zip(best.arrays, found.arrays, strict=True):
            parts.append(before.copy())
            parts[-1][rows] = now
        return Attacked(*parts)

    def strongest(self, found: Attacked, epsilon: float) -> Attacked:
        """For each input its first choice that is mislabelled, or itself where none is."""
        counts = found.broken.copy()
        if epsilon == 0:  # categories change at radii above 0 only
            counts[:] = False
        places = np.full(len(self.itself), len(self.owners))
        np.minimum.at(places, self.owners[counts], np.flatnonzero(counts))
        places = np.where(places < len(self.owners), places, self.itself)
        return Attacked(found.points[places], found.predictions[places], found.broken[places])

    def _judged(self, points: Inputs, rows: IntArray) -> Attacked:
        domain = self.perturbation.domain
        valid: Mask = np.ones(len(points), dtype=bool)
        if not domain.is_plain:
            flat = domain.nearest(points.reshape(len(points), -1))
            valid = domain.contains(flat)
            flat = np.where(valid[:, None], flat, self.centers[rows].reshape(flat.shape))
            points = flat.reshape(points.shape).astype(np.float32)
        predictions = self.classifier.predictions(points)
        wrong = predictions != self.labels[rows]
        # a center that is no choice but the input itself is there whatever the relations say
        return Attacked(points, predictions, wrong & (valid | np.isin(rows, self.itself)))


def broken_by_pgd(
    classifier: Attackable,
    inputs: Inputs,
    labels: IntArray,
    perturbation: Perturbation,
    epsilons: Sequence[float],
    fgsm_right: Mask,
    *,
    num_steps: int,
    num_restarts: int,
    seed: int,
    on_epsilon: Callable[[float, Mask], None] = lambda epsilon, broken: None,
) -> Mask:
    """What FGSM and smaller radii break, and what PGD breaks of the rest: (epsilons, n).

    `fgsm_right`, (epsilons, n), is what FGSM leaves; clean mistakes count as broken by it.
    """
    broken = np.zeros_like(fgsm_right)
    for index, epsilon in enumerate(epsilons):
        # a smaller ball's counterexample lies in this ball too
        broken[index] = ~fgsm_right[index] | (broken[index - 1] if index else False)
        left = np.flatnonzero(~broken[index])
        if epsilon > 0:
            attacked = pgd(
                classifier,
                inputs[left],
                labels[left],
                perturbation,
                epsilon,
                num_steps=num_steps,
                num_restarts=num_restarts,
                seed=seed,
            )
            broken[index, left[attacked.broken]] = True
        on_epsilon(epsilon, broken[index])
    return broken


def _nothing(inputs: Inputs) -> Attacked:
    """No points, of the inputs' shape."""
    none = np.zeros(0, dtype=np.int64)
    return Attacked(inputs[:0], none, none.astype(bool))
