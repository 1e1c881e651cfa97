"""The commands about evidence that others can check."""

from __future__ import annotations

import getpass
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

    from flows.actions import evidence_commands

    evidence_commands.certify(model, prop, path, timeout, json)


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

    from flows.actions import evidence_commands

    evidence_commands.check(certificate, model, prop, exact, only or [], json)


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
    for command in (certify, check, evidence, audit):
        app.command()(command)
