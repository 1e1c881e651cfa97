"""`certiflow verify --data`: local robustness of a model that exists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from flows.configuration import describe
from flows.model_robustness import ModelSummary, verify_model_flow
from flows.summary import short, verdicts
from flows.verify_command import Effort, model_path
from tasks.core.errors import CertiflowError
from tasks.settings import ModelSettings
from tasks.tracking import LOCAL_UI


def verify_sample(
    model: str,
    data: str,
    epsilons: Sequence[float],
    samples: int,
    timeout: float,
    effort: Effort,
    json_file: Path | None,
) -> None:
    """Runs the flow and prints its verdicts, one row per radius."""
    settings = _settings(
        {
            "model": model,
            "seed": effort.seed,
            "data": {"dataset": data},
            "verification": {
                "engine": effort.engine,
                "samples": samples,
                "epsilons": tuple(epsilons),
                "timeout_seconds": timeout,
                "workers": effort.num_workers,
            },
        }
    )
    summary = verify_model_flow(settings, model_path(model).absolute(), effort.fresh)
    if json_file is not None:
        json_file.write_text(summary.model_dump_json(indent=2))
    _show(summary)


def _settings(values: dict[str, object]) -> ModelSettings:
    try:
        return ModelSettings.model_validate(values)
    except ValidationError as error:
        raise CertiflowError("; ".join(describe(detail) for detail in error.errors())) from error


def _show(summary: ModelSummary) -> None:
    console = Console(highlight=False)
    console.print(f"[bold]{summary.dataset}[/]  {summary.model}")
    console.print(verdicts(summary.verification))
    console.print(f"files       {short(summary.folder)}", soft_wrap=True, markup=False)
    look = f"make ui, then {summary.url}" if summary.url.startswith(LOCAL_UI) else summary.url
    console.print(f"look        {look}", soft_wrap=True, markup=False)
