"""The command about data: schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.actions.head import begin


def schema(
    data: Annotated[Path, typer.Argument(help="CSV or Parquet file.", metavar="DATA")],
    target: Annotated[str, typer.Option(help="The column with the class, or a number.")],
    features: Annotated[
        Path | None,
        typer.Option(help="TabularBench's features.csv: take its features.", metavar="FILE"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write it to this new file.", metavar="FILE")
    ] = None,
) -> None:
    """Propose a schema for a table of your own, to be edited: what its columns are."""
    begin(output=output)

    from flows.actions import schema_command

    schema_command.propose_schema(data, target, features, output)


def register(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(schema)
