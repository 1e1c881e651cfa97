"""A client that keeps connections busy, in a process of its own: requests a second, and times."""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter

import numpy as np

PER_CLIENT = 1000  # requests in the name of one client, before the next begins
CLIENT_HEADER = "X-Client"


class Load:
    """Requests to one address, each of the bodies after another, until so many are answered."""

    def __init__(self, host: str, port: int, path: str, bodies: list[bytes], count: int) -> None:
        self._host, self._port, self._bodies, self._count = host, port, bodies, count
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            f"{CLIENT_HEADER}: %d\r\nContent-Length: %d\r\n\r\n"
        ).encode()
        self._sent = self._failed = 0
        self._times: list[float] = []

    async def run(self, connections: int) -> dict[str, float]:
        """Answers a second, median and 99% in ms, and how many were not 200."""
        started = perf_counter()
        await asyncio.gather(*(self._connection() for _ in range(connections)))
        took = perf_counter() - started
        p50, p99 = 1000 * np.quantile(self._times, [0.5, 0.99])
        return {"rate": len(self._times) / took, "p50": p50, "p99": p99, "failed": self._failed}

    async def _connection(self) -> None:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        while self._sent < self._count:
            number, self._sent = self._sent, self._sent + 1
            body = self._bodies[number % len(self._bodies)]
            started = perf_counter()
            writer.write(self._head % (number // PER_CLIENT, len(body)) + body)
            lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            await reader.readexactly(length)
            self._failed += b" 200 " not in lines[0] + b" "
            self._times.append(perf_counter() - started)
        writer.close()


if __name__ == "__main__":
    host, port, path, file, connections, count = sys.argv[1:]
    with open(file, "rb") as stream:
        bodies = stream.read().splitlines()
    load = Load(host, int(port), path, bodies, int(count))
    print(json.dumps(asyncio.run(load.run(int(connections)))))
