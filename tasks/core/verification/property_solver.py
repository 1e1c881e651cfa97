"""One property of one model, decided in a worker's process, which reads both by itself.

A `sat` is believed only when the deployed float32 model reaches the unsafe region, also when it
comes from the store; an `unsat` only when the ladder proved it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain

import numpy as np

from tasks.core.errors import CertiflowError
from tasks.core.models import loading
from tasks.core.models.agreement import box_points, check_agreement
from tasks.core.models.loading import LoadedModel
from tasks.core.properties.specification import Property
from tasks.core.properties.vnnlib import read_property
from tasks.core.search.answer import Answer
from tasks.core.search.ladder import decide, warm_up
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Engine, Verdict
from tasks.core.verification.counterexamples import confirmed, reached
from tasks.core.verification.input_files import InputFile

VNNCOMP_WORDS = {Verdict.ROBUST: "unsat", Verdict.FALSIFIED: "sat"}  # the others are the same
CACHED_MODELS = 8  # in each worker


@dataclass(frozen=True)
class InstanceResult:
    """The answer.

    Attributes:
        verdict: VNN-COMP's word: sat, unsat, unknown, timeout, error.
        decided_by: the stage that gave the verdict, or the last one that tried; None with `error`,
            and where no input satisfies the property's bounds.
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
class PropertyJob:
    """Whether any unsafe region of `property` is reached by `model` in `timeout_seconds`.

    `content` is the property file's where workers cannot open it; `known` is a stored `sat`, to be
    replayed.
    """

    index: int
    model: InputFile | LoadedModel
    property: InputFile | Property
    timeout_seconds: float
    content: bytes | None = None
    known: InstanceResult | None = None


class PropertySolver:
    """A worker's solver, which reads the files itself and remembers the models.

    `contents` holds, by digest, model files that it cannot open.
    """

    def __init__(self, engine: Engine, seed: int, contents: Mapping[str, bytes]) -> None:
        self.engine, self.seed, self.contents = engine, seed, contents
        self.load = lru_cache(maxsize=CACHED_MODELS)(self._load)
        self.asked: tuple[LoadedModel, Property] | CertiflowError | None = None
        self.read_seconds = 0.0
        warm_up()

    def prepare(self, job: PropertyJob) -> None:
        """Loads the model and the property, and holds the model against itself on its boxes."""
        started = time.monotonic()
        try:
            self.asked = self._read(job)
        except CertiflowError as error:
            self.asked = error
        self.read_seconds = time.monotonic() - started

    def _read(self, job: PropertyJob) -> tuple[LoadedModel, Property]:
        model = job.model
        name = model.path if isinstance(model, InputFile) else "the model"
        file = model if isinstance(model, InputFile) else None
        model = self.load(file) if file is not None else job.model
        assert isinstance(model, LoadedModel)
        if file is not None and model.ending != "logits" and not model.has_softmax:
            model = self.load(file, whole=True)  # what a property asks of is the file's output
        prop = self._property(job, model)
        if file is not None and not prop.compares_outputs(model.network.num_outputs):
            model = self.load(file, whole=True) if model.has_softmax else model
        if model.ending != "logits" and not (
            model.has_softmax and prop.compares_outputs(model.network.num_outputs)
        ):
            raise CertiflowError(
                f"{name}: ends with a {model.ending}, and the property asks more than which output "
                "is greater: it can be proved of logits only; export the model up to them"
            )
        if prop.contradiction:
            return model, prop
        try:
            check_agreement(model.network, model.runtime, box_points(prop.boxes))
        except CertiflowError as error:
            raise CertiflowError(f"{name}: {error}") from error
        return model, prop

    @staticmethod
    def _property(job: PropertyJob, model: LoadedModel) -> Property:
        prop, network = job.property, model.network
        if isinstance(prop, Property):
            return prop
        with prop.opened(job.content) as path:
            return read_property(path, network.num_inputs, network.num_outputs)

    def _load(self, file: InputFile, *, whole: bool = False) -> LoadedModel:
        with file.opened(self.contents.get(file.sha256)) as path:
            return loading.load(path, whole=whole)

    def __call__(self, job: PropertyJob) -> InstanceResult:
        if isinstance(self.asked, CertiflowError):
            return InstanceResult("error", None, 0.0, reason=str(self.asked))
        assert self.asked is not None
        model, prop = self.asked
        if prop.contradiction:
            return InstanceResult("unsat", None, 0.0, deployed=True, reason=prop.contradiction)
        stored = None if job.known is None else _replayed_again(model, prop, job.known)
        if stored is not None:
            return stored
        answer = decide(
            model.network,
            prop,
            engine=self.engine,
            timeout_seconds=job.timeout_seconds,
            seed=self.seed,
        )
        result = _believed(model, prop, answer)
        return replace(result, stage_seconds={"read": self.read_seconds} | answer.stage_seconds)


def _believed(model: LoadedModel, prop: Property, answer: Answer) -> InstanceResult:
    """The ladder's answer, its counterexample replayed on the deployed model.

    Only in the region that the answer names, if it names one, is it worth to go deeper.
    """
    named = prop.unsafe if answer.region is None else (prop.unsafe[answer.region],)
    found = chain(
        (confirmed(model, region, answer.candidates) for region in named),
        (reached(model, region, answer.candidates) for region in prop.unsafe),
    )
    counterexample = None
    if len(answer.candidates):
        counterexample = next((point for point in found if point is not None), None)
    if counterexample is not None:
        return InstanceResult("sat", answer.decided_by, 0.0, counterexample)
    if answer.verdict is Verdict.FALSIFIED:
        return InstanceResult("unknown", answer.decided_by, 0.0, reason=NEAR_BOUNDARY)
    return InstanceResult(
        VNNCOMP_WORDS.get(answer.verdict, answer.verdict.value),
        answer.decided_by,
        0.0,
        margin=answer.margin,
        deployed=answer.deployed,
        reason=answer.reason,
    )


def _replayed_again(
    model: LoadedModel, prop: Property, known: InstanceResult
) -> InstanceResult | None:
    """The stored `sat`, if its point still takes the deployed model into an unsafe region."""
    if known.counterexample is None:
        return None
    point = np.array([known.counterexample["X"]])
    if point.shape[1] != model.network.num_inputs:
        return None
    found = (reached(model, region, point) for region in prop.unsafe)
    counterexample = next((again for again in found if again is not None), None)
    return None if counterexample is None else replace(known, counterexample=counterexample)
