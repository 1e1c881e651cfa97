"""The stage that evaluates a guarded version, and what is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict

from tasks import console
from tasks.core.errors import CertiflowError
from tasks.core.evidence.guard_figures import attack_curves
from tasks.core.files import written_atomically
from tasks.core.guard import bundle
from tasks.core.guard.evaluation import Effort, Evaluation, evasion_distances
from tasks.core.guard.shifts import CLEAN, drift_delays
from tasks.data import DatasetRef, load
from tasks.presentation.markdown import table
from tasks.tracking import Run, RunRef


class GuardSummary(BaseModel):
    """What was found, for the terminal and `--json`."""

    model_config = ConfigDict(frozen=True)

    model: str
    dataset: str
    epsilon: float
    clean: dict[str, float]
    evasion_distance: float
    attacks: list[dict[str, Any]]
    denial: list[dict[str, Any]]
    strangers: dict[str, float]
    drift: list[dict[str, Any]]
    baselines: list[dict[str, Any]]
    folder: str
    url: str


@task(name="guard evaluation", cache_policy=NO_CACHE)
def evaluate_guard(
    dataset: DatasetRef,
    files: Path,
    model_file: Path,
    name: str,
    epsilon: float,
    effort: Effort,
    run: RunRef,
) -> GuardSummary:
    """Clean traffic, attackers who know the guard, denial, strangers, drift, other detectors.

    Raises:
        CertiflowError: the model is no Keras model, or has layers that training could not bound.
        ContradictionError: an accepted label is wrong within epsilon of a right one.
    """
    from tasks.core.models import loading
    from tasks.core.models.runtimes import Classifier

    log, data = Run(run), load(dataset)
    read = bundle.read(files)
    runtime = loading.load(model_file).runtime
    if not isinstance(runtime, Classifier):
        raise CertiflowError(f"{name}: attacks need gradients: expected a Keras model")
    with console.stage("guard", None) as progress:
        evaluation = Evaluation(runtime.model, read, data, epsilon, effort)
        clean = evaluation.clean()
        progress.advance(note=f"{clean['accepted']:.2%} of clean inputs accepted")
        distances = evasion_distances(read.clean, epsilon, data.domain)
        attacks = []
        for row in evaluation.attacks():
            attacks.append(row)
            progress.advance(
                note=f"{row['attack']} at {row['radius']:g}: {row['accepted_adversarial']} of "
                f"{row['points']} accepted, {row['attempts']:,} attempts"
            )
        denial, strangers = list(evaluation.denial()), evaluation.strangers()
        progress.advance(note=f"{len(strangers)} kinds of strangers")
        drift = drift_delays(read, data, epsilon, effort.seed)
        baselines = []
        for row in evaluation.baselines():
            baselines.append(row)
            progress.advance(note=f"{row['detector']}: evaded {row['adaptive']} of {row['points']}")
    summary = GuardSummary(
        model=name,
        dataset=dataset.name,
        epsilon=epsilon,
        clean=clean,
        evasion_distance=float(np.median(distances)) if len(distances) else 0.0,
        attacks=attacks,
        denial=denial,
        strangers=strangers,
        drift=drift,
        baselines=baselines,
        folder=str(run.folder),
        url=run.url,
    )
    _log(log, summary, distances)
    return summary


def _log(log: Run, summary: GuardSummary, distances: Any) -> None:
    log.metrics({f"guard/{name}": value for name, value in summary.clean.items()})
    log.metrics({"guard/evasion_distance_q0.5": summary.evasion_distance})
    log.metrics({"guard/attempts": sum(row["attempts"] for row in summary.attacks)})
    denied = {row["radius"]: row["denied"] / row["points"] for row in summary.denial}
    log.per_epsilon("guard/denied", denied)
    attacks = pd.DataFrame(summary.attacks)
    for name, rows in attacks.groupby("attack"):
        key = str(name).replace(",", "").replace(" ", "_")
        shares = rows["accepted_adversarial"] / rows["points"]
        log.per_epsilon(f"guard/evaded/{key}", dict(zip(rows["radius"], shares, strict=True)))
    tables = {
        "attacks": summary.attacks,
        "denial": summary.denial,
        "detectors": summary.baselines,
        "drift": summary.drift,
    }
    written = [log.ref.folder / f"tables/guard_{name}.csv" for name in tables]
    for path, rows in zip(written, tables.values(), strict=True):
        with written_atomically(path) as temporary:
            pd.DataFrame(rows).to_csv(temporary, index=False)
    figure = log.ref.folder / "figures/guard.png"
    attack_curves(attacks, distances, f"{summary.model}, epsilon {summary.epsilon:g}", figure)
    log.files("tables", *written)
    log.files("figures", figure)
    log.describe(told(summary))


def told(summary: GuardSummary) -> str:
    """In Markdown, for the run's and the version's page."""
    clean, share = summary.clean, "{:.2%}".format
    lines = [
        f"Guarded at epsilon {summary.epsilon:g}: {share(clean['accepted'])} of clean inputs are "
        f"accepted ({share(clean['accepted_by_intervals'])} by intervals), "
        f"{share(clean['accepted_wrong'])} accepted and wrong; "
        f"{share(clean['guaranteed_service'])} can be neither changed nor blocked within epsilon. "
        f"An accepted wrong answer lies at least {summary.evasion_distance:g} away from half of "
        "the clean inputs.",
        "",
        f"Denied: {denied(summary)}.",
        "",
        f"Seen of drift: {seen(summary)}.",
        "",
        *table(
            ("attack", "radius", "attempts", "accepted and wrong"),
            [
                (
                    row["attack"],
                    f"{row['radius']:g}",
                    f"{row['attempts']:,}",
                    f"{row['accepted_adversarial']} of {row['points']}",
                )
                for row in summary.attacks
            ],
        ),
        "",
        *table(
            ("detector at the same clean flag rate", "evaded, blind", "evaded, adaptive"),
            [
                (
                    row["detector"],
                    f"{row['blind']} of {row['points']}",
                    f"{row['adaptive']} of {row['points']}",
                )
                for row in summary.baselines
            ],
        ),
    ]
    return "\n".join(lines)


def denied(summary: GuardSummary) -> str:
    """Of inputs that are accepted, how many an attacker can have flagged, by radius."""
    return ", ".join(
        f"{row['denied']} of {row['points']} at {row['radius']:g}" for row in summary.denial
    )


def seen(summary: GuardSummary) -> str:
    """After how many requests, and how many alarms are false."""
    false, *shifts = summary.drift
    told = [
        f"{row['shift']}: not seen"
        if row["delay"] is None
        else f"{row['shift']}: after {row['delay']:,.0f} inputs, {row['alarms']} times of "
        f"{row['streams']}"
        for row in shifts
    ]
    return "; ".join([*told, f"in {CLEAN:,} clean inputs {false['alarms']} alarms"])
