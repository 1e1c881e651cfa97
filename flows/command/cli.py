"""The `certiflow` command."""

from __future__ import annotations

import gc
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from flows.actions.head import begin, end
from flows.command import (
    data_cli,
    evidence_cli,
    guard_cli,
    question_cli,
    standard_output,
    version_cli,
)
from flows.command.options import Configuration, Fresh, Json, Overrides, Verbose
from tasks.core.errors import CertiflowError
from tasks.interrupts import ENDING, interrupt, is_interrupted

INTERRUPTED = 130  # as shells count SIGINT
NEW_OBJECTS = 50_000  # between two looks for garbage, instead of 700

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train, attack and formally verify classifiers; the evidence goes to MLflow.",
)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"certiflow {version('certiflow')}")
        raise typer.Exit


@app.callback()
def certiflow(
    said: Annotated[
        bool,
        typer.Option("--version", help="Say the version.", callback=_say_version, is_eager=True),
    ] = False,
) -> None:
    """Holds the subcommands, and the options of none of them."""


@app.command()
def run(
    conf: Configuration = Path("conf/default.yaml"),
    overrides: Overrides = None,
    fresh: Fresh = False,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Download, train, attack, verify and report: the main flow, once."""
    begin(verbose=verbose, json=json)

    from flows.actions.looking import look_at_settings
    from flows.configuration import load_settings_aloud
    from flows.processes.session import prefect_api

    settings = load_settings_aloud(conf, overrides or [])
    look_at_settings(settings)
    with prefect_api("flows.robustness"):
        from flows.robustness import robustness_flow

        summary = robustness_flow(settings, fresh)

    from flows.actions.summary import show

    end(summary, json, show)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 5000,
    verbose: Verbose = False,
) -> None:
    """Serve MLflow's UI over the project's store on 127.0.0.1."""
    begin(verbose=verbose)

    from tasks.tracking import serve_ui

    serve_ui(port, verbose=verbose)


question_cli.register(app)
version_cli.register(app)
data_cli.register(app)
guard_cli.register(app)
evidence_cli.register(app)


def main() -> None:
    """Runs the command: exit code 0 done, 1 could not (one line says why), 2 wrong usage."""
    # A start makes objects by the hundred thousand that all stay: a sixth of it went into looking.
    gc.set_threshold(NEW_OBJECTS)
    try:
        for number in ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, interrupt)
        standard_output.tell_failures()
        try:
            app()
        finally:
            standard_output.flush()
    except CertiflowError as error:
        print(f"error: {error}", file=sys.stderr)
        standard_output.give_up()
        sys.exit(INTERRUPTED if is_interrupted() else 1)  # which may have brought it about
    except SystemExit as ending:
        if ending.code == INTERRUPTED:
            _say_interrupted()
        raise
    except BrokenPipeError:  # whoever read our output has gone
        standard_output.give_up()
        sys.exit(1)
    except (KeyboardInterrupt, Exception):
        # Before Typer looks for it, or what Prefect makes of one that comes as it begins a task.
        if not is_interrupted():
            raise
        _say_interrupted()
        sys.exit(INTERRUPTED)


def _say_interrupted() -> None:
    print("Interrupted; what was done so far is kept.", file=sys.stderr)


if __name__ == "__main__":
    main()
