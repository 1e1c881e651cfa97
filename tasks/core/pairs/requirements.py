"""Pairs of inputs that differ in one feature: what is required of the model's answers to them.

- *monotone*: a greater value of the feature never lowers the score of the positive class, its
  logit less the other one's, wherever the other features are in the box (or never raises it).
- *fair*: the decision is the same for every other value of the feature.

The feature itself takes all values of its domain, whatever epsilon is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np

from tasks.core.arrays import Float32Array, FloatArray, Inputs, IntArray
from tasks.core.data.datasets import Dataset
from tasks.core.errors import CertiflowError
from tasks.core.properties.box import Box
from tasks.core.properties.domain import Domain, Feature
from tasks.core.properties.perturbation import Perturbation
from tasks.core.properties.specification import Property, UnsafeRegion

Demand = Literal["up", "down", "same"]
TOLERANCE = 1e-4  # of log-odds: where a feature has no effect at all, nothing strict can be proved
MOST_STEPS = 100  # between whole numbers, each of which is a box; more are decided in one


@dataclass(frozen=True)
class Requirement:
    """What is required of a feature.

    `up` and `down` say how the positive class's score goes with it (monotone), `same` that the
    decision does not depend on it (fair).
    """

    feature: str
    demand: Demand
    positive: int | None = None

    @property
    def name(self) -> str:
        """Such as `monotone/PAY_0` and `fair/SEX`."""
        return f"{'fair' if self.demand == 'same' else 'monotone'}/{self.feature}"

    def check(self, domain: Domain, num_classes: int) -> None:
        """Raises `CertiflowError` when it cannot be required of such data."""
        feature, _ = place_of(domain, self.feature)
        if self.demand == "same":
            return
        if feature.kind == "category":
            raise CertiflowError(
                f"properties.monotone: {self.feature} is a category, whose values have no order; "
                "expected a number"
            )
        if num_classes != 2 or self.positive is None:
            raise CertiflowError(
                f"properties.monotone: {self.feature} needs a class whose score is to grow, of two "
                "classes: set data.positive"
            )


def required(
    monotone: Mapping[str, Demand], fair: Sequence[str], data: Dataset
) -> list[Requirement]:
    """Requirements of features by name; raises `CertiflowError` as `Requirement.check`."""
    if data.reference is not None and monotone:
        raise CertiflowError(
            f"properties.monotone: {data.name} has a tolerance: only the score of a class can be "
            "required to grow; leave it out"
        )
    if data.reference is not None and data.reference.name in fair:
        raise CertiflowError(
            f"properties.fair: {data.reference.name} is the target: expected a feature"
        )
    asked = [Requirement(name, way, data.positive) for name, way in monotone.items()]
    asked += [Requirement(name, "same") for name in fair]
    for requirement in asked:
        requirement.check(data.domain, data.num_classes)
    return asked


def place_of(domain: Domain, name: str) -> tuple[Feature, IntArray]:
    """A feature and its columns; raises `CertiflowError` when there is none of this name."""
    for feature in domain.features:
        if feature.name == name:
            columns = domain.columns[name]
            return feature, np.arange(columns.start, columns.stop)
    known = ", ".join(feature.name for feature in domain.features) or "none: these are images"
    raise CertiflowError(f"there is no feature '{name}'; expected one of {known}")


def pair_property(
    perturbation: Perturbation,
    center: Inputs,
    epsilon: float,
    requirement: Requirement,
    num_classes: int,
) -> Property:
    """What `paired` of the network and the feature's columns must not do, over (x, y)."""
    domain = perturbation.domain
    feature, columns = place_of(domain, requirement.feature)
    boxes, _ = perturbation.boxes(center[None], epsilon)
    regions = [
        UnsafeRegion(box, rows, offsets)
        for place in range(len(boxes))
        for box in _pair_boxes(boxes[place : place + 1], domain, requirement)
        for rows, offsets in _unsafe(domain, requirement, num_classes)
    ]
    both = Domain(
        (domain.num_inputs + len(columns),),
        (*domain.features, feature.model_copy(update={"name": f"{feature.name}'"})),
    )
    return Property(tuple(regions), None if both.is_plain else both)


