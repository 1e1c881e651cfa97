"""Connections that wait for nobody: uvicorn waits for ever for a request's head, of any size."""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 65_536


def allow_many() -> None:
    """As many open files as this process may have: a usual 1024 are as many connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # unlimited is more than some systems give
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def impatient(seconds: float) -> type[HttpToolsProtocol]:
    """A protocol that closes connections whose next head takes longer, or is too large.

    Between requests uvicorn's own `timeout_keep_alive` holds.
    """

    class Impatient(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _head_bytes = 0

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._wait()

        def on_headers_complete(self) -> None:
            self._stop_waiting()
            super().on_headers_complete()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._timer is not None:  # the head goes on
                self._head_bytes += len(data)
                if self._head_bytes > MOST_HEAD_BYTES:
                    self._stop_waiting()
                    self.send_400_response(f"The head is larger than {MOST_HEAD_BYTES} bytes.")

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._stop_waiting()
            self._head_bytes = 0
            self._timer = self.loop.call_later(seconds, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Impatient
