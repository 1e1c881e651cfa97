"""The `certiflow` command."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from flows.command import standard_output, version_cli
from flows.command.options import (
    Cluster,
    Configuration,
    Data,
    EngineName,
    Fresh,
    Json,
    Model,
    Overrides,
    Seconds,
    Verbose,
    Workers,
)
from flows.processes import environment
from flows.processes.session import check_outputs, prefect_api, write_json
from tasks.core.errors import CertiflowError

INTERRUPTED = 130  # as shells count SIGINT

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, attack and formally verify classifiers; the evidence goes to MLflow.",
)

reproduce = typer.Typer(no_args_is_help=True, help="Repeat an experiment of a paper.")
app.add_typer(reproduce, name="reproduce")
version_cli.register(app)


@app.callback()
def certiflow() -> None:
    """Holds the subcommands, so that `run` stays one of several."""


@app.command()
def run(
    conf: Configuration = Path("conf/default.yaml"),
    overrides: Overrides = None,
    fresh: Fresh = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Download, train, attack, verify and report: the main flow, once."""
    environment.prepare(verbose=verbose)

    from flows.configuration import load_settings_aloud

    settings = load_settings_aloud(conf, overrides or [])
    check_outputs(json=json)
    with prefect_api(verbose=verbose):
        from flows.robustness import robustness_flow

        summary = robustness_flow(settings, fresh)
    write_json(json, summary)

    from flows.command.summary import show

    show(summary)


@app.command()
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
    samples: Annotated[int, typer.Option(help="With --data: test points.", min=1)] = 20,
    witness_share: Annotated[
        float, typer.Option(help="With --data: of the proofs, shown to Marabou.", min=0, max=1)
    ] = 0.1,
    fresh: Fresh = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Decide properties of a model, or its local robustness at the test points of a dataset.

    With --property or --csv the verdict is VNN-COMP's: sat (with a counterexample), unsat, unknown,
    timeout. With --data the verdicts are logged to MLflow, like the main flow's.
    """
    if sum(option is not None for option in (prop, csv, data)) != 1:
        raise typer.BadParameter(
            "give --model with --property, or --model with --data, or --csv with --results"
        )
    if (model is None) != (csv is not None):
        raise typer.BadParameter("--property and --data need --model; --csv names models itself")
    if (results is None) != (csv is None):
        raise typer.BadParameter("--csv and --results go together")
    if (epsilon is None) != (data is None):
        raise typer.BadParameter("--data and --epsilon go together")
    environment.prepare(verbose=verbose)
    check_outputs(json=json, results=results)

    from flows.command import verify_command

    num_workers = workers or len(os.sched_getaffinity(0))
    effort = verify_command.Effort(engine, seed, fresh, num_workers, cluster)
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
        _ask(model, data, seed, {"verification": section}, fresh, json, verbose)
    elif prop is not None and model is not None:
        verify_command.verify_one(model, prop, timeout, effort, json)
    elif csv is not None and results is not None:
        verify_command.verify_csv(csv, results, effort, json)


@app.command()
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
    fresh: Fresh = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Bracket each test point's critical radius: proved up to here, broken from there."""
    environment.prepare(verbose=verbose)
    section = {
        "engine": engine,
        "samples": samples,
        "max_epsilon": max_epsilon,
        "tolerance": tolerance,
        "timeout_seconds": timeout,
        "workers": workers,
        "cluster": cluster,
    }
    _ask(model, data, seed, {"radius": section}, fresh, json, verbose)


@app.command()
def global_robustness(
    model: Model,
    data: Data,
    delta: Annotated[float, typer.Option(help="L-infinity distance of two inputs.")] = 0.01,
    epsilon: Annotated[
        float | None, typer.Option(help="Difference of a score; the least provable by default.")
    ] = None,
    domain_radius: Annotated[float, typer.Option(help="Half-width of the domain.")] = 0.1,
    tolerance: Annotated[float, typer.Option(help="How near the least epsilon is found.")] = 0.05,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds for each class.", min=0.001, max=1e6)
    ] = 20.0,
    seed: Annotated[int, typer.Option(help="Of the attacks.", min=0)] = 0,
    workers: Workers = None,
    cluster: Cluster = None,
    fresh: Fresh = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Bound how much any class's score changes between near inputs of a whole domain."""
    environment.prepare(verbose=verbose)
    section = {
        "delta": delta,
        "epsilon": epsilon,
        "domain_radius": domain_radius,
        "tolerance": tolerance,
        "timeout_seconds": timeout,
        "workers": workers,
        "cluster": cluster,
    }
    _ask(model, data, seed, {"global_robustness": section}, fresh, json, verbose)


@reproduce.command()
def reluplex(
    timeout: Seconds = 60.0,
    workers: Workers = None,
    cluster: Cluster = None,
    fresh: Fresh = False,
    json: Json = None,
) -> None:
    """The local robustness of ACAS Xu 1_1 in the Reluplex paper (CAV 2017), beside its table."""
    environment.prepare(verbose=False)
    check_outputs(json=json)

    from flows.command import reproduce_command, verify_command

    num_workers = workers or len(os.sched_getaffinity(0))
    effort = verify_command.Effort("ladder", 0, fresh, num_workers, cluster)
    reproduce_command.reluplex(timeout, effort, json)


@reproduce.callback()
def experiments() -> None:
    """Holds the experiments, so that `reluplex` stays one of several."""


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000, verbose: Verbose = False
) -> None:
    """Serve MLflow's UI over the project's store on 127.0.0.1."""
    environment.prepare(verbose=verbose)

    from tasks.tracking import serve_ui

    serve_ui(port)


def _ask(
    model: str,
    data: str,
    seed: int,
    sections: dict[str, Any],
    fresh: bool,
    json: Path | None,
    verbose: bool,
) -> None:
    check_outputs(json=json)
    with prefect_api(verbose=verbose):
        from flows.command import model_command

        model_command.ask(model, data, seed, sections, fresh, json)


def main() -> None:
    """Runs the command: exit code 0 done, 1 could not (one line says why), 2 wrong usage."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    standard_output.tell_failures()
    try:
        try:
            app()
        finally:
            standard_output.flush()
    except CertiflowError as error:
        print(f"error: {error}", file=sys.stderr)
        standard_output.give_up()
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("Interrupted; what was done so far is kept.", file=sys.stderr)
        raise
    except BrokenPipeError:  # whoever read our output has gone
        standard_output.give_up()
        sys.exit(1)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
