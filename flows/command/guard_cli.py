"""The commands about a service whose answers carry a proof."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.actions.head import begin, end
from flows.command.options import Data, Json, Overrides, Verbose


def guard(
    model: Annotated[
        str | None, typer.Option(help="models:/name@alias, which is followed, or models:/name/3.")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="An accepted label is proved within it.")
    ] = None,
    budget_ms: Annotated[
        float | None, typer.Option(help="For what intervals leave open; 0 for nothing more.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="On the loopback address.")] = None,
    conf: Annotated[Path, typer.Option("--conf", help="Settings file.", metavar="FILE")] = Path(
        "conf/guard.yaml"
    ),
    overrides: Overrides = None,
    verbose: Verbose = False,
) -> None:
    """Serve a version whose labels carry a proof that nothing within epsilon changes them."""
    begin(verbose=verbose)

    from flows.configuration import load_guard_settings
    from flows.guard.running import run

    named: dict[str, Any] = {
        "model": model,
        "epsilon": epsilon,
        "budget_ms": budget_ms,
        "port": port,
    }
    given = {key: value for key, value in named.items() if value is not None}
    run(load_guard_settings(conf, overrides or [], given))


def guard_evaluate(
    model: Annotated[str, typer.Option(help="models:/name@alias or models:/name/3.")],
    data: Data,
    epsilon: Annotated[float, typer.Option(help="At which it is guarded.", min=1e-6, max=1)],
    points: Annotated[int, typer.Option(help="Test inputs that are attacked.", min=1)] = 1000,
    attempts: Annotated[
        int, typer.Option(help="Of attackers who know the certificate, at epsilon.", min=1)
    ] = 100_000,
    budget_ms: Annotated[
        float, typer.Option(help="Of the ladder, for each clean input.", min=0)
    ] = 50.0,
    seed: Annotated[int, typer.Option(help="Of all random choices.", min=0)] = 0,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Attack a guarded version by all that is known of it, and other detectors beside it."""
    begin(verbose=verbose, json=json)

    from flows.actions.guard_command import show
    from flows.actions.looking import data_named, extent_of
    from flows.actions.verify_command import model_path
    from flows.processes.session import prefect_api
    from tasks.core.models.inspection import check_fit, ends

    named = data_named(data)
    file = model_path(model)
    check_fit(ends(file), named.name, extent_of(named))
    with prefect_api("flows.guard_evaluation"):
        from flows.guard_evaluation import guard_evaluation_flow
        from tasks.core.guard.evaluation import Effort

        effort = Effort(budget_ms / 1000, points, attempts, seed=seed)
        summary = guard_evaluation_flow(model, file, named, epsilon, effort)
    end(summary, json, show)


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command()(guard)
    app.command()(guard_evaluate)
