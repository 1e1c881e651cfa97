"""The commands about evidence that others can check."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from flows.actions.head import begin
from flows.command.options import Json, Verbose


def evidence(
    version: Annotated[
        str,
        typer.Argument(
            help="certiflow-mnist/3, certiflow-mnist@champion, or 3 of the newest run's model.",
            metavar="VERSION",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The archive to write.", metavar="FILE.zip")
    ],
    key: Annotated[
        Path | None,
        typer.Option(
            help="Ed25519 key in PEM that signs; by default evidence.key.pem, made where there is "
            "none.",
            metavar="FILE",
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Who stands for the claims; this user by default.")
    ] = None,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Gather all evidence of a version in one signed archive that anyone can check."""
    begin(verbose=verbose, json=json, output=output)

    from flows.actions import evidence_commands

    evidence_commands.evidence(version, output, key, by or getpass.getuser(), json)


def audit(
    what: Annotated[
        str,
        typer.Argument(
            help="An archive of certiflow evidence, or a version or run in MLflow.",
            metavar="FILE.zip|VERSION|RUN",
        ),
    ],
    key: Annotated[
        Path | None,
        typer.Option(help="The public key in PEM that must have signed.", metavar="FILE"),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Without attacks and bounds on the whole test set again."),
    ] = False,
    instances: Annotated[
        Path | None,
        typer.Option(
            help="Write each decided ball as VNN-LIB here, for another verifier.", metavar="FOLDER"
        ),
    ] = None,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Check evidence: signature, digests, counterexamples, certificates, every number again."""
    begin(verbose=verbose, json=json)

    from flows.actions import evidence_commands

    evidence_commands.audit(what, key, quick, instances, json)


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    for command in (evidence, audit):
        app.command()(command)
