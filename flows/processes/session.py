"""What a command needs around its flows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from pydantic_core import to_json

from flows.processes import environment
from tasks.core.errors import CertiflowError
from tasks.core.files import check_writable, output_file


@contextmanager
def prefect_api(*, verbose: bool) -> Iterator[None]:
    """A Prefect API for the flows in the block, and a guardian for this process.

    Raises:
        CertiflowError: the API does not answer, or ceased to answer for longer than its client's
            retries last (a minute).
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.processes import guardian, prefect_server
    from tasks import console

    with console.stage("start", 2) as progress:
        guardian.start()
        wait_for_api = prefect_server.start()
        environment.load_keras(verbose=verbose)
        progress.advance()
        api_url = wait_for_api()
        progress.advance()
    try:
        with temporary_settings({PREFECT_API_URL: api_url}):
            yield
    except httpx.TransportError as error:
        raise CertiflowError(
            f"Prefect's API at {api_url} does not answer any more ({error}): start it and run this "
            "again; what was done so far is in MLflow and in runs/"
        ) from error


def check_outputs(**paths: Path | None) -> None:
    """Whether the files that options name can be written: before minutes of work, not after them.

    Raises:
        CertiflowError: names the option whose file cannot.
    """
    for option, path in paths.items():
        if path is None:
            continue
        try:
            check_writable(path)
        except OSError as error:
            reason = error.strerror or str(error)
            message = f"--{option} {path}: {reason}: choose another file"
            raise CertiflowError(message) from error


def write_json(path: Path | None, values: Any) -> None:
    """Writes the machine-readable result where `--json` asks for it, if it does.

    What JSON has no word for, such as infinity, is null.
    """
    if path is None:
        return
    with output_file(path) as temporary:
        temporary.write_bytes(to_json(values, indent=2, inf_nan_mode="null") + b"\n")
