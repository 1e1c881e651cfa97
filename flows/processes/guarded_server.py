"""Prefect's server on 127.0.0.1 for this machine's programs and its own pages, and no other site's.

Prefect's API asks nobody who they are and answers whatever host and origin a request names: a page
from anywhere that is open in the operator's browser could start a run with parameters of its own.
A browser always says where a request comes from, so that such ones can be told from Prefect's
pages; Prefect's clients are no browsers and name no origin.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from flows.processes import running_server
from flows.processes.running_server import HOST

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HTTP_PORT = 80  # a browser leaves it out
INTERRUPTED = 130  # as shells count SIGINT


class OwnPagesOnly:
    """Refuses, with 403, HTTP requests and websockets that name a foreign host or origin.

    A `lasting` server leaves a note for this user's other commands: see `running_server`.
    """

    def __init__(self, app: ASGIApp, port: int, *, lasting: bool) -> None:
        suffix = "" if port == HTTP_PORT else f":{port}"
        hosts = [f"{name}{suffix}" for name in (HOST, "localhost")]
        self._app, self._port, self._lasting = app, port, lasting
        self._hosts = {host.encode() for host in hosts}
        self._origins = {f"http://{host}".encode() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.responses import PlainTextResponse

        if scope["type"] == "lifespan":
            await self._app(scope, receive, self._announced(send) if self._lasting else send)
        elif self._is_own(scope["headers"]):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it is accepted: that is a 403
        else:
            refusal = "Refused: the request names a host or an origin that is not this server's.\n"
            await PlainTextResponse(refusal, 403)(scope, receive, send)

    def _announced(self, send: Send) -> Send:
        """Leaves the note for this user's other commands while the server is up."""

        async def announcing(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                running_server.leave_note(self._port)
            elif message["type"] == "lifespan.shutdown.complete":
                running_server.remove_note()
            await send(message)

        return announcing

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
        # Nobody chooses a block there; writing all kinds down takes a fifth of its start.
        os.environ.setdefault("PREFECT_API_BLOCKS_REGISTER_ON_START", "false")
    gc.disable()  # while libraries are imported, whose objects all stay

    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    settings = get_current_settings().server
    app = create_app(final=True, webserver_only=not services)
    gc.freeze()
    gc.enable()
    try:
        uvicorn.run(
            OwnPagesOnly(app, port, lasting=services),
            host=HOST,
            port=port,
            timeout_keep_alive=settings.api.keepalive_timeout,
            ws_ping_interval=settings.api.websocket_ping_interval,
            ws_ping_timeout=settings.api.websocket_ping_timeout,
            log_level=settings.logging_level.lower(),
        )
    except KeyboardInterrupt:  # Ctrl-C in its own terminal, once uvicorn has shut down
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    typer.run(serve)
