"""The `certiflow` command."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from flows import environment
from tasks.core.errors import CertiflowError

if TYPE_CHECKING:
    from tasks.report import Summary
    from tasks.settings import Settings

INTERRUPTED = 130  # as shells count SIGINT

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, attack and formally verify classifiers; the evidence goes to MLflow.",
)

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


@app.callback()
def certiflow() -> None:
    """Holds the subcommands, so that `run` stays one of several."""


@app.command()
def run(
    conf: Configuration = Path("conf/default.yaml"),
    overrides: Overrides = None,
    json: Json = None,
    verbose: Verbose = False,
) -> None:
    """Download, train, attack, verify and report: the main flow, once."""
    environment.prepare(verbose=verbose)

    from flows.configuration import load_settings
    from tasks import console

    settings, notes = load_settings(conf, overrides or [])
    for note in notes:
        console.warn(note)
    if json is not None:
        _check_writable(json)
    summary = _run_flow(settings, verbose=verbose)
    if json is not None:
        json.write_text(summary.model_dump_json(indent=2))

    from flows.summary import show

    show(summary)


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000, verbose: Verbose = False
) -> None:
    """Serve MLflow's UI over the project's store on 127.0.0.1."""
    environment.prepare(verbose=verbose)

    from tasks.tracking import serve_ui

    serve_ui(port)


def _run_flow(settings: Settings, *, verbose: bool) -> Summary:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import guardian, prefect_server
    from tasks import console

    with console.stage("start", 2) as progress:
        guardian.start()
        wait_for_api = prefect_server.start()
        with environment.silenced_stderr(verbose=verbose):
            import keras
        if not verbose:
            keras.config.disable_interactive_logging()
        progress.advance()
        from flows.robustness import robustness_flow

        api_url = wait_for_api()
        progress.advance()
    with temporary_settings({PREFECT_API_URL: api_url}):
        return robustness_flow(settings)


def _check_writable(path: Path) -> None:
    """Before minutes of work, not after them."""
    existed = path.exists()
    try:
        with path.open("a"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise CertiflowError(f"--json {path}: {error.strerror}: choose another file") from error


def main() -> None:
    """Runs the command: exit code 0 done, 1 could not (one line says why), 2 wrong usage."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        app()
    except CertiflowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("The run is marked as ended, and what was done so far is kept.", file=sys.stderr)
        raise
    except BrokenPipeError:  # whoever read our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
