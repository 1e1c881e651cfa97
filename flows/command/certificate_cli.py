"""The commands about certificates: certify and check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.actions.head import begin
from flows.command.options import Json, Seconds, Verbose


def certify(
    model: Annotated[Path, typer.Option(help="ONNX file.", metavar="FILE")],
    prop: Annotated[Path, typer.Option("--property", help="VNN-LIB file.", metavar="FILE")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="By default beside the property.", metavar="FILE.npz"),
    ] = None,
    timeout: Seconds = 60.0,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Prove a property, and write a certificate of it that anyone can check."""
    path = output or prop.with_suffix(".certificate.npz")
    begin(verbose=verbose, json=json, output=path)

    from flows.actions import certificate_commands

    certificate_commands.certify(model, prop, path, timeout, json)


def check(
    certificate: Annotated[Path, typer.Argument(help="Certificate.", metavar="CERTIFICATE")],
    model: Annotated[
        Path | None,
        typer.Option(help="ONNX file; by default the one it names, beside it.", metavar="FILE"),
    ] = None,
    prop: Annotated[
        Path | None, typer.Option("--property", help="VNN-LIB file; likewise.", metavar="FILE")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="In rational arithmetic, which takes longer.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="This question alone.", metavar="NAME")
    ] = None,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Check a certificate by the independent checker; exit code 0 where all of it is proved."""
    begin(verbose=verbose, json=json)

    from flows.actions import certificate_commands

    certificate_commands.check(certificate, model, prop, exact, only or [], json)


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    for command in (certify, check):
        app.command()(command)