def second(candidates: Float32Array, columns: IntArray) -> tuple[Inputs, Inputs]:
    """Points (x, y), (n, inputs + columns), as the pairs that they stand for."""
    first = candidates[:, : candidates.shape[1] - len(columns)]
    other = first.copy()
    other[:, columns] = candidates[:, first.shape[1] :]
    return first, other


def are_in_order(requirement: Requirement, first: Float32Array, other: Float32Array) -> bool:
    """Whether values of the feature, (columns,) each, are a pair that something is asked of."""
    return requirement.demand == "same" or bool((first <= other).all())


def breaks(requirement: Requirement, first: Float32Array, other: Float32Array) -> bool:
    """Whether the logits of a pair, (classes,) each, break what is required."""
    if requirement.demand == "same":
        return int(first.argmax()) != int(other.argmax())
    assert requirement.positive is not None
    sign = 1.0 if requirement.demand == "up" else -1.0
    scores = [
        float(logits[requirement.positive]) - float(logits[1 - requirement.positive])
        for logits in (first, other)
    ]
    return sign * (scores[1] - scores[0]) <= -TOLERANCE


def is_by_steps(feature: Feature) -> bool:
    """Whether its values are few whole numbers: then each step by one is within the tolerance.

    A longer one is several of them, and so within as many times the tolerance.
    """
    return feature.is_whole and feature.upper - feature.lower <= MOST_STEPS


def _pair_boxes(box: Box, domain: Domain, requirement: Requirement) -> Iterator[Box]:
    """Boxes of (x, y), which hold every pair that is looked at."""
    feature, columns = place_of(domain, requirement.feature)
    low, high = domain.lower[columns[0]], domain.upper[columns[0]]
    if feature.kind == "category":
        now = box.lower[0, columns]
        for other in np.eye(len(columns)):
            if not np.array_equal(other, now):
                yield _with(box, columns, (now, now), (other, other))
    elif requirement.demand == "same":
        now = (box.lower[0, columns], box.upper[0, columns])
        yield _with(box, columns, now, (np.array([low]), np.array([high])))
    elif is_by_steps(feature):
        for value in np.arange(low, high):
            one, next_one = np.array([value]), np.array([value + 1])
            yield _with(box, columns, (one, one), (next_one, next_one))
    else:
        every = (np.array([low]), np.array([high]))
        yield _with(box, columns, every, every)


def _with(
    box: Box,
    columns: IntArray,
    first: tuple[FloatArray, FloatArray],
    other: tuple[FloatArray, FloatArray],
) -> Box:
    lower, upper = box.lower.copy(), box.upper.copy()
    lower[0, columns], upper[0, columns] = first
    return Box(np.hstack([lower, other[0][None]]), np.hstack([upper, other[1][None]]))


def _unsafe(
    domain: Domain, requirement: Requirement, classes: int
) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Rows and offsets over the two copies' logits, and (x, y) where their order counts."""
    if requirement.demand == "same":
        for one, other in permutations(range(classes), 2):
            rows = np.zeros((2, classes - 1, 2 * classes))
            for copy, label in enumerate((one, other)):
                others = [k for k in range(classes) if k != label]
                rows[copy, np.arange(classes - 1), np.array(others) + copy * classes] = 1
                rows[copy, :, label + copy * classes] -= 1
            yield rows.reshape(-1, 2 * classes), np.zeros(2 * (classes - 1))
        return
    assert requirement.positive is not None
    feature, columns = place_of(domain, requirement.feature)
    sign = 1.0 if requirement.demand == "up" else -1.0
    score = np.full(2, -sign)
    score[requirement.positive] = sign
    change, offset = np.concatenate([-score, score]), TOLERANCE
    if is_by_steps(feature):
        yield change[None], np.array([offset])
        return
    inputs = domain.num_inputs
    order = np.zeros(2 * classes + inputs + 1)
    order[2 * classes + columns[0]], order[-1] = 1, -1  # x is at most y
    rows = np.stack([np.concatenate([change, np.zeros(inputs + 1)]), order])
    yield rows, np.array([offset, 0.0])
