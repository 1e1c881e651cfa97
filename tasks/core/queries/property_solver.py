"""A property of one model or of several, decided in a worker's process, which reads them itself.

A `sat` is believed only when the deployed float32 model reaches the unsafe region, also when it
comes from the store; an `unsat` only when the ladder proved it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import chain

import numpy as np

from tasks.core.errors import CertiflowError
from tasks.core.models import loading
from tasks.core.models.agreement import box_points, check_agreement
from tasks.core.models.joined import joined
from tasks.core.models.loading import LoadedModel
from tasks.core.properties.equivalence import Equivalence
from tasks.core.properties.query import Assigned, Interface, Query
from tasks.core.properties.specification import Property
from tasks.core.properties.vnnlib import read_query
from tasks.core.queries.counterexamples import confirmed, reached
from tasks.core.queries.input_files import InputFile
from tasks.core.queries.several import decide_of_several
from tasks.core.search.answer import Answer
from tasks.core.search.ladder import decide, warm_up
from tasks.core.verdicts import NEAR_BOUNDARY, DecidedBy, Engine, Verdict

VNNCOMP_WORDS = {Verdict.ROBUST: "unsat", Verdict.FALSIFIED: "sat"}  # the others are the same
VERDICTS = {VNNCOMP_WORDS.get(verdict, verdict.value): verdict for verdict in Verdict}
CACHED_MODELS = 8  # in each worker


@dataclass(frozen=True)
class InstanceResult:
    """The answer.

    Attributes:
        verdict: VNN-COMP's word: sat, unsat, unknown, timeout, error.
        decided_by: the stage that gave the verdict, or the last one that tried; None with `error`,
            and where no input satisfies the property's bounds.
        seconds: of solving and of replaying the counterexample; to load the files is not solving.
        counterexample: `X` inside the box and the deployed model's own outputs `Y`; with `sat`. Of
            several models the inputs and outputs of each, one after the other.
        margin: with `unsat`, what is proved of the least excess over all unsafe regions.
        deployed: with `unsat`, whether that holds for the deployed float32 model as well.
        reason: why there is no other verdict, one line.
        stage_seconds: what each stage took; `read` is to load the files.
        stored: whether it was computed by an earlier run.
        assigned: the counterexample by the variables of a file of VNN-LIB 2.0.
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
    assigned: tuple[Assigned, ...] = ()


@dataclass(frozen=True, eq=False)
class PropertyJob:
    """Whether any unsafe region of `property` is reached by `model` in `timeout_seconds`.

    Files of several models come by the names of the property's networks. `content` is the property
    file's where workers cannot open it; `known` is a stored `sat`, to be replayed.
    """

    index: int
    model: InputFile | LoadedModel | dict[str, InputFile]
    property: InputFile | Property | Equivalence
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
        self.asked: Asked | CertiflowError | None = None
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

    def _read(self, job: PropertyJob) -> Asked:
        files = job.model if isinstance(job.model, dict) else {"": job.model}
        of_logits = isinstance(job.property, Equivalence)
        models = {name: self._model(file, of_logits) for name, file in files.items()}
        query = _query(job, models)
        for name, file in files.items():
            if isinstance(file, InputFile) and not _is_about_logits(query, models[name]):
                models[name] = self.load(file, whole=True)
        if query.of_logits and len({model.ending for model in models.values()}) > 1:
            endings = " and ".join(f"{name} with {models[name].ending}" for name in models)
            raise CertiflowError(f"the models end differently, {endings}: export both up to logits")
        shown = [str(f.path) if isinstance(f, InputFile) else "the model" for f in files.values()]
        for name, model in zip(shown, models.values(), strict=True):
            check_ending(name, model, query)
        asked = Asked([list(models.values())[place] for place in query.models], query)
        asked.check(", ".join(shown))
        return asked

    def _model(self, file: InputFile | LoadedModel, of_logits: bool) -> LoadedModel:
        """With a single sigmoid at its end, if the question is about what the file gives."""
        if not isinstance(file, InputFile):
            return file
        model = self.load(file)
        if of_logits or model.ending == "logits" or model.has_softmax:
            return model
        return self.load(file, whole=True)

    def _load(self, file: InputFile, *, whole: bool = False) -> LoadedModel:
        with file.opened(self.contents.get(file.sha256)) as path:
            return loading.load(path, whole=whole)

    def __call__(self, job: PropertyJob) -> InstanceResult:
        if isinstance(self.asked, CertiflowError):
            return InstanceResult("error", None, 0.0, reason=str(self.asked))
        assert self.asked is not None
        asked, contradiction = self.asked, self.asked.query.prop.contradiction
        if contradiction:
            return InstanceResult("unsat", None, 0.0, deployed=True, reason=contradiction)
        stored = None if job.known is None else _replayed_again(asked, job.known)
        if stored is not None:
            return stored
        answer = asked.decided(self.engine, job.timeout_seconds, self.seed)
        result = believed(asked, answer)
        return replace(result, stage_seconds={"read": self.read_seconds} | answer.stage_seconds)


