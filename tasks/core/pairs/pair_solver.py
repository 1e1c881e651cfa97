"""The solver of one requirement around one point, in a worker's process."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from tasks.core.arrays import Inputs
from tasks.core.networks.network import ReluNetwork
from tasks.core.networks.side_by_side import paired
from tasks.core.pairs.monotone import by_slopes, monotone_boxes
from tasks.core.pairs.requirements import Requirement, pair_property, place_of
from tasks.core.properties.specification import Property
from tasks.core.search import ladder
from tasks.core.search.answer import Answer
from tasks.core.verdicts import Engine, Verdict
from tasks.core.verification.balls import Sample

SLOPE_SHARE = 0.5  # of the time, before two copies of the network are asked


@dataclass(frozen=True)
class PairGoal:
    """With what effort each requirement is decided."""

    engine: Engine
    timeout_seconds: float
    seed: int


@dataclass(frozen=True, eq=False)
class PairJob:
    """One requirement around one point; `row` is its place in the sample."""

    row: int
    center: Inputs
    epsilon: float
    requirement: Requirement


@dataclass(frozen=True, eq=False)
class PairSolver:
    """What a solver process holds: the network, sent once, and the sample's perturbation."""

    network: ReluNetwork
    sample: Sample
    goal: PairGoal

    def __post_init__(self) -> None:
        ladder.warm_up()

    def __call__(self, job: PairJob) -> Answer:
        deadline = time.monotonic() + self.goal.timeout_seconds
        by_pairs = job.requirement.demand == "same" or self.network.is_curved  # has no phases
        if by_pairs or self.goal.engine == "marabou":
            return self._of_two_copies(job, deadline)
        answer = self._by_slopes(job)
        if answer.verdict is not Verdict.UNKNOWN:
            return answer
        return _then(answer, self._of_two_copies(job, deadline))

    def _by_slopes(self, job: PairJob) -> Answer:
        """For half of the time, or at once where nothing is to be searched."""
        share = SLOPE_SHARE if self.goal.engine == "ladder" else 0.0
        return by_slopes(
            self.network,
            self.sample.perturbation.domain,
            monotone_boxes(self.sample.perturbation, job.center, job.epsilon, job.requirement),
            job.requirement,
            deadline=time.monotonic() + share * self.goal.timeout_seconds,
            seed=self.goal.seed,
        )

    def _of_two_copies(self, job: PairJob, deadline: float) -> Answer:
        _, columns = place_of(self.sample.perturbation.domain, job.requirement.feature)
        return ladder.decide(
            paired(self.network, columns),
            property_of(self.network, self.sample, job),
            engine=self.goal.engine,
            timeout_seconds=deadline - time.monotonic(),
            seed=self.goal.seed,
            with_marabou=False,
        )


def _then(first: Answer, other: Answer) -> Answer:
    """The other answer to the same question, with what the first one found and took."""
    seconds = Counter(first.stage_seconds) + Counter(other.stage_seconds)
    candidates = other.candidates
    if other.verdict is not Verdict.ROBUST:
        candidates = np.concatenate([candidates, first.candidates])
    return replace(other, candidates=candidates, stage_seconds=dict(seconds))


def property_of(network: ReluNetwork, sample: Sample, job: PairJob) -> Property:
    """What two copies of the network must not do."""
    return pair_property(
        sample.perturbation, job.center, job.epsilon, job.requirement, network.num_outputs
    )
