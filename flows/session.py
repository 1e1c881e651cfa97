"""What a command needs around its flows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from flows import environment
from tasks.core.errors import CertiflowError


@contextmanager
def prefect_api(*, verbose: bool) -> Iterator[None]:
    """A Prefect API for the flows in the block, and a guardian for this process.

    Raises:
        CertiflowError: the API does not answer, or ceased to answer for longer than its client's
            retries last (a minute).
    """
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import guardian, prefect_server
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


def check_writable(option: str, path: Path) -> None:
    """Before minutes of work, not after them."""
    existed = path.exists()
    try:
        with path.open("a"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        raise CertiflowError(f"{option} {path}: {error.strerror}: choose another file") from error