@dataclass(frozen=True, eq=False)
class Asked:
    """A question with the models of its networks."""

    models: list[LoadedModel]
    query: Query

    @cached_property
    def model(self) -> LoadedModel:
        """All of them as one."""
        if self.query.is_of_several:
            return joined(self.models, self.query.columns)
        return self.models[0]

    def check(self, name: str) -> None:
        """Raises `CertiflowError`, which begins with `name`, where models are not what was read."""
        if self.query.prop.contradiction:
            return
        try:
            boxes = box_points(self.query.prop.boxes)
            check_agreement(self.model.network, self.model.runtime, boxes)
        except CertiflowError as error:
            raise CertiflowError(f"{name}: {error}") from error

    def decided(
        self, engine: Engine, timeout_seconds: float, seed: int, *, with_marabou: bool = True
    ) -> Answer:
        """The ladder's answer, of one network or of several."""
        if not self.query.is_of_several:
            return decide(
                self.model.network,
                self.query.prop,
                engine=engine,
                timeout_seconds=timeout_seconds,
                seed=seed,
                with_marabou=with_marabou,
            )
        return decide_of_several(
            [model.network for model in self.models],
            self.query.columns,
            self.query.prop,
            engine=engine,
            timeout_seconds=timeout_seconds,
            seed=seed,
        )

    def sat(
        self, decided_by: DecidedBy | None, seconds: float, found: dict[str, list[float]]
    ) -> InstanceResult:
        """With the counterexample's X as the inputs of each network, and by the file's names."""
        x = self.query.expanded(np.array(found["X"])).tolist()
        assigned = self.query.assigned(x, found["Y"])
        shown = {"X": x, "Y": found["Y"]}
        return InstanceResult("sat", decided_by, seconds, shown, assigned=assigned)


def _query(job: PropertyJob, models: Mapping[str, LoadedModel]) -> Query:
    interfaces = {
        name: Interface(model.input_shape, model.network.num_outputs)
        for name, model in models.items()
    }
    match job.property:
        case Equivalence() as equivalence:
            return equivalence.query(interfaces)
        case Property() as prop:
            (model,) = interfaces.values()
            return Query.of_one(prop, model.num_inputs)
        case file:
            with file.opened(job.content) as path:
                return read_query(path, interfaces)


def _is_about_logits(query: Query, model: LoadedModel) -> bool:
    """Whether the question can be asked of the logits: so is which probability is greater."""
    if model.ending == "logits" or query.of_logits:
        return True
    compares = query.prop.compares_outputs(model.network.num_outputs)
    return model.has_softmax and compares and not query.is_of_several


def check_ending(name: str, model: LoadedModel, query: Query) -> None:
    """A property may be of logits alone, or of which of them is greater."""
    if not _is_about_logits(query, model):
        raise CertiflowError(
            f"{name}: ends with a {model.ending}, and the property asks more than which output is "
            "greater: it can be proved of logits only; export the model up to them"
        )


def believed(asked: Asked, answer: Answer) -> InstanceResult:
    """The ladder's answer, its counterexample replayed on the deployed model.

    Only in the region that the answer names, if it names one, is it worth to go deeper.
    """
    model, prop = asked.model, asked.query.prop
    named = prop.unsafe if answer.region is None else (prop.unsafe[answer.region],)
    found = chain(
        (confirmed(model, region, answer.candidates, prop.domain) for region in named),
        (reached(model, region, answer.candidates, prop.domain) for region in prop.unsafe),
    )
    counterexample = None
    if len(answer.candidates):
        counterexample = next((point for point in found if point is not None), None)
    if counterexample is not None:
        return asked.sat(answer.decided_by, 0.0, counterexample)
    if answer.verdict is Verdict.FALSIFIED:
        return InstanceResult("unknown", answer.decided_by, 0.0, reason=NEAR_BOUNDARY)
    return InstanceResult(
        VNNCOMP_WORDS.get(answer.verdict, answer.verdict.value),
        answer.decided_by,
        0.0,
        margin=answer.margin,
        deployed=None if answer.deployed is None else answer.deployed and _reaches_ending(asked),
        reason=answer.reason,
    )


def _reaches_ending(asked: Asked) -> bool:
    """Whether what float32 logits are proved to do, probabilities in float32 do as well.

    So they do where the greatest is compared with the others: of two that are both small, either
    or both may be 0.
    """
    model, query = asked.model, asked.query
    if query.of_logits or not model.has_softmax:
        return True
    return query.prop.is_of_labels(model.network.num_outputs)


def _replayed_again(asked: Asked, known: InstanceResult) -> InstanceResult | None:
    """The stored `sat`, if its point still takes the deployed model into an unsafe region."""
    if known.counterexample is None:
        return None
    expanded = np.array(known.counterexample["X"])
    if len(expanded) != sum(map(len, asked.query.columns)):
        return None
    point, prop = asked.query.joined(expanded)[None], asked.query.prop
    found = (reached(asked.model, region, point, prop.domain) for region in prop.unsafe)
    again = next((each for each in found if each is not None), None)
    if again is None:
        return None
    result = asked.sat(known.decided_by, known.seconds, again)
    return replace(result, stage_seconds=known.stage_seconds, stored=True)
