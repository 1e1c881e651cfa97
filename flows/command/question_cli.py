"""The commands about a given model: verify, radius, global-robustness, doctor, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.actions.head import begin, end
from flows.command.options import (
    CategoryChanges,
    Cluster,
    Data,
    EngineName,
    Fresh,
    Json,
    Model,
    Samples,
    ScaleName,
    Seconds,
    Verbose,
    Workers,
)

reproduce = typer.Typer(no_args_is_help=True, help="Repeat an experiment of a paper.")


def verify(
    model: Annotated[
        str | None,
        typer.Option(help="ONNX, Keras or .nnet file, or models:/name@alias in MLflow."),
    ] = None,
    prop: Annotated[
        Path | None, typer.Option("--property", help="VNN-LIB file.", metavar="FILE")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(help="Lines network,property,timeout, relative to it.", metavar="FILE"),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="With --csv: where the verdicts go.", metavar="FILE")
    ] = None,
    timeout: Seconds = 60.0,
    engine: EngineName = "ladder",
    seed: Annotated[int, typer.Option(help="Of the attack's starts.", min=0)] = 0,
    workers: Workers = None,
    cluster: Cluster = None,
    data: Annotated[
        str | None, typer.Option(help="Local robustness on this dataset's test points.")
    ] = None,
    epsilon: Annotated[
        list[float] | None, typer.Option(help="With --data: radius; may be given several times.")
    ] = None,
    flagged: Annotated[
        str | None, typer.Option(help="What a guard stored, by its digest.", metavar="DIGEST")
    ] = None,
    store: Annotated[
        str, typer.Option(help="With --flagged: the guard's store.", metavar="FILE")
    ] = "guard.db",
    samples: Samples = 20,
    witness_share: Annotated[
        float, typer.Option(help="With --data: of the proofs, shown to Marabou.", min=0, max=1)
    ] = 0.1,
    scale: ScaleName = "range",
    category_changes: CategoryChanges = 0,
    fresh: Fresh = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Decide properties of a model, or its local robustness at the test points of a dataset.

    With --flagged, what a guard did not accept is asked again, with more time.

    With --property or --csv the verdict is VNN-COMP's: sat, unsat, unknown or timeout.
    With --data the verdicts are logged to MLflow, like the main flow's.
    """
    if sum(option is not None for option in (prop, csv, data, flagged)) != 1:
        raise typer.BadParameter(
            "give --model with --property, or --model with --data, or --csv with --results, or "
            "--flagged"
        )
    if (model is None) != (csv is not None or flagged is not None):
        raise typer.BadParameter(
            "--property and --data need --model; --csv and --flagged name models themselves"
        )
    if (results is None) != (csv is None):
        raise typer.BadParameter("--csv and --results go together")
    if (epsilon is None) != (data is None):
        raise typer.BadParameter("--data and --epsilon go together")
    if data is None and (scale, category_changes) != ("range", 0):
        raise typer.BadParameter("--scale and --category-changes go with --data")
    begin(verbose=verbose, json=json, results=results)
    if flagged is not None:
        from flows.actions.guard_command import verify_flagged

        verify_flagged(flagged, store, timeout, json)
        return

    from flows.actions import verify_command

    effort = verify_command.Effort.of(engine, seed, fresh, workers, cluster)
    if data is not None and model is not None:
        section = {
            "engine": engine,
            "samples": samples,
            "epsilons": tuple(epsilon or ()),
            "witness_share": witness_share,
            "timeout_seconds": timeout,
            "workers": workers,
            "cluster": cluster,
        }
        asked = {"dataset": data, "scale": scale, "category_changes": category_changes}
        _ask(model, asked, seed, {"verification": section}, fresh, json)
    elif prop is not None and model is not None:
        verify_command.verify_property(model, prop, timeout, effort, json)
    elif csv is not None and results is not None:
        verify_command.verify_csv(csv, results, effort, json)


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
    _ask(model, asked, seed, {"radius": section}, fresh, json)


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
    _ask(model, asked, seed, {"global_robustness": section}, fresh, json)


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


def _ask(
    model: str,
    data: dict[str, Any],
    seed: int,
    sections: dict[str, Any],
    fresh: bool,
    json: Path | None,
) -> None:
    """Runs the flow for the `sections` of `ModelSettings` asked, once model and data are seen."""
    from flows.actions.looking import look_at_model
    from flows.processes.session import prefect_api

    settings, file = look_at_model(model, data, seed, sections)
    with prefect_api("flows.model_robustness"):
        from flows.model_robustness import model_flow

        summary = model_flow(settings, file, fresh)

    from flows.actions.model_command import show

    end(summary, json, show)


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    for command in (verify, radius, predict, global_robustness, doctor):
        app.command()(command)
    app.add_typer(reproduce, name="reproduce")
