"""How long a Prefect API that ceased to answer is waited for: about a minute once, then no more.

Prefect itself waits that long for each of its last words, one after the other, and ten times as
long where a server takes requests and is silent.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from time import monotonic
from typing import Any

import httpx
from prefect.client import base

PATIENCE_SECONDS = 40.0  # after which no other try begins; the pauses between them double


class _Outage:
    """Since when the API has not answered, and whether it is given up."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.given_up: str | None = None  # why

    def check(self) -> None:
        """Raises what Prefect does not try again, once the API is given up."""
        if self.given_up is not None:
            raise httpx.TransportError(self.given_up)

    def failed(self, error: httpx.TransportError) -> httpx.TransportError:
        """What is to be raised instead: one that is not tried again when the time is over."""
        self.since = monotonic() if self.since is None else self.since
        if monotonic() - self.since < PATIENCE_SECONDS:
            return error
        self.given_up = str(error) or type(error).__name__
        return httpx.TransportError(self.given_up)


def keep_limit() -> None:
    """Makes the Prefect clients of this process, of one command, keep the limit."""
    outage = _Outage()

    def sent(send: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(send)
        def send_patiently(*arguments: Any, **named: Any) -> Any:
            outage.check()
            try:
                answer = send(*arguments, **named)
            except httpx.TransportError as error:
                raise outage.failed(error) from error
            outage.since = None
            return answer

        return send_patiently

    def sent_async(send: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(send)
        async def send_patiently(*arguments: Any, **named: Any) -> Any:
            outage.check()
            try:
                answer = await send(*arguments, **named)
            except httpx.TransportError as error:
                raise outage.failed(error) from error
            outage.since = None
            return answer

        return send_patiently

    for client, patiently in (
        (base.PrefectHttpxSyncClient, sent),
        (base.PrefectHttpxAsyncClient, sent_async),
    ):
        client._send_with_retry = _with_send(  # type: ignore[method-assign]
            client._send_with_retry, patiently
        )


def _with_send(method: Callable[..., Any], wrapped: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def send_with_retry(self: Any, request: Any, send: Any, *rest: Any, **named: Any) -> Any:
        return method(self, request, wrapped(send), *rest, **named)

    return send_with_retry
