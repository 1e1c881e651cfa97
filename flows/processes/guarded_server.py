"""Prefect's server on 127.0.0.1 for this machine's programs and its own pages, and no other site's.

Prefect's API asks nobody who they are and answers whatever host and origin a request names: a page
from anywhere that is open in the operator's browser could start a run with parameters of its own.
A browser always says where a request comes from, so that such ones can be told from Prefect's
pages; Prefect's clients are no browsers and name no origin.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
HTTP_PORT = 80  # a browser leaves it out


class OwnPagesOnly:
    """Refuses, with 403, HTTP requests and websockets that name a foreign host or origin."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        suffix = "" if port == HTTP_PORT else f":{port}"
        hosts = [f"{name}{suffix}" for name in (HOST, "localhost")]
        self._app = app
        self._hosts = {host.encode() for host in hosts}
        self._origins = {f"http://{host}".encode() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.responses import PlainTextResponse

        if scope["type"] == "lifespan" or self._is_own(scope["headers"]):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it is accepted: that is a 403
        else:
            refusal = "Refused: the request names a host or an origin that is not this server's.\n"
            await PlainTextResponse(refusal, 403)(scope, receive, send)

    def _is_own(self, headers: list[tuple[bytes, bytes]]) -> bool:
        hosts = [value.lower() for name, value in headers if name == b"host"]
        origins = [value.lower() for name, value in headers if name == b"origin"]
        return len(hosts) == 1 and hosts[0] in self._hosts and self._origins.issuperset(origins)


def serve(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 4200,
    services: Annotated[bool, typer.Option(help="Start scheduled runs, and serve the UI.")] = True,
) -> None:
    """Prefect's server for this machine's programs and its own pages; Ctrl-C ends it."""
    # The UI would otherwise ask Prefect's usual port.
    os.environ["PREFECT_SERVER_UI_API_URL"] = f"http://{HOST}:{port}/api"
    if not services:
        os.environ["PREFECT_SERVER_UI_ENABLED"] = "false"

    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    settings = get_current_settings().server
    uvicorn.run(
        OwnPagesOnly(create_app(final=True, webserver_only=not services), port),
        host=HOST,
        port=port,
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        log_level=settings.logging_level.lower(),
    )


if __name__ == "__main__":
    typer.run(serve)
