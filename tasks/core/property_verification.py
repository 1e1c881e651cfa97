"""Models and properties from outside, verified in separate processes; no verdict is lost.

A `sat` is believed only when the deployed float32 model reaches the unsafe region, an `unsat` only
when the ladder proved it. Verdicts are kept in a store as they arrive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from tasks.core import falsification, models
from tasks.core.engine_version import ENGINE_VERSION
from tasks.core.errors import CertiflowError
from tasks.core.files import sha256_of
from tasks.core.ladder import Answer, Engine, decide, warm_up
from tasks.core.models import LoadedModel
from tasks.core.specification import FloatArray, Property, UnsafeRegion
from tasks.core.verdict_store import StoredVerdict, VerdictKey, VerdictStore
from tasks.core.verdicts import DecidedBy, Verdict
from tasks.core.vnnlib import read_property
from tasks.core.worker_pool import Ending, Outcome, run_jobs

WORDS = {Verdict.ROBUST: "unsat", Verdict.FALSIFIED: "sat"}  # VNN-COMP's; the others are the same
VERDICTS = {WORDS.get(verdict, verdict.value): verdict for verdict in Verdict}
NEAR_BOUNDARY = "near_boundary"
GRACE_SECONDS = 2.0  # for the last step of a stage, before the process is ended from outside
POLISH_STEPS = 100
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
        seconds: from reading the files to replaying the counterexample.
        counterexample: `X` inside the box and the deployed model's own outputs `Y`; with `sat`.
        reason: why there is no other verdict, one line.
        stage_seconds: the part of `seconds` that each stage took, reading the files included.
        stored: whether it was computed by an earlier run.
    """

    verdict: str
    decided_by: DecidedBy | None
    seconds: float
    counterexample: dict[str, list[float]] | None = None
    reason: str = ""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stored: bool = False


@dataclass(frozen=True, eq=False)
class _Job:
    index: int
    instance: Instance


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
        if known is not None:
            arrived(index, _from_store(known))
    jobs = [_Job(index, _absolute(instances[index])) for index in keys if index not in results]
    for outcome in run_jobs(
        make_solver,
        (engine, seed),
        sorted(jobs, key=_hardness, reverse=True),
        num_workers=num_workers,
        timeout_seconds=lambda job: job.instance.timeout_seconds + GRACE_SECONDS,
        memory_limit_bytes=memory_limit_bytes,
    ):
        index, result = outcome.job.index, _result(outcome)
        if store is not None and result.verdict != "error":
            store.put(keys[index], _to_store(result))
        arrived(index, result)
    return [results[index] for index in range(len(instances))]


def make_solver(engine: Engine, seed: int) -> Callable[[_Job], InstanceResult]:
    """A worker's solver, which reads the files itself and remembers the models."""
    load = lru_cache(maxsize=CACHED_MODELS)(models.load)
    warm_up()

    def solve(job: _Job) -> InstanceResult:
        instance, started = job.instance, time.monotonic()
        try:
            model = instance.model
            model = load(model) if isinstance(model, Path) else model
            prop = instance.property
            if isinstance(prop, Path):
                prop = read_property(prop, model.network.num_inputs, model.network.num_outputs)
            reading = time.monotonic() - started
            answer = decide(
                model.network,
                prop,
                engine=engine,
                timeout_seconds=max(instance.timeout_seconds - reading, 0.0),
                seed=seed,
            )
            result = _believed(model, prop, answer)
        except CertiflowError as error:
            return InstanceResult("error", None, 0.0, reason=str(error))
        return replace(result, stage_seconds={"read": reading} | answer.stage_seconds)

    return solve


def replayed(
    model: LoadedModel, region: UnsafeRegion, candidates: FloatArray
) -> dict[str, list[float]] | None:
    """The first candidate that the deployed model takes into `region`, without any tolerance.

    Each of the candidates, shape (n, inputs), is moved to a float32 point of the box; where the box
    holds no float32 number, the model is fed the nearest one and X stays a number of the box.
    """
    box = region.box
    lower, upper = box.float32_bounds()
    for candidate in np.clip(candidates, box.lower, box.upper):
        thin = (lower > upper)[0]
        inside = np.minimum(np.maximum(candidate.astype(np.float32), lower[0]), upper[0])
        fed = np.where(thin, candidate.astype(np.float32), inside)
        x = np.where(thin, candidate, fed.astype(np.float64))
        y = model.runtime.logits(fed.reshape(1, *model.input_shape))[0].astype(np.float64)
        speaks_of_inputs = region.rows.shape[1] > len(y)
        values = np.append(y, x) if speaks_of_inputs else y
        if region.excess(values[None])[0] <= 0:
            return {"X": x.tolist(), "Y": y.tolist()}
    return None


def confirmed(
    model: LoadedModel, region: UnsafeRegion, candidates: FloatArray
) -> dict[str, list[float]] | None:
    """A counterexample among the candidates, as `replayed` says, else deeper in the region."""
    found = replayed(model, region, candidates)
    if found is not None:
        return found
    network = model.network
    if region.rows.shape[1] > network.num_outputs:
        network = network.with_inputs()
    deeper, _ = falsification.descend(
        network, region.box, region, candidates, num_steps=POLISH_STEPS
    )
    return replayed(model, region, deeper)


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
    word = WORDS.get(answer.verdict, answer.verdict.value)
    return InstanceResult(word, answer.decided_by, 0.0, reason=answer.reason)


def _result(outcome: Outcome[_Job, InstanceResult]) -> InstanceResult:
    """Only the solver holds up its process beyond the limit that the ladder keeps."""
    if outcome.answer is not None:
        return replace(outcome.answer, seconds=outcome.seconds)
    if outcome.ending is Ending.TIMEOUT:
        limit = outcome.job.instance.timeout_seconds
        reason = f"time limit of {limit:g} s"
        return InstanceResult("timeout", DecidedBy.MARABOU, outcome.seconds, reason=reason)
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


def _to_store(result: InstanceResult) -> StoredVerdict:
    assert result.decided_by is not None
    found = result.counterexample
    return StoredVerdict(
        verdict=VERDICTS[result.verdict],
        decided_by=result.decided_by,
        seconds=result.seconds,
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
        known.reason,
        known.stage_seconds,
        stored=True,
    )
