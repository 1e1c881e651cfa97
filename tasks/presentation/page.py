"""The report page: versions on one self-contained HTML page, logged in MLflow."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.image import imsave
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from tasks.core.errors import CertiflowError
from tasks.core.evidence import version_figures
from tasks.core.evidence.version_figures import svg
from tasks.core.files import output_file
from tasks.core.sources import catalogue
from tasks.core.verdicts import Verdict
from tasks.presentation import audit, comparison
from tasks.presentation.comparison import Contender
from tasks.presentation.comparison_view import COLUMNS, UNKNOWN, view
from tasks.presentation.descriptions import of_share
from tasks.presentation.records import REQUIREMENTS, Comparison
from tasks.settings import TrackingSettings, decimal
from tasks.tracking import DECISION, log_text

NAME = "report.html"
AGAINST = "promotion.against"
HARDEST = 6
MOST_CHANGES = 6  # of a row


class Page(BaseModel):
    """A page that was written, and the run that it is logged on."""

    model_config = ConfigDict(frozen=True)

    path: Path
    run_id: str
    run_name: str


@task(name="page", cache_policy=NO_CACHE)
def page(runs: Sequence[str]) -> Page:
    """`write` for runs and versions as `compare` takes them."""
    return write(comparison.collect(runs, ""))


def write(
    contenders: Sequence[Contender], epsilon: float | None = None, path: Path | None = None
) -> Page:
    """Writes the page, and logs it on the newest run as `report.html`.

    `contenders` are in `collect`'s order, the newest first; `path` is in that run's folder by
    default.

    Raises:
        CertiflowError: they are of several datasets; the store does not answer.
    """
    compared = comparison.compare(contenders, epsilon)
    if len(compared) > 1:
        names = " and ".join(each.dataset for each in compared)
        raise CertiflowError(f"runs on {names}: a page is about one dataset; name runs of one")
    newest = contenders[0].run
    folder = Path(newest.params.get("tracking.output", TrackingSettings().output))
    path = (path or folder / newest.name / NAME).absolute()
    text = rendered(contenders, compared[0])
    with output_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    log_text(newest.run_id, text, NAME)
    return Page(path=path, run_id=newest.run_id, run_name=newest.name)


def rendered(contenders: Sequence[Contender], compared: Comparison) -> str:
    """The page's text, on what `comparison.compare` made of the contenders."""
    by_run = {contender.run.run_id: contender for contender in contenders}
    ranked = [by_run[row.run_id] for row in compared.rows]
    evidence = {each.label: each.evidence for each in ranked}
    radii = version_figures.radii(evidence)
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html").render(
        title=f"{compared.dataset}: how robust, and what of that is proved",
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        epsilon=decimal(compared.epsilon),
        columns=COLUMNS,
        shown=view(compared),
        curves=svg(version_figures.curves(evidence, compared.epsilon)),
        stages=svg(version_figures.stages(evidence, compared.epsilon)),
        radii=None if radii is None else svg(radii),
        is_table=_is_table(contenders[0]),
        points=_hardest(contenders[0], ranked),
        requirements=_requirements(ranked),
        decisions=_decisions(ranked),
        settings=_differing_settings(ranked),
        audits=[audit.of(each) for each in ranked],
    )


def _is_table(contender: Contender) -> bool:
    return catalogue.is_table(contender.run.params.get("data.dataset", contender.dataset))


def _hardest(newest: Contender, ranked: Sequence[Contender]) -> list[dict[str, Any]]:
    """The points that the newest version gets right and that break at its smallest radii."""
    table = newest.evidence.verification
    broken = table[(table["verdict"] == Verdict.FALSIFIED) & (table["decided_by"] != "clean")]
    least = broken.sort_values(["epsilon", "margin"]).drop_duplicates("sample_index")
    points = []
    for row in least.head(HARDEST).to_dict("records"):
        index, label = int(row["sample_index"]), str(row["label"])
        found = _counterexample(newest, index, float(row["epsilon"])) or {}
        label = str(found.get("classes", [label])[0])
        points.append({"index": index, "label": label, "shown": _shown(index, ranked)})
    return points


