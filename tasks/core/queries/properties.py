"""Models and properties from outside, verified in separate processes; no verdict is lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tasks.core.engine_version import ENGINE_VERSION
from tasks.core.errors import CertiflowError
from tasks.core.execution.asking import Again, Resources, answers
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.execution.worker import Ending
from tasks.core.execution.worker_pool import Outcome
from tasks.core.models.loading import LoadedModel
from tasks.core.properties.equivalence import Equivalence
from tasks.core.properties.specification import Property
from tasks.core.queries.input_files import InputFile
from tasks.core.queries.property_solver import (
    VERDICTS,
    VNNCOMP_WORDS,
    InstanceResult,
    PropertyJob,
    PropertySolver,
)
from tasks.core.verdicts import DecidedBy, Engine, Verdict


@dataclass(frozen=True, eq=False)
class Instance:
    """A question: is any unsafe region of `property` reached by `model` in `timeout_seconds`?

    Both are files, or what was read from one already. Models of several networks are files by the
    names that the property has for these.
    """

    model: Path | LoadedModel | Mapping[str, Path]
    property: Path | Property | Equivalence
    timeout_seconds: float


def verify_instances(
    instances: Sequence[Instance],
    resources: Resources,
    *,
    engine: Engine,
    seed: int,
    store: VerdictStore | None,
    fresh: bool,
    on_result: Callable[[int, InstanceResult], None] = lambda index, result: None,
) -> list[InstanceResult]:
    """One result per instance, in their order; `on_result` sees each with its place as it comes.

    Hardest first: by time limit, then by the model's size. What is in the store is not computed
    again unless `fresh`. What cannot be read, or costs its process more than its memory limit, is
    an `error` with its reason and is not stored. A cluster's workers are sent the files.

    Raises:
        CertiflowError: the store cannot be used; as `asking.answers` does.
    """
    results: dict[int, InstanceResult] = {}

    def arrived(index: int, result: InstanceResult) -> None:
        results[index] = result
        on_result(index, result)

    jobs: list[PropertyJob] = []
    contents: dict[str, bytes] = {}
    read = lru_cache(maxsize=None)(InputFile.of)
    for index, instance in enumerate(instances):
        try:
            job = _job(index, instance, read)
            jobs.append(job if resources.cluster is None else _sent(job, contents))
        except CertiflowError as error:
            arrived(index, InstanceResult("error", None, 0.0, reason=str(error)))
    question = _PropertyQuestion(engine, seed, contents)
    hardest_first = sorted(jobs, key=_hardness, reverse=True)
    with closing(answers(question, hardest_first, resources, store=store, fresh=fresh)) as found:
        for job, result in found:
            arrived(job.index, result)
    return [results[index] for index in range(len(instances))]


def _job(index: int, instance: Instance, read: Callable[[Path], InputFile]) -> PropertyJob:
    model, prop = instance.model, instance.property
    match model:
        case Path():
            found: InputFile | LoadedModel | dict[str, InputFile] = read(model)
        case LoadedModel():
            found = model
        case _:
            found = {name: read(path) for name, path in model.items()}
    return PropertyJob(
        index,
        found,
        read(prop) if isinstance(prop, Path) else prop,
        instance.timeout_seconds,
    )


def _sent(job: PropertyJob, contents: dict[str, bytes]) -> PropertyJob:
    """The job for another machine: with its property's content, its model's among `contents`."""
    prop = job.property
    for file in _files(job):
        if file.sha256 not in contents:
            contents[file.sha256] = file.content()
    return replace(job, content=prop.content()) if isinstance(prop, InputFile) else job


def _files(job: PropertyJob) -> list[InputFile]:
    """Those of its models."""
    models = job.model.values() if isinstance(job.model, dict) else [job.model]
    return [model for model in models if isinstance(model, InputFile)]


def _hardness(job: PropertyJob) -> tuple[float, int]:
    if isinstance(job.model, LoadedModel):
        layers = job.model.network.layers
        return job.timeout_seconds, sum(layer.matrix.num_stored for layer in layers)
    return job.timeout_seconds, sum(file.size for file in _files(job))


@dataclass(frozen=True, eq=False)
class _PropertyQuestion:
    """`asking.Question` about properties; `contents` goes to the solvers."""

    engine: Engine
    seed: int
    contents: dict[str, bytes]

    def key(self, job: PropertyJob) -> VerdictKey:
        """Files by their bytes, so that nothing must be parsed to find a stored verdict."""
        model, prop = job.model, job.property
        engine = f"{self.engine} v{ENGINE_VERSION}"
        if isinstance(model, dict):
            named = " ".join(f"{name}={file.sha256}" for name, file in model.items())
        else:
            named = model.sha256 if isinstance(model, InputFile) else model.network.sha256
        return VerdictKey(
            named if isinstance(model, LoadedModel) else f"file:{named}",
            f"file:{prop.sha256}" if isinstance(prop, InputFile) else prop.sha256,
            f"{engine} timeout {job.timeout_seconds:g} seed {self.seed}",
        )

    def solver(self) -> tuple[type[PropertySolver], tuple[Any, ...]]:
        return PropertySolver, (self.engine, self.seed, self.contents)

    def seconds(self, job: PropertyJob) -> float:
        return job.timeout_seconds

    def judged(self, outcome: Outcome[PropertyJob, InstanceResult]) -> InstanceResult:
        """A process that had to be ended was in the stage that it reported last."""
        if outcome.answer is not None:
            known = outcome.answer.stored
            return outcome.answer if known else replace(outcome.answer, seconds=outcome.seconds)
        if outcome.ending is Ending.TIMEOUT:
            reason = f"time limit of {outcome.job.timeout_seconds:g} s"
            stage = DecidedBy.in_stage(outcome.stage)
            return InstanceResult("timeout", stage, outcome.seconds, reason=reason)
        reason = " ".join(outcome.reason.split())
        return InstanceResult("error", None, outcome.seconds, reason=reason)

    def stored(self, result: InstanceResult) -> StoredVerdict | None:
        """The points of a `sat` are X and Y with a NaN between them: no input is NaN."""
        found = result.counterexample
        if result.decided_by is None or result.stored:
            return None
        return StoredVerdict(
            verdict=VERDICTS[result.verdict],
            decided_by=result.decided_by,
            seconds=result.seconds,
            margin=result.margin,
            deployed=result.deployed,
            reason=result.reason,
            stage_seconds=result.stage_seconds,
            points=None if found is None else np.array([*found["X"], np.nan, *found["Y"]]),
        )

    def recalled(
        self, job: PropertyJob, known: StoredVerdict
    ) -> InstanceResult | Again[PropertyJob]:
        """A stored `sat` is replayed where the model is loaded."""
        counterexample = None
        if known.points is not None:
            size = int(np.isnan(known.points).argmax())
            x, y = known.points[:size], known.points[size + 1 :]
            counterexample = {"X": x.tolist(), "Y": y.tolist()}
        result = InstanceResult(
            VNNCOMP_WORDS.get(known.verdict, known.verdict.value),
            known.decided_by,
            known.seconds,
            counterexample,
            known.margin,
            known.deployed,
            known.reason,
            known.stage_seconds,
            stored=True,
        )
        is_sat = known.verdict is Verdict.FALSIFIED
        return Again(replace(job, known=result)) if is_sat else result
