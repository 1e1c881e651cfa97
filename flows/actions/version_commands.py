"""What the commands about versions do and print, but for decisions on the champion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.console import Console

from flows.actions.comparison_table import comparison_table
from flows.actions.head import end, write_json
from flows.actions.summary import short, show
from flows.processes.session import prefect_api
from tasks import tracking
from tasks.core.errors import CertiflowError
from tasks.core.files import output_file
from tasks.presentation import comparison
from tasks.presentation.comparison_view import view
from tasks.tracking import answered

if TYPE_CHECKING:
    from tasks.presentation.records import RetrainSummary
    from tasks.settings import Settings, Study


@answered("compare")
def compare(
    words: list[str],
    experiment: str,
    epsilon: float | None,
    json_file: Path | None,
    csv_file: Path | None,
) -> None:
    """Prints a table for each dataset; writes them where asked."""
    compared = comparison.compare(comparison.collect(tracking.in_full(words), experiment), epsilon)
    write_json(json_file, compared)
    if csv_file is not None:
        records = [record for each in compared for record in comparison.as_records(each)]
        with output_file(csv_file) as temporary:
            pd.DataFrame(records).to_csv(temporary, index=False)
    out = Console(highlight=False)
    for each in compared:
        for part in comparison_table(view(each)):
            out.print(part)


@answered("study")
def study(asked: Study, fresh: bool, json_file: Path | None) -> None:
    """Runs the study and prints its comparison.

    Raises:
        CertiflowError: at the end, when a configuration failed.
    """
    with prefect_api("flows.study"):
        from flows.study import study_flow

        found = study_flow(asked, fresh)
    write_json(json_file, found)
    out = Console(highlight=False)
    names = {run_id: name for name, run_id in found.runs.items()}
    for part in comparison_table(view(found.comparison, names)):
        out.print(part)
    out.print(f"figures     {short(found.folder)}/figures", soft_wrap=True, markup=False)
    out.print(f"MLflow run  {found.run_name}", soft_wrap=True, markup=False)
    if found.failed:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in found.failed.items())
        raise CertiflowError(f"{len(found.failed)} configurations failed: {reasons}")


@answered("report")
def report(
    words: list[str], epsilon: float | None, output: Path | None, json_file: Path | None
) -> None:
    """Writes the page, logs it on the newest of the runs, and says where it is."""
    from tasks.presentation import page

    written = page.write(comparison.collect(tracking.in_full(words), ""), epsilon, output)
    write_json(json_file, written)
    out = Console(highlight=False)
    out.print(f"page        {short(str(written.path))}", soft_wrap=True, markup=False)
    out.print(f"logged on   {written.run_name}", soft_wrap=True, markup=False)


@answered("retrain")
def retrain(settings: Settings, force: bool, json_file: Path | None) -> None:
    """Retrains now, and prints what came of it."""
    with prefect_api("flows.retraining"):
        from flows.retraining import retrain_flow

        found = retrain_flow(settings, force)
    end(found, json_file, _show_retrained)


def _show_retrained(found: RetrainSummary) -> None:
    if found.summary is not None:
        show(found.summary)
    out = Console(highlight=False)
    if found.page is not None:
        out.print(f"page        {short(found.page)}", soft_wrap=True, markup=False)
    out.print(f"outcome     {found.outcome}", soft_wrap=True, markup=False)