def _shown(sample: int, ranked: Sequence[Contender]) -> list[dict[str, Any]]:
    """The image itself, and for each version the counterexample of the smallest radius.

    An image's is a picture, a row's what was changed of it.
    """
    clean: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for contender in ranked:
        table = contender.evidence.verification
        rows = table[table["sample_index"] == sample].sort_values("epsilon")
        broken = rows[rows["verdict"] == Verdict.FALSIFIED]
        if len(rows) == 0:
            said, arrays = "not looked at", None
        elif len(broken) == 0:
            robust = rows[rows["verdict"] == Verdict.ROBUST]["epsilon"]
            said, arrays = f"not broken; proved up to {robust.max() if len(robust) else 0:g}", None
        elif broken["decided_by"].iloc[0] == "clean":
            said, arrays = "wrong undisturbed", None
        else:
            epsilon = float(broken["epsilon"].iloc[0])
            arrays = _counterexample(contender, sample, epsilon)
            names = {} if arrays is None else arrays
            taken_for = names.get("classes", ["", int(broken["target"].iloc[0])])[1]
            said = f"{taken_for} at ε {decimal(epsilon)}"
        caption = f"{contender.label}: {said}"
        changes = [] if arrays is None else arrays.get("changes", np.array([])).tolist()
        if arrays is None or changes:
            shown.append({"caption": caption, "source": "", "changes": _fewer(changes)})
            continue
        if "clean" in arrays and not clean:
            clean = [{"caption": "undisturbed", "source": _png(arrays["clean"]), "changes": []}]
        shown.append({"caption": caption, "source": _png(arrays["image"]), "changes": []})
    return clean + shown


def _fewer(changes: list[str]) -> list[str]:
    more = len(changes) - MOST_CHANGES
    return changes if more <= 0 else [*changes[:MOST_CHANGES], f"and {more} more"]


def _counterexample(contender: Contender, sample: int, epsilon: float) -> dict[str, Any] | None:
    name = f"sample_{sample}_eps_{decimal(epsilon)}.npz"
    path = contender.run.artifact(f"counterexamples/{name}")
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def _png(image: Any) -> str:
    """A data URI: the page fetches nothing."""
    buffer = io.BytesIO()
    pixels = np.atleast_2d(np.squeeze(image))
    imsave(buffer, pixels, cmap="gray", vmin=0, vmax=1, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _requirements(ranked: Sequence[Contender]) -> list[tuple[str, ...]]:
    """Version, requirement, radius, points, shares proved and broken, and a counterexample."""
    found: list[tuple[str, ...]] = []
    for contender in ranked:
        path = contender.run.artifact(REQUIREMENTS)
        table = pd.DataFrame() if path is None else pd.read_csv(path, keep_default_na=False)
        for row in table.to_dict("records"):
            radius, points = decimal(float(row["epsilon"])), str(row["points"])
            shares = (of_share(row, "certified"), f"{row['falsified']:.2%}")
            requirement, example = str(row["requirement"]), str(row["counterexample"])
            found.append((contender.label, requirement, radius, points, *shares, example))
    return found


def _decisions(ranked: Sequence[Contender]) -> list[tuple[str, str, str, str]]:
    """Version, what was decided on it, against which at which radius, and why."""
    return [
        (
            f"v{each.version}",
            each.decision[DECISION],
            _against(each.decision),
            each.decision["promotion.reason"],
        )
        for each in ranked
        if DECISION in each.decision
    ]


def _against(decision: Mapping[str, str]) -> str:
    version, epsilon = decision.get(AGAINST), decision.get("promotion.epsilon")
    if version is None:
        return UNKNOWN
    return f"v{version}" if epsilon is None else f"v{version} at ε {epsilon}"


def _differing_settings(ranked: Sequence[Contender]) -> list[tuple[str, list[str]]]:
    params = [each.run.params for each in ranked]
    keys = sorted({key for each in params for key in each})
    values = {key: [each.get(key, UNKNOWN) for each in params] for key in keys}
    return [(key, found) for key, found in values.items() if len(set(found)) > 1]
