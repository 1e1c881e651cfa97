"""Models and properties from outside, verified in separate processes; no verdict is lost.

A `sat` is believed only when the deployed float32 model reaches the unsafe region, also when it
comes from the store; an `unsat` only when the ladder proved it. Verdicts are stored as they arrive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from tasks.core.engine_version import ENGINE_VERSION
from tasks.core.errors import CertiflowError
from tasks.core.execution.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.execution.worker_pool import Ending, Outcome, run_jobs
from tasks.core.files import sha256_of
from tasks.core.models import loading
from tasks.core.models.agreement import box_points, check_agreement
from tasks.core.models.loading import LoadedModel
from tasks.core.properties.specification import Property
from tasks.core.properties.vnnlib import read_property
from tasks.core.search.answer import Answer
from tasks.core.search.ladder import decide, warm_up
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Engine, Verdict
from tasks.core.verification.counterexamples import confirmed, reached

WORDS = {Verdict.ROBUST: "unsat", Verdict.FALSIFIED: "sat"}  # VNN-COMP's; the others are the same
VERDICTS = {WORDS.get(verdict, verdict.value): verdict for verdict in Verdict}
GRACE_SECONDS = 2.0  # for the last step of a stage, before the process is ended from outside
CACHED_MODELS = 8  # in each worker


@dataclass(frozen=True, eq=False)
class Instance:
    """A question: is any unsafe region of `property` reached by `model` in `timeout_seconds`?

    Both are files, or what was read from one already.
    """

    model: Path | LoadedModel
    property: Path | Property
    timeout_seconds: float


@dataclass(frozen=True)
class InstanceResult:
    """The answer.

    Attributes:
        verdict: VNN-COMP's word: sat, unsat, unknown, timeout, error.
        decided_by: the stage that gave the verdict, or the last one that tried; None with `error`.
        seconds: of solving and of replaying the counterexample; to load the files is not solving.
        counterexample: `X` inside the box and the deployed model's own outputs `Y`; with `sat`.
        margin: with `unsat`, what is proved of the least excess over all unsafe regions.
        deployed: with `unsat`, whether that holds for the deployed float32 model as well.
        reason: why there is no other verdict, one line.
        stage_seconds: what each stage took; `read` is to load the files.
        stored: whether it was computed by an earlier run.
    """

    verdict: str
    decided_by: DecidedBy | None
    seconds: float
    counterexample: dict[str, list[float]] | None = None
    margin: float | None = None
    deployed: bool | None = None
    reason: str = ""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stored: bool = False


@dataclass(frozen=True, eq=False)
class _Job:
    """`known` is what the store says, where that must be replayed."""

    index: int
    instance: Instance
    known: StoredVerdict | None = None


def verify_instances(
    instances: Sequence[Instance],
    *,
    num_workers: int,
    memory_limit_bytes: int,
    engine: Engine,
    seed: int,
    store: VerdictStore | None,
    fresh: bool,
    on_result: Callable[[int, InstanceResult], None] = lambda index, result: None,
) -> list[InstanceResult]:
    """One result per instance, in their order; `on_result` sees each with its place as it comes.

    Hardest first: by time limit, then by the model's size. What is in the store is not computed
    again unless `fresh`. What cannot be read, or costs its process more than `memory_limit_bytes`,
    is an `error` with its reason and is not stored.

    Raises:
        CertiflowError: the store cannot be used, or a process cannot start.
    """
    results: dict[int, InstanceResult] = {}
    keys: dict[int, VerdictKey] = {}
    jobs: list[_Job] = []

    def arrived(index: int, result: InstanceResult) -> None:
        results[index] = result
        on_result(index, result)

    file_key = lru_cache(maxsize=None)(_file_key)
    for index, instance in enumerate(instances):
        try:
            keys[index] = _key(instance, engine, seed, file_key)
        except CertiflowError as error:
            arrived(index, InstanceResult("error", None, 0.0, reason=str(error)))
            continue
        known = store.get(keys[index]) if store is not None and not fresh else None
        if known is not None and known.verdict is not Verdict.FALSIFIED:
            arrived(index, _from_store(known))
        else:
            jobs.append(_Job(index, _absolute(instance), known))
    for outcome in run_jobs(
        PropertySolver,
        (engine, seed),
        sorted(jobs, key=_hardness, reverse=True),
        num_workers=num_workers,
        timeout_seconds=lambda job: job.instance.timeout_seconds + GRACE_SECONDS,
        memory_limit_bytes=memory_limit_bytes,
    ):
        index, result = outcome.job.index, _result(outcome)
        if store is not None and result.decided_by is not None and not result.stored:
            store.put(keys[index], _to_store(result, result.decided_by))
        arrived(index, result)
    return [results[index] for index in range(len(instances))]


class PropertySolver:
    """A worker's solver, which reads the files itself and remembers the models."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine, self.seed = engine, seed
        self.load = lru_cache(maxsize=CACHED_MODELS)(loading.load)
        self.question: tuple[LoadedModel, Property] | CertiflowError | None = None
        self.read_seconds = 0.0
        warm_up()

    def prepare(self, job: _Job) -> None:
        """Loads the model and the property, and holds the model against itself on its boxes."""
        started = time.monotonic()
        try:
            self.question = self._read(job.instance)
        except CertiflowError as error:
            self.question = error
        self.read_seconds = time.monotonic() - started

    def _read(self, instance: Instance) -> tuple[LoadedModel, Property]:
        model, prop = instance.model, instance.property
        name = model if isinstance(model, Path) else "the model"
        model = self.load(model) if isinstance(model, Path) else model
        if isinstance(prop, Path):
            prop = read_property(prop, model.network.num_inputs, model.network.num_outputs)
        try:
            check_agreement(model.network, model.runtime, box_points(prop.boxes))
        except CertiflowError as error:
            raise CertiflowError(f"{name}: {error}") from error
        return model, prop

    def __call__(self, job: _Job) -> InstanceResult:
        if isinstance(self.question, CertiflowError):
            return InstanceResult("error", None, 0.0, reason=str(self.question))
        assert self.question is not None
        model, prop = self.question
        stored = None if job.known is None else _replayed_again(model, prop, job.known)
        if stored is not None:
            return stored
        answer = decide(
            model.network,
            prop,
            engine=self.engine,
            timeout_seconds=job.instance.timeout_seconds,
            seed=self.seed,
        )
        result = _believed(model, prop, answer)
        return replace(result, stage_seconds={"read": self.read_seconds} | answer.stage_seconds)


