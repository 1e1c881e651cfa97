"""What stages tell each other and people: small records, written as JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tasks.core.data.drift import Drift
from tasks.core.evidence.paired import Difference
from tasks.tracking import DECISION

SIGNIFICANCE = 0.05
REQUIREMENTS = "tables/properties_summary.csv"  # of a run: a row for each, and radius


class Summary(BaseModel):
    """What a run found; `--json` writes it, the last screen shows it.

    `clean_accuracy`, `measures` and `epsilon_grid` are of all `test_images` (rows, of a table: see
    `noun`), `verification` of a sample with equal numbers of each class; recalls of class
    `positive`. Accuracy is of numbers the share within `tolerance` of the target.
    `median_radius` is the median critical radius, [proved, falsified], of `radius_points` sampled
    points; None where it was not asked. `properties` has a row for each requirement and radius.
    `url` is `RunRef.url`. `champion` says that the run made
    its version, the model's first, the champion.
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    run_name: str
    url: str
    dataset: str
    dataset_requested: str
    architecture: str
    model_version: str
    champion: bool = False
    test_images: int
    clean_accuracy: float
    measures: dict[str, float] = {}
    positive: str | None = None
    tolerance: float | None = None
    noun: str = "image"
    epsilon_grid: list[dict[str, float]]
    verification: list[dict[str, float]]
    median_radius: tuple[float, float] | None
    radius_points: int
    properties: list[dict[str, Any]] = []
    warnings: list[str]
    reference: dict[str, tuple[float, float]]  # name: (theirs, ours)
    figure: str
    folder: str


Word = Literal["promoted", "refused", "forced", "rolled back", "restored"]


class Decision(BaseModel):
    """What was decided on a version, and the numbers it rests on (empty without a comparison).

    `against` is the champion it was compared with, or took the place of; `evidence` the SHA-256 of
    the audited bundle that it rests on, where one was demanded.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    decision: Word
    reason: str
    against: int | None
    numbers: dict[str, int | float] = {}
    evidence: str | None = None
    by: str
    at: str

    @property
    def tags(self) -> dict[str, Any]:
        """As tags of the version."""
        values = self.model_dump(include={"reason", "against", "evidence", "by", "at"})
        return {DECISION: self.decision} | {
            f"promotion.{key}": value
            for key, value in (values | self.numbers).items()
            if value is not None
        }


class Row(BaseModel):
    """A line of the comparison.

    Attributes:
        points: how many each measure sums up.
        intervals: of the shares of the verified sample, at 95%.
        differences: to the champion, on the same points.
    """

    model_config = ConfigDict(frozen=True)

    version: int | None
    aliases: tuple[str, ...]
    run_id: str
    run_name: str
    architecture: str
    measures: dict[str, float | None]
    certified_deployed_accuracy: float | None
    points: dict[str, int]
    intervals: dict[str, tuple[float, float]]
    costs: dict[str, float]
    differences: dict[str, Difference]


class Comparison(BaseModel):
    """The versions of one dataset, best first.

    `epsilon` is the reference radius: asked for, or the champion's, or the newest run's.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    epsilon: float
    champion: int | None
    significance: float = SIGNIFICANCE
    rows: list[Row]


class DataCheck(BaseModel):
    """What a retraining knows before it trains.

    Attributes:
        champion: the version in service, if any.
        changed: the data are not those that the champion was trained on.
        drift: population stability indices against the champion's training data, by part of the
            profile; None without a champion or its profile.
        judged: the version that was trained on these data with these settings and judged already.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    sha256: str
    champion: int | None
    changed: bool
    drift: Drift | None
    judged: int | None

    @property
    def sentence(self) -> str:
        """The finding in one line."""
        if self.champion is None:
            return f"{self.dataset}: no champion yet to compare the data with"
        if not self.changed:
            return f"{self.dataset}: the data are those of champion {self.champion}"
        if self.drift is None:
            return f"{self.dataset}: new data; champion {self.champion} has no profile of its own"
        parts = ", ".join(f"{name} {value:.3f}" for name, value in self.drift.parts().items())
        if self.drift.feature:
            parts += f", most {self.drift.feature}"
        return (
            f"{self.dataset}: new data, drift from champion {self.champion}'s: {self.drift.word} "
            f"(stability index: {parts})"
        )


class StudySummary(BaseModel):
    """What a study found; `failed` holds the reasons by the configurations' names."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    run_name: str
    url: str
    folder: str
    runs: dict[str, str]
    failed: dict[str, str]
    comparison: Comparison


class ModelSummary(BaseModel):
    """What was found; `--json` writes it. Sections that were not asked are empty."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    run_name: str
    url: str
    folder: str
    model: str
    dataset: str
    verification: list[dict[str, Any]] = []
    radius: list[dict[str, Any]] = []
    global_robustness: list[dict[str, Any]] = []


class RetrainSummary(BaseModel):
    """What a retraining came to; without a summary there was nothing to do."""

    model_config = ConfigDict(frozen=True)

    outcome: str
    check: DataCheck
    summary: Summary | None = None
    decision: Decision | None = None
    page: str | None = None
