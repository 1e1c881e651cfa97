"""What a command needs around its flows."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import httpx

from tasks.core.errors import CertiflowError


@contextmanager
def prefect_api(*modules: str) -> Iterator[None]:
    """A Prefect API for the flows in the block, and a guardian for this process.

    The `modules` that the block needs are imported while a server starts.

    Raises:
        CertiflowError: the API does not answer, or ceased to answer for longer than its client's
            retries last (a minute).
    """
    from flows.processes import guardian, prefect_server
    from tasks import console

    with console.stage("start", 2) as progress:
        tell_api = guardian.start()
        wait_for_api = prefect_server.start()
        for module in modules:
            import_module(module)

        from tasks import tracking

        tracking.open_store()  # one that does not answer is said before a run begins
        progress.advance()
        api_url = wait_for_api()
        tell_api(api_url)
        progress.advance()
    gc.freeze()  # what is imported stays, and need not be looked through again

    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.processes import prefect_patience

    prefect_patience.keep_limit()
    try:
        with temporary_settings({PREFECT_API_URL: api_url}):
            yield
    except httpx.TransportError as error:
        raise CertiflowError(
            f"Prefect's API at {api_url} does not answer any more ({error}): start it and run this "
            "again; what was done so far is in MLflow and in runs/"
        ) from error
