"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Configuration = Annotated[Path, typer.Option("--conf", help="Settings file.", metavar="FILE")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override a setting, such as verification.samples=50.", metavar="KEY=VALUE"
    ),
]
Json = Annotated[
    Path | None, typer.Option("--json", help="Write the result to this file.", metavar="FILE")
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show what the libraries say.")]
EngineName = Annotated[
    Literal["ladder", "marabou", "bounds"],
    typer.Option("--engine", help="All stages, the solver alone, or the bounds alone."),
]


def _count_or_all(given: str | int) -> int | Literal["all"]:
    """Of what was typed, or of the default."""
    word = str(given)
    if word == "all":
        return "all"
    if not word.isdecimal() or int(word) < 1:
        raise typer.BadParameter(f"{word} is no number of test points: expected 1 or more, or all")
    return int(word)


Samples = Annotated[
    Any,
    typer.Option(
        "--samples", help="With --data: test points.", metavar="N|all", parser=_count_or_all
    ),
]
Seconds = Annotated[
    float, typer.Option("--timeout", help="Seconds for each question.", min=0.001, max=1e6)
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Use no stored verdicts or states of trainings.")
]
Model = Annotated[str, typer.Option(help="ONNX, Keras or .nnet file, or models:/name@alias.")]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Processes; all cores by default.", min=1)
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster", help="Solve on this Dask scheduler's workers.", metavar="tcp://HOST:PORT"
    ),
]
Data = Annotated[
    str,
    typer.Option(help="mnist, digits, credit, … or an .npz or schema .yaml file of your own."),
]
ScaleName = Annotated[
    Literal["range", "std", "absolute"],
    typer.Option(
        "--scale", help="Of a table: what a feature moves by at epsilon 1 (see data.scale)."
    ),
]
CategoryChanges = Annotated[
    int, typer.Option("--category-changes", help="Of a table: categories that may change.", min=0)
]
