"""Constant load on a URL: so many requests a second, each on a connection of its own, none waiting for another.

    python examples/shop/load.py URL REQUESTS_PER_SECOND

Prints one JSON line for each request: when it began (CLOCK_MONOTONIC, which all processes share), how long it took, and
what it got. A request counts as failed when it is refused, times out, ends early, or is answered with anything but 200.
Runs until its standard input is closed, and then until the requests under way are done.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

TIMEOUT_S = 5.0
UNDER_WAY_MAX = 500
"""More at once would measure this machine's sockets; a request beyond that counts as failed."""


async def ask(host: str, port: int, path: str) -> str:
    """The body of one GET; raises where it is not a whole answer with status 200."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        while more := await reader.read():
            answer += more
    finally:
        writer.close()
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        raise ValueError("answer ended early" if answer else "no answer")
    status, *lines = head.decode().split("\r\n")
    if status.split()[1] != "200":
        raise ValueError(f"{status}: {body.decode(errors='replace').strip()}")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if len(body) != int(headers["content-length"]):
        raise ValueError("body ended early")
    return body.decode().strip()


async def measure(host: str, port: int, path: str) -> None:
    began_s = time.monotonic()
    error, body = None, ""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            body = await ask(host, port, path)
    except (OSError, ValueError, KeyError, IndexError, TimeoutError) as failure:
        error = f"{type(failure).__name__}: {failure}" if str(failure) else type(failure).__name__
    took_ms = (time.monotonic() - began_s) * 1000
    print(json.dumps({"at_s": began_s, "took_ms": took_ms, "error": error, "body": body}), flush=True)


async def main(url: str, requests_per_s: float) -> None:
    parts = urlsplit(url)
    host, port, path = parts.hostname or "127.0.0.1", parts.port or 80, parts.path or "/"
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    next_s = time.monotonic()
    under_way: set[asyncio.Task[None]] = set()
    while not ended.done():
        if len(under_way) < UNDER_WAY_MAX:
            task = asyncio.create_task(measure(host, port, path))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        else:
            line = {"at_s": time.monotonic(), "took_ms": 0.0, "error": "too many under way", "body": ""}
            print(json.dumps(line), flush=True)
        next_s += 1 / requests_per_s
        await asyncio.wait([ended], timeout=max(0.0, next_s - time.monotonic()))
    if under_way:
        await asyncio.wait(under_way)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
