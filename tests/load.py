"""A client that keeps connections busy, in a process of its own: requests a second, and times."""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter

import numpy as np


async def _connection(host: str, port: int, request: bytes, ends: float, times: list[float]) -> int:
    """Sends the request again and again; how many answers were not 200."""
    reader, writer = await asyncio.open_connection(host, port)
    failed = 0
    while perf_counter() < ends:
        started = perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        failed += b" 200 " not in lines[0] + b" "
        times.append(perf_counter() - started)
    writer.close()
    return failed


async def load(
    host: str, port: int, path: str, body: bytes, connections: int, seconds: float
) -> dict[str, float]:
    """Of so many connections for so long: answers a second, median and 99% in ms, failures."""
    request = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    times: list[float] = []
    started = perf_counter()
    failed = await asyncio.gather(
        *(_connection(host, port, request, started + seconds, times) for _ in range(connections))
    )
    took = perf_counter() - started
    p50, p99 = 1000 * np.quantile(times, [0.5, 0.99])
    return {"rate": len(times) / took, "p50": p50, "p99": p99, "failed": sum(failed)}


if __name__ == "__main__":
    host, port, path, file, connections, seconds = sys.argv[1:]
    with open(file, "rb") as stream:
        body = stream.read()
    print(
        json.dumps(asyncio.run(load(host, int(port), path, body, int(connections), float(seconds))))
    )
