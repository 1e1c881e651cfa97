"""The report page: versions on one self-contained HTML page, logged in MLflow."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.image import imsave
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from tasks import comparison
from tasks.comparison import Contender
from tasks.core.errors import CertiflowError
from tasks.core.evidence import version_figures
from tasks.core.evidence.comparison import MEASURES
from tasks.core.evidence.paired import BOOTSTRAP, MCNEMAR
from tasks.core.evidence.version_figures import svg
from tasks.core.files import output_file
from tasks.core.verdicts import Verdict
from tasks.records import Comparison, Row
from tasks.settings import TrackingSettings, decimal
from tasks.tracking import DECISION, RegisteredModel, log_text, model_name

NAME = "report.html"
HARDEST = 6
UNKNOWN = "-"
HEADINGS = {
    "certified_accuracy": "certified",
    "certified_deployed_accuracy": "deployed",
    "median_radius": "median radius",
    "pgd_accuracy": "under PGD",
    "fgsm_accuracy": "under FGSM",
    "clean_accuracy": "clean",
}


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
    text = _render(contenders, compared[0])
    with output_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    log_text(newest.run_id, text, NAME)
    return Page(path=path, run_id=newest.run_id, run_name=newest.name)


def _render(contenders: Sequence[Contender], compared: Comparison) -> str:
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
        headings=[*HEADINGS.values(), "parameters", "train s", "verify s"],
        rows=[_row(row) for row in compared.rows],
        reading=_reading(compared),
        curves=svg(version_figures.curves(evidence, compared.epsilon)),
        stages=svg(version_figures.stages(evidence, compared.epsilon)),
        radii=None if radii is None else svg(radii),
        points=_hardest(contenders[0], ranked),
        decisions=_decisions(ranked),
        settings=_differing_settings(ranked),
    )


def _row(row: Row) -> dict[str, Any]:
    cells = [_cell(row, measure) for measure in MEASURES]
    deployed = row.certified_deployed_accuracy
    text = UNKNOWN if deployed is None else f"{deployed:.2%}"
    cells.insert(1, {"text": text, "difference": ""})  # beside certified accuracy
    costs = (
        f"{row.costs['parameters']:,.0f}",
        f"{row.costs['train_seconds']:.1f}",
        f"{row.costs['verification_seconds']:.1f}",
    )
    return {
        "name": row.run_name if row.version is None else f"v{row.version}",
        "aliases": row.aliases,
        "architecture": row.architecture,
        "cells": [*cells, *({"text": cost, "difference": ""} for cost in costs)],
        "run": row.run_name,
    }


def _cell(row: Row, measure: str) -> dict[str, str]:
    value, difference = row.measures[measure], row.differences.get(measure)
    if value is None:
        return {"text": UNKNOWN, "difference": ""}
    cell = {"text": _shown(measure, value), "difference": ""}
    if difference is not None:
        sign = "+" if difference.value >= 0 else "-"
        cell["difference"] = f"{sign}{_shown(measure, abs(difference.value))}"
        cell["kind"] = "same"
        if difference.significant:
            cell["difference"] += " *"
            cell["kind"] = "better" if difference.value > 0 else "worse"
    return cell


def _shown(measure: str, value: float) -> str:
    return f"{value:.4f}" if measure == "median_radius" else f"{value:.2%}"


def _reading(compared: Comparison) -> str:
    if compared.champion is None:
        return "No version is champion yet."
    return (
        f"Below each value: the difference to champion {compared.champion}, on the points that "
        f"both looked at. * is beyond sampling error: {MCNEMAR} test, p < "
        f"{compared.significance:g}; for the median radius a {1 - compared.significance:.0%} "
        f"{BOOTSTRAP} interval."
    )


def _hardest(newest: Contender, ranked: Sequence[Contender]) -> list[dict[str, Any]]:
    """The points that the newest version gets right and that break at its smallest radii."""
    table = newest.evidence.verification
    broken = table[(table["verdict"] == Verdict.FALSIFIED) & (table["decided_by"] != "clean")]
    least = broken.sort_values(["epsilon", "margin"]).drop_duplicates("sample_index")
    points = []
    for row in least.head(HARDEST).to_dict("records"):
        pictures = _pictures(int(row["sample_index"]), ranked)
        points.append(
            {"index": int(row["sample_index"]), "label": int(row["label"]), "pictures": pictures}
        )
    return points


def _pictures(sample: int, ranked: Sequence[Contender]) -> list[dict[str, str]]:
    """The image itself, and for each version the counterexample of the smallest radius."""
    clean: list[dict[str, str]] = []
    pictures = []
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
            epsilon = decimal(float(broken["epsilon"].iloc[0]))
            arrays = _counterexample(contender, f"sample_{sample}_eps_{epsilon}.npz")
            said = f"{int(broken['target'].iloc[0])} at ε {epsilon}"
        if arrays is not None and "clean" in arrays and not clean:
            clean = [{"caption": "undisturbed", "source": _png(arrays["clean"])}]
        source = "" if arrays is None else _png(arrays["image"])
        pictures.append({"caption": f"{contender.label}: {said}", "source": source})
    return clean + pictures


def _counterexample(contender: Contender, name: str) -> dict[str, Any] | None:
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


def _decisions(ranked: Sequence[Contender]) -> list[tuple[str, str, str]]:
    numbers = {each.version for each in ranked}
    model = RegisteredModel(model_name(ranked[0].dataset))
    return [
        (f"v{version.number}", version.tags[DECISION], version.tags["promotion.reason"])
        for version in model.versions()
        if version.number in numbers and DECISION in version.tags
    ]


def _differing_settings(ranked: Sequence[Contender]) -> list[tuple[str, list[str]]]:
    params = [each.run.params for each in ranked]
    keys = sorted({key for each in params for key in each})
    values = {key: [each.get(key, UNKNOWN) for each in params] for key in keys}
    return [(key, found) for key, found in values.items() if len(set(found)) > 1]
