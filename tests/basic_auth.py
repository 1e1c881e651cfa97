"""A proxy before a server that asks for a name and a password, as many put before MLflow."""

from __future__ import annotations

import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress

USER, PASSWORD = "alice", "s3cretpw"
REFUSED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@contextmanager
def guarded(port: int) -> Iterator[str]:
    """`alice:s3cretpw@` and the address of a proxy before the server on `port`.

    A connection whose first request lacks them is refused; the others are passed on as they are,
    websockets too.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, port), daemon=True).start()
        yield f"{USER}:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}"


def _serve(listener: socket.socket, port: int) -> None:
    with suppress(OSError):  # the listener was closed
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_pass_on, args=(client, port), daemon=True).start()


def _pass_on(client: socket.socket, port: int) -> None:
    with client, suppress(OSError):
        head = b""
        while b"\r\n\r\n" not in head:
            received = client.recv(65536)
            if not received:
                return
            head += received
        token = b64encode(f"{USER}:{PASSWORD}".encode())
        if b"authorization: basic " + token.lower() not in head.lower():
            client.sendall(REFUSED)
            return
        with socket.create_connection(("127.0.0.1", port)) as server:
            server.sendall(head)
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while received := source.recv(65536):
            sink.sendall(received)
        sink.shutdown(socket.SHUT_WR)
