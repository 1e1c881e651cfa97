"""`certiflow predict`: labels of rows, how far each is proved, and what would change it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from flows.command.head import write_json
from flows.command.verify_command import model_path
from tasks import console
from tasks.core.arrays import Float32Array
from tasks.core.data.datasets import Dataset
from tasks.core.data.sources import is_table
from tasks.core.data.tables import read_rows
from tasks.core.errors import CertiflowError
from tasks.core.execution.asking import Resources
from tasks.core.execution.verdict_store import PROJECT_STORE, VerdictStore
from tasks.core.files import output_file
from tasks.core.models import loading
from tasks.core.models.inspection import Ends, check_fit, ends
from tasks.core.models.runtimes import Runtime
from tasks.core.properties.domain import Domain, told
from tasks.core.verification.balls import Sample
from tasks.core.verification.critical_radius import Bracket, critical_radii
from tasks.core.verification.fewest import Rows, fewest_changes
from tasks.core.verification.radius_search import RadiusGoal
from tasks.settings import DataSettings

CSV, PARQUET = ".csv", ".parquet"
COLUMNS = ("label", "certified_radius", "flipped_radius", "flipped_by")


def predict(
    model: str,
    rows: Path,
    data: DataSettings,
    goal: RadiusGoal,
    resources: Resources,
    output: Path,
    json: Path | None,
    *,
    fresh: bool,
) -> None:
    """Writes the rows of a table with what the model says of each; see `predicted`."""
    _check_kinds(data, output)
    dataset = data.load()
    frame, inputs = read_rows(rows, dataset.domain)
    taken = [name for name in COLUMNS if name in frame]
    if taken:
        raise CertiflowError(
            f"{rows}: has a column '{taken[0]}', which predict writes: rename or remove it"
        )
    file = model_path(model)
    check_fit(ends(file), data.name, dataset.extent)
    loaded = loading.load(file)
    network = loaded.network
    check_fit(Ends(network.num_inputs, network.num_outputs), data.name, dataset.extent)
    shaped = inputs.reshape(len(inputs), *loaded.input_shape)
    labels = np.asarray(loaded.runtime.logits(shaped).argmax(axis=1))
    sample = Sample(np.arange(len(inputs)), shaped, labels, dataset.perturbation)
    counts: Counter[str] = Counter()
    with console.stage("predict", len(inputs)) as progress, VerdictStore(PROJECT_STORE) as store:

        def on_result(bracket: Bracket) -> None:
            counts["proved somewhat" if bracket.proved > 0 else "open"] += 1
            progress.advance(note=" · ".join(f"{n} {word}" for word, n in sorted(counts.items())))

        brackets = critical_radii(
            loaded.runtime,
            network,
            sample,
            goal,
            resources,
            store=store,
            fresh=fresh,
            on_result=on_result,
        )
    pairs = zip(brackets, inputs, strict=True)
    found = [predicted(bracket, point, dataset, loaded.runtime) for bracket, point in pairs]
    table = frame.assign(**pd.DataFrame(found, columns=COLUMNS).to_dict("list"))
    with output_file(output) as temporary:
        if output.suffix == PARQUET:
            table.to_parquet(temporary, index=False)
        else:
            table.to_csv(temporary, index=False)
    write_json(json, found)
    _show(found, output)


def _check_kinds(data: DataSettings, output: Path) -> None:
    if not is_table(data.dataset):
        raise CertiflowError(f"{data.dataset} is images: predict takes the rows of a table")
    if output.suffix not in {CSV, PARQUET}:
        raise CertiflowError(f"--output {output}: expected a {CSV} or a {PARQUET} file")


def predicted(
    bracket: Bracket, point: Float32Array, data: Dataset, runtime: Runtime
) -> dict[str, Any]:
    """What is said of one row.

    `certified_radius`: no valid row within it gets another label. `flipped_radius`: at this one
    lies the nearest that was found, and `flipped_by` says which of its changes are enough; empty
    where none was found.
    """
    said: dict[str, Any] = {
        "label": data.class_names[bracket.label],
        "certified_radius": bracket.proved,
        "flipped_radius": bracket.falsified if np.isfinite(bracket.falsified) else None,
        "flipped_by": "",
    }
    if bracket.counterexample is not None:
        changes = data.domain.changes(point, _fewest(runtime, data.domain, point, bracket))
        said["flipped_by"] = "; ".join(
            f"{name} {told(old)} -> {told(new)}" for name, (old, new) in changes.items()
        )
    return said


def _fewest(
    runtime: Runtime, domain: Domain, point: Float32Array, bracket: Bracket
) -> Float32Array:
    """The counterexample with the fewest changes that still flip the label."""

    def flips(rows: Rows) -> bool:
        logits = runtime.logits(rows[0].reshape(1, *runtime.input_shape))[0]
        return bool(domain.contains(rows[0][None])[0]) and int(logits.argmax()) != bracket.label

    assert bracket.counterexample is not None
    return fewest_changes(domain, point, [bracket.counterexample.ravel()], flips)[0]


def _show(found: list[dict[str, Any]], output: Path) -> None:
    labels = Counter(each["label"] for each in found)
    radii = np.array([each["certified_radius"] for each in found])
    screen = Console(highlight=False, soft_wrap=True)
    screen.print(f"{len(found)} rows: " + ", ".join(f"{n} {word}" for word, n in labels.items()))
    low, middle, high = np.quantile(radii, [0.1, 0.5, 0.9])
    screen.print(
        f"certified radius: median {middle:.4f}, a tenth below {low:.4f}, a tenth above {high:.4f}"
    )
    screen.print(f"rows with label, radius and change: {output}", markup=False)
