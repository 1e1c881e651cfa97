"""`certiflow predict`: labels of rows, how far each is proved, and what would change it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from flows.actions.head import write_json
from flows.actions.looking import completed_for
from flows.actions.verify_command import model_path
from flows.processes import environment
from tasks import console
from tasks.core.arrays import Float32Array
from tasks.core.data.datasets import Dataset
from tasks.core.data.tables import read_rows
from tasks.core.errors import CertiflowError
from tasks.core.execution.asking import Resources
from tasks.core.execution.verdict_store import PROJECT_STORE, VerdictStore
from tasks.core.files import output_file, plain
from tasks.core.models import loading
from tasks.core.models.inspection import check_fit, ends
from tasks.core.models.keras_archive import KERAS_SUFFIX
from tasks.core.models.runtimes import Runtime
from tasks.core.models.tolerance import answering
from tasks.core.properties.domain import Domain, told
from tasks.core.sources.catalogue import is_table
from tasks.core.verification.balls import Sample
from tasks.core.verification.critical_radius import Bracket, critical_radii
from tasks.core.verification.fewest import Rows, fewest_changes
from tasks.core.verification.radius_search import RadiusGoal
from tasks.settings import DataSettings
from tasks.verify import warn_of_broken_relations

CSV, PARQUET = ".csv", ".parquet"
COLUMNS = ("label", "certified_radius", "flipped_radius", "flipped_by")
NUMBER_COLUMNS = ("prediction", "certified_radius", "moved_radius", "moved_by")
COMPLETED = "completed"  # a column more, where the schema says that empty cells are imputed


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
    dataset = completed_for(model, data).load()
    columns = _columns(dataset)
    frame, inputs, put_in = read_rows(rows, dataset.features, dataset.completions)
    taken = [name for name in columns if name in frame]
    if taken:
        raise CertiflowError(
            f"{rows}: has a column '{taken[0]}', which predict writes: rename or remove it"
        )
    file = plain(model_path(model))
    check_fit(ends(file), data.name, dataset.extent)
    if file.suffix == KERAS_SUFFIX:
        environment.load_keras()
    loaded = loading.load(file)
    asked = answering(loaded, dataset)
    warn_of_broken_relations(dataset.domain, inputs, np.arange(len(inputs)) + 1)
    if dataset.tolerance is not None:
        inputs = _with_predictions(loaded.runtime, inputs)
    shaped = inputs.reshape(len(inputs), *asked.input_shape)
    labels = np.asarray(asked.runtime.logits(shaped).argmax(axis=1))
    sample = Sample(np.arange(len(inputs)), shaped, labels, dataset.perturbation)
    counts: Counter[str] = Counter()
    with console.stage("predict", len(inputs)) as progress, VerdictStore(PROJECT_STORE) as store:

        def on_result(bracket: Bracket) -> None:
            counts["proved somewhat" if bracket.proved > 0 else "open"] += 1
            progress.advance(note=" · ".join(f"{n} {word}" for word, n in sorted(counts.items())))

        brackets = critical_radii(
            asked.runtime,
            asked.network,
            sample,
            goal,
            resources,
            store=store,
            fresh=fresh,
            on_result=on_result,
        )
    answers = [
        (*predicted(bracket, point, dataset, asked.runtime), words)
        for bracket, point, words in zip(brackets, inputs, put_in, strict=True)
    ]
    found = [dict(zip(columns, answer, strict=False)) for answer in answers]  # perhaps no `words`
    table = frame.assign(**pd.DataFrame(found, columns=columns).to_dict("list"))
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


def _columns(data: Dataset) -> tuple[str, ...]:
    columns = COLUMNS if data.tolerance is None else NUMBER_COLUMNS
    return (*columns, COMPLETED) if data.completions else columns


def _with_predictions(runtime: Runtime, inputs: Float32Array) -> Float32Array:
    """The rows with what the model predicts of each, which its answers nearby are held against."""
    predictions = runtime.logits(inputs.reshape(len(inputs), *runtime.input_shape))
    return np.hstack([inputs, predictions])


def predicted(
    bracket: Bracket, point: Float32Array, data: Dataset, runtime: Runtime
) -> tuple[str | float, float, float | None, str]:
    """What is said of one row, in the order of `COLUMNS`.

    The label, or the number. The radius proved: no valid row within it gets another label, or a
    number that is not within the tolerance of this one. The radius of the nearest such row that was
    found, and which of its changes are enough; None and empty where none was found.
    """
    enough = ""
    if bracket.counterexample is not None:
        changes = data.domain.changes(point, _fewest(runtime, data.domain, point, bracket))
        enough = "; ".join(
            f"{name} {told(old)} -> {told(new)}" for name, (old, new) in changes.items()
        )
    return (
        data.class_names[bracket.label] if data.tolerance is None else float(str(point[-1])),
        bracket.proved,
        bracket.falsified if np.isfinite(bracket.falsified) else None,
        enough,
    )


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
    said = [next(iter(each.values())) for each in found]
    if isinstance(said[0], float):
        answers = f"predictions from {told(min(said))} to {told(max(said))}"
    else:
        answers = ", ".join(f"{count} {word}" for word, count in Counter(said).items())
    radii = np.array([each["certified_radius"] for each in found])
    screen = Console(highlight=False, soft_wrap=True)
    screen.print(f"{len(found)} rows: {answers}", markup=False)
    low, middle, high = np.quantile(radii, [0.1, 0.5, 0.9])
    screen.print(
        f"certified radius: median {middle:.4f}, a tenth below {low:.4f}, a tenth above {high:.4f}"
    )
    completed = sum(bool(each.get(COMPLETED)) for each in found)
    if completed:
        screen.print(f"{completed} rows had empty cells: label and radius are of the row completed")
    screen.print(f"rows with {next(iter(found[0]))}, radius and change: {output}", markup=False)