def _believed(model: LoadedModel, prop: Property, answer: Answer) -> InstanceResult:
    """The ladder's answer, its counterexample replayed on the deployed model."""
    counterexample = None
    if len(answer.candidates):
        places = range(len(prop.unsafe)) if answer.region is None else [answer.region]
        found = (confirmed(model, prop.unsafe[index], answer.candidates) for index in places)
        counterexample = next((point for point in found if point is not None), None)
    if counterexample is not None:
        return InstanceResult("sat", answer.decided_by, 0.0, counterexample)
    if answer.verdict is Verdict.FALSIFIED:
        return InstanceResult("unknown", answer.decided_by, 0.0, reason=NEAR_BOUNDARY)
    return InstanceResult(
        WORDS.get(answer.verdict, answer.verdict.value),
        answer.decided_by,
        0.0,
        margin=answer.margin,
        deployed=answer.deployed,
        reason=answer.reason,
    )


def _replayed_again(
    model: LoadedModel, prop: Property, known: StoredVerdict
) -> InstanceResult | None:
    """The stored `sat`, if its point still takes the deployed model into an unsafe region."""
    result = _from_store(known)
    if result.counterexample is None:
        return None
    point = np.array([result.counterexample["X"]])
    if point.shape[1] != model.network.num_inputs:
        return None
    found = (reached(model, region, point) for region in prop.unsafe)
    counterexample = next((again for again in found if again is not None), None)
    return None if counterexample is None else replace(result, counterexample=counterexample)


def _result(outcome: Outcome[_Job, InstanceResult]) -> InstanceResult:
    """A process that had to be ended was in the stage that it reported last."""
    if outcome.answer is not None:
        known = outcome.answer.stored
        return outcome.answer if known else replace(outcome.answer, seconds=outcome.seconds)
    if outcome.ending is Ending.TIMEOUT:
        reason = f"time limit of {outcome.job.instance.timeout_seconds:g} s"
        stage = DecidedBy.in_stage(outcome.stage)
        return InstanceResult("timeout", stage, outcome.seconds, reason=reason)
    reason = " ".join(outcome.reason.split())
    return InstanceResult("error", None, outcome.seconds, reason=reason)


def _absolute(instance: Instance) -> Instance:
    """Workers stand in another folder."""
    model, prop = instance.model, instance.property
    return Instance(
        model.absolute() if isinstance(model, Path) else model,
        prop.absolute() if isinstance(prop, Path) else prop,
        instance.timeout_seconds,
    )


def _hardness(job: _Job) -> tuple[float, int]:
    model = job.instance.model
    if isinstance(model, Path):
        return job.instance.timeout_seconds, model.stat().st_size
    return job.instance.timeout_seconds, sum(
        layer.matrix.num_stored for layer in model.network.layers
    )


def _key(
    instance: Instance, engine: Engine, seed: int, file_key: Callable[[Path], str]
) -> VerdictKey:
    model, prop = instance.model, instance.property
    return VerdictKey(
        file_key(model) if isinstance(model, Path) else model.network.sha256,
        file_key(prop) if isinstance(prop, Path) else prop.sha256,
        f"{engine} v{ENGINE_VERSION} timeout {instance.timeout_seconds:g} seed {seed}",
    )


def _file_key(path: Path) -> str:
    """By its bytes, so that nothing must be parsed to find a stored verdict."""
    try:
        return f"file:{sha256_of(path.read_bytes())}"
    except OSError as error:
        raise CertiflowError(f"{path}: {error.strerror}; give the path of a file") from error


def _to_store(result: InstanceResult, decided_by: DecidedBy) -> StoredVerdict:
    found = result.counterexample
    return StoredVerdict(
        verdict=VERDICTS[result.verdict],
        decided_by=decided_by,
        seconds=result.seconds,
        margin=result.margin,
        deployed=result.deployed,
        reason=result.reason,
        stage_seconds=result.stage_seconds,
        points=None if found is None else np.array([*found["X"], np.nan, *found["Y"]]),
    )


def _from_store(known: StoredVerdict) -> InstanceResult:
    """The points of a `sat` are X and Y with a NaN between them: no input is NaN."""
    counterexample = None
    if known.points is not None:
        size = int(np.isnan(known.points).argmax())
        x, y = known.points[:size], known.points[size + 1 :]
        counterexample = {"X": x.tolist(), "Y": y.tolist()}
    return InstanceResult(
        WORDS.get(known.verdict, known.verdict.value),
        known.decided_by,
        known.seconds,
        counterexample,
        known.margin,
        known.deployed,
        known.reason,
        known.stage_seconds,
        stored=True,
    )
