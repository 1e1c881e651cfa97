"""The statement that is signed: what is claimed of which model, and the digests of all evidence.

An in-toto Statement v1; its subjects are the model's files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.core.bundle.described import DataDescription
from tasks.core.bundle.recount import ATTACKED, Name, Number
from tasks.core.errors import CertiflowError, first_line
from tasks.core.files import sha256_of

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:certiflow:robustness-evidence:v1"
ENVELOPE, KEY = "statement.dsse.json", "public_key.pem"
ONNX = "model/model.onnx"
TAXONOMY = "NIST AI 100-2 E2025"
EXACT = ("verification/exact_accuracy", "verification/exact_accuracy_high")
# Numbers that claim something of the model, rather than of the search or its costs.
CLAIMED = (
    "clean_accuracy",
    *ATTACKED,
    "verification/certified_accuracy",
    "verification/certified_deployed_accuracy",
    "verification/certified_recall",
    "verification/unbroken_accuracy",
    *EXACT,
    "radius/proved_mean",
    "radius/proved_q0.1",
    "radius/proved_q0.5",
)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ThreatModel(_Part):
    """Who attacks, in the words of NIST AI 100-2."""

    taxonomy: str = TAXONOMY
    stage: str = "deployment"
    attack: str = "evasion"
    objective: str = "integrity violation"
    knowledge: str = "white-box"
    capability: str = "testing data control, within the radius"


class InputDomain(_Part):
    """The points that a claim is of: by content, split and number."""

    dataset: str
    sha256: str
    split: Literal["test"] = "test"
    points: Literal["all", "stratified sample"]


class Claim(_Part):
    """One number. Without a radius and a threat model it is of inputs undisturbed.

    Attributes:
        n: how many points it is of.
        norm, unit: how distances are measured, and in what.
        date: when the run that found it began.
        who: who stands for it.
    """

    metric: str
    value: float
    n: int
    epsilon: float | None
    norm: str
    unit: str
    domain: InputDomain
    threat_model: ThreatModel | None
    date: str
    who: str

    @property
    def name(self) -> Name:
        """As `recount.numbers` names it."""
        return self.metric, self.epsilon


class File(_Part):
    """A file of the bundle by its content."""

    sha256: str
    size: int

    @classmethod
    def of(cls, content: bytes) -> File:
        """As it is."""
        return cls(sha256=sha256_of(content), size=len(content))


class Predicate(_Part):
    """What is claimed, by what it is shown, and what is missing.

    Attributes:
        subject: the version or run, as people name it.
        files: every file of the bundle but the envelope.
        absent: what a bundle may hold and this one does not, and why.
    """

    subject: str
    run_id: str
    certiflow: str
    made: str
    who: str
    claims: tuple[Claim, ...]
    files: dict[str, File]
    absent: dict[str, str]


class Subject(_Part):
    """A file of the model."""

    name: str
    digest: dict[str, str]


class Statement(_Part):
    """See https://in-toto.io/Statement/v1."""

    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")] = (
        STATEMENT_TYPE
    )
    subject: tuple[Subject, ...]
    predicate_type: Annotated[
        Literal["urn:certiflow:robustness-evidence:v1"], Field(alias="predicateType")
    ] = PREDICATE_TYPE
    predicate: Predicate

    @classmethod
    def of(cls, models: tuple[str, ...], predicate: Predicate) -> Statement:
        """About the files of the names `models`, which are among the predicate's."""
        subjects = tuple(
            Subject(name=name, digest={"sha256": predicate.files[name].sha256}) for name in models
        )
        return cls(subject=subjects, predicate=predicate)

    @classmethod
    def parsed(cls, payload: bytes) -> Statement:
        """Raises `CertiflowError` where the payload is no such statement."""
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            raise CertiflowError(
                f"{ENVELOPE}: holds no statement of certiflow's ({first_line(error)})"
            ) from error

    @property
    def text(self) -> bytes:
        """As JSON, the same for the same statement."""
        found: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        return json.dumps(found, sort_keys=True, ensure_ascii=False).encode()

    def differences(self, files: Mapping[str, bytes]) -> dict[str, str]:
        """What is wrong with the files that came with the statement, by their names."""
        stated, found = self.predicate.files, dict[str, str]()
        for name in sorted(stated.keys() | files.keys() - {ENVELOPE}):
            if name not in files:
                found[name] = "is missing"
            elif name not in stated:
                found[name] = "is not in the statement"
            elif File.of(files[name]) != stated[name]:
                found[name] = "is another file than was signed"
        for each in self.subject:
            stated_file = stated.get(each.name)
            if stated_file is None or each.digest != {"sha256": stated_file.sha256}:
                found.setdefault(each.name, "is a subject of another content")
        return found


def claims(
    values: Mapping[Name, float],
    counts: Mapping[Name, Number],
    data: DataDescription,
    date: str,
    who: str,
) -> tuple[Claim, ...]:
    """What a run's values claim; `counts` say of how many points each is."""
    found = []
    for name in sorted(values.keys() & counts.keys(), key=lambda n: (n[0], n[1] or 0.0)):
        metric, epsilon = name
        is_curve = epsilon is None and (metric in ATTACKED or metric.startswith("verification/"))
        if metric not in CLAIMED or is_curve:
            continue
        of_all = metric == "clean_accuracy" or metric in ATTACKED or metric in EXACT
        found.append(
            Claim(
                metric=metric,
                value=values[name],
                n=counts[name].n,
                epsilon=epsilon,
                norm=data.norm,
                unit=data.unit,
                domain=InputDomain(
                    dataset=data.name,
                    sha256=data.sha256,
                    points="all" if of_all else "stratified sample",
                ),
                threat_model=None if metric == "clean_accuracy" else ThreatModel(),
                date=date,
                who=who,
            )
        )
    return tuple(found)
