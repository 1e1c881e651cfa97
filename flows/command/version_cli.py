"""The commands about model versions: evaluate, compare, study, report, promote and the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.actions.head import begin, end
from flows.command.options import Configuration, Fresh, Json, Overrides, Verbose

Runs = Annotated[
    list[str] | None,
    typer.Argument(
        help="Run ids, run names, or versions: certiflow-mnist/3, certiflow-mnist@champion, 3.",
        metavar="[RUN]...",
        show_default=False,
    ),
]
Experiment = Annotated[str, typer.Option(help="Whose versions, when no run is named.")]
Epsilon = Annotated[
    float | None,
    typer.Option(help="Reference radius; the champion's by default.", min=0.0, max=1.0),
]


def compare(
    runs: Runs = None,
    experiment: Experiment = "certiflow",
    epsilon: Epsilon = None,
    json: Json = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write the table to this file.", metavar="FILE")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Model versions side by side, best first, with what differs from the champion."""
    begin(verbose=verbose, json=json, csv=csv)

    from flows.actions import version_commands

    version_commands.compare(runs or [], experiment, epsilon, json, csv)


def evaluate(
    model: Annotated[
        str, typer.Argument(help="Keras or ONNX file, or models:/… in MLflow.", metavar="MODEL")
    ],
    data: Annotated[str, typer.Option(help="Dataset, schema (.yaml) or .npz file.")],
    conf: Annotated[
        Path, typer.Option(help="Settings; what they say of training is not looked at.")
    ] = Path("conf/default.yaml"),
    overrides: Overrides = None,
    name: Annotated[
        str | None, typer.Option(help="What tables call the model; the file's name by default.")
    ] = None,
    fresh: Fresh = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Attack, verify and register a model that was trained elsewhere: a version like any other."""
    begin(verbose=verbose, json=json)

    from flows.actions.looking import look_at_evaluation, short_name
    from flows.configuration import load_settings_aloud
    from flows.processes.session import prefect_api

    replaced = [f"data.dataset={data}", "data.fallback=null"]
    settings = load_settings_aloud(conf, [*replaced, *(overrides or [])])
    settings, file = look_at_evaluation(model, settings)
    with prefect_api("flows.evaluation"):
        from flows.evaluation import evaluation_flow

        summary = evaluation_flow(settings, file, name or short_name(model), fresh)

    from flows.actions.summary import show

    end(summary, json, show)


def study(
    file: Annotated[
        Path, typer.Argument(help="A title and a list of settings files.", metavar="FILE")
    ],
    overrides: Overrides = None,
    fresh: Fresh = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Run several configurations as one, and compare what came of them."""
    begin(verbose=verbose, json=json)

    from flows.actions.looking import look_at_settings
    from flows.configuration import load_study

    asked = load_study(file, overrides or [])
    look_at_settings(*asked.configurations.values())

    from flows.actions import version_commands

    version_commands.study(asked, fresh, json)


def report(
    runs: Annotated[list[str], typer.Argument(help="As for compare.", metavar="RUN...")],
    epsilon: Epsilon = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Where the page goes; the newest run's folder by default."),
    ] = None,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """One self-contained HTML page on one or several versions, logged on the newest run."""
    begin(verbose=verbose, json=json, output=output)

    from flows.actions import version_commands

    version_commands.report(runs, epsilon, output, json)


def promote(
    version: Annotated[str, typer.Option(help="Such as certiflow-mnist/3; 3 is the newest run's.")],
    force: Annotated[bool, typer.Option("--force", help="Whatever the gate would say.")] = False,
    reason: Annotated[str | None, typer.Option(help="With --force: why.")] = None,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Judge a version against the champion, and make it champion if it is no worse."""
    if force != bool(reason and reason.strip()):
        raise typer.BadParameter("--force and --reason go together: a forced decision says why")
    begin(verbose=verbose, json=json)

    from flows.actions import decision_commands

    decision_commands.promote(version, reason, json)


def rollback(
    reason: Annotated[str, typer.Option(help="Why the champion is taken back.")],
    model: Annotated[
        str | None, typer.Option(help="Such as certiflow-mnist; the newest run's by default.")
    ] = None,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Make the previous champion the champion again."""
    if not reason.strip():
        raise typer.BadParameter("--reason is empty: say why")
    begin(verbose=verbose, json=json)

    from flows.actions import decision_commands

    decision_commands.rollback(reason, model, json)


def retrain(
    conf: Configuration = Path("conf/default.yaml"),
    overrides: Overrides = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also when data and settings are not new.")
    ] = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Check the data, train, attack, verify, compare, judge and report: once, now."""
    begin(verbose=verbose, json=json)

    from flows.actions.looking import look_at_settings
    from flows.configuration import load_settings_aloud

    settings = load_settings_aloud(conf, overrides or [])
    look_at_settings(settings)

    from flows.actions import version_commands

    version_commands.retrain(settings, force, json)


def serve(
    conf: Configuration = Path("conf/default.yaml"),
    overrides: Overrides = None,
    cron: Annotated[str, typer.Option(help="When, in cron's five fields, UTC.")] = "0 2 * * *",
    port: Annotated[
        int, typer.Option(help="Of Prefect's server on 127.0.0.1.", min=1, max=65535)
    ] = 4200,
    verbose: Verbose = False,
) -> None:
    """Serve the scheduled retraining from this process, with Prefect's server and its UI."""
    begin(verbose=verbose, prefect_level="INFO")  # what runs, and how it ends

    from flows.actions.looking import look_at_settings
    from flows.configuration import load_settings_aloud

    settings = load_settings_aloud(conf, overrides or [])
    look_at_settings(settings)

    from flows.serving import serve_retraining

    serve_retraining(settings, cron, port)


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    for command in (evaluate, compare, study, report, promote, rollback, retrain, serve):
        app.command()(command)
