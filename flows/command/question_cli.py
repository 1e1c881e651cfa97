"""The commands about a given model: verify, radius, global-robustness, doctor, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.actions.head import begin
from flows.command.options import (
    CategoryChanges,
    Cluster,
    Data,
    EngineName,
    Fresh,
    Json,
    Model,
    ScaleName,
    Seconds,
    Verbose,
    Workers,
)
from flows.command.verify_cli import verify

reproduce = typer.Typer(no_args_is_help=True, help="Repeat an experiment of a paper.")


def predict(
    model: Annotated[str, typer.Argument(help="Model file, or models:/… in MLflow.")],
    rows: Annotated[Path, typer.Argument(help="CSV or Parquet file with the features.")],
    data: Annotated[str, typer.Option(help="Table or schema that the model was trained on.")],
    output: Annotated[
        Path, typer.Option(help="Where the rows go, with what is said of them.", metavar="FILE")
    ] = Path("predicted.csv"),
    max_epsilon: Annotated[float, typer.Option(help="The greatest radius looked at.")] = 0.3,
    tolerance: Annotated[float, typer.Option(help="How narrow a bracket is to be.")] = 0.005,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds for each row.", min=0.001, max=1e6)
    ] = 2.0,
    workers: Workers = None,
    cluster: Cluster = None,
    scale: ScaleName = "range",
    category_changes: CategoryChanges = 0,
    fresh: Fresh = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Label rows of a table; say how far each label is proved, and what change would flip it."""
    begin(verbose=verbose, json=json, output=output)

    from flows.actions import predict_command
    from flows.actions.looking import data_named
    from tasks.core.verification.radius_search import RadiusGoal
    from tasks.settings import Effort

    effort = Effort(workers=workers, cluster=cluster)
    predict_command.predict(
        model,
        rows,
        data_named(data, scale=scale, category_changes=category_changes),
        RadiusGoal(max_epsilon, tolerance, timeout),
        effort.resources,
        output,
        json,
        fresh=fresh,
    )


def radius(
    model: Model,
    data: Data,
    samples: Annotated[int, typer.Option(help="Test points.", min=1)] = 20,
    max_epsilon: Annotated[float, typer.Option(help="The greatest radius looked at.")] = 0.3,
    tolerance: Annotated[float, typer.Option(help="How narrow a bracket is to be.")] = 0.001,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds for each point.", min=0.001, max=1e6)
    ] = 20.0,
    engine: EngineName = "ladder",
    seed: Annotated[int, typer.Option(help="Of the sample and the attacks.", min=0)] = 0,
    workers: Workers = None,
    cluster: Cluster = None,
    scale: ScaleName = "range",
    category_changes: CategoryChanges = 0,
    fresh: Fresh = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Bracket each test point's critical radius: proved up to here, broken from there."""
    begin(verbose=verbose, json=json)

    from flows.actions.model_command import ask

    section = {
        "engine": engine,
        "samples": samples,
        "max_epsilon": max_epsilon,
        "tolerance": tolerance,
        "timeout_seconds": timeout,
        "workers": workers,
        "cluster": cluster,
    }
    asked = {"dataset": data, "scale": scale, "category_changes": category_changes}
    ask(model, asked, seed, {"radius": section}, fresh=fresh, json=json)


def global_robustness(
    model: Model,
    data: Data,
    delta: Annotated[float, typer.Option(help="How far two inputs may differ, in scales.")] = 0.01,
    epsilon: Annotated[
        float | None, typer.Option(help="Difference of a score; the least provable by default.")
    ] = None,
    domain_radius: Annotated[
        float, typer.Option(help="Half-width of the domain, in scales.")
    ] = 0.1,
    tolerance: Annotated[float, typer.Option(help="How near the least epsilon is found.")] = 0.05,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds for each class.", min=0.001, max=1e6)
    ] = 20.0,
    seed: Annotated[int, typer.Option(help="Of the attacks.", min=0)] = 0,
    workers: Workers = None,
    cluster: Cluster = None,
    scale: ScaleName = "range",
    fresh: Fresh = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Bound how much any class's score changes between near inputs of a whole domain."""
    begin(verbose=verbose, json=json)

    from flows.actions.model_command import ask

    section = {
        "delta": delta,
        "epsilon": epsilon,
        "domain_radius": domain_radius,
        "tolerance": tolerance,
        "timeout_seconds": timeout,
        "workers": workers,
        "cluster": cluster,
    }
    asked = {"dataset": data, "scale": scale}
    ask(model, asked, seed, {"global_robustness": section}, fresh=fresh, json=json)


def doctor(
    model: Annotated[str, typer.Argument(help="ONNX, Keras or .nnet file, or models:/name@alias.")],
    data: Annotated[
        str | None, typer.Option(help="A dataset, or an .npz file, that it must fit.")
    ] = None,
    json: Json = None,
) -> None:
    """Say what is read of a model, and what keeps it from being verified: then exit code 1."""
    begin(json=json)

    from flows.actions.doctor_command import diagnosed

    if not diagnosed(model, data, json):
        raise typer.Exit(1)


@reproduce.command()
def reluplex(
    timeout: Seconds = 60.0,
    workers: Workers = None,
    cluster: Cluster = None,
    fresh: Fresh = False,
    json: Json = None,
) -> None:
    """The local robustness of ACAS Xu 1_1 in the Reluplex paper (CAV 2017), beside its table."""
    begin(json=json)

    from flows.actions import reproduce_command, verify_command

    effort = verify_command.Effort.of("ladder", 0, fresh, workers, cluster)
    reproduce_command.reluplex(timeout, effort, json)


@reproduce.callback()
def experiments() -> None:
    """Holds the experiments, so that `reluplex` stays one of several."""


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    for command in (verify, radius, predict, global_robustness, doctor):
        app.command()(command)
    app.add_typer(reproduce, name="reproduce")
