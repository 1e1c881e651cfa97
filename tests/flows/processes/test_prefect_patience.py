"""A Prefect API that is gone is waited for once, not at each of a command's last words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from prefect.client import base

from flows.processes import prefect_patience


class Server(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """Answers while it is up, and counts."""

    def __init__(self) -> None:
        self.asked, self.is_up = 0, True

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if not self.is_up:
            raise httpx.ConnectError("refused")
        return httpx.Response(200)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for client in (base.PrefectHttpxSyncClient, base.PrefectHttpxAsyncClient):
        monkeypatch.setattr(client, "_send_with_retry", client._send_with_retry)  # put back
    monkeypatch.setattr(prefect_patience, "PATIENCE_SECONDS", 0.0)
    prefect_patience.keep_limit()
    return Server()


def test_it_is_given_up_for_all_clients(server: Server) -> None:
    named = {"transport": server, "base_url": "http://server", "enable_csrf_support": False}
    with base.PrefectHttpxSyncClient(**named) as client:
        assert client.get("/").is_success  # Prefect tries again only where it was connected
        server.is_up = False
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                client.get("/")
    assert server.asked == 2

    async def another() -> None:
        async with base.PrefectHttpxAsyncClient(**named) as client:
            await client.get("/")

    with pytest.raises(httpx.TransportError, match="refused"):
        asyncio.run(another())
    assert server.asked == 2


def test_one_that_comes_back_in_time_is_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_patience, "PATIENCE_SECONDS", 1000.0)

    def pause(seconds: float) -> None:
        server.is_up = True

    monkeypatch.setattr(base.time, "sleep", pause)
    named = {"transport": server, "base_url": "http://server", "enable_csrf_support": False}
    with base.PrefectHttpxSyncClient(**named) as client:
        assert client.get("/").is_success
        server.is_up = False
        assert client.get("/").is_success
    assert server.asked == 3
