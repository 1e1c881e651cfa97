"""The command that serves a version behind its proofs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.command.head import begin
from flows.command.options import Overrides, Verbose


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


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(guard)
