"""The load generator: HTTP/1.1 over TLS with a client certificate, as fast as one process can.

It runs in a process of its own (`python -m bench.load`, which reads one JSON order from standard input and answers one
JSON result), speaks through asyncio protocols on uvloop without an HTTP library, and looks into answers only as far as
needed to find their end: so what is measured is the server, not the client. Two orders: `requests` (connections that
each send the next request when the last is answered) and `watchers` (connections that count events).
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

from knarr.cli.kubeconfig import Access

ORDER_SECONDS_MAX = 300.0
HERE = Path(__file__).parent
SENT = re.compile(rb'"sent":"([0-9.]+)"')
SAMPLED_EVERY = 20
Due = Callable[[], float]
ADDED = b'{"type":"ADDED"'


class Requests(asyncio.Protocol):
    """One kept connection: request, answer, request, …"""

    def __init__(
        self, next_request: Callable[[], Callable[[], bytes] | None], answered: Callable[[int, float], None], due: Due
    ) -> None:
        self._due = due
        self._next_request = next_request
        self._answered = answered
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._head = b""
        self._left = -1
        """Bytes of the body still to come; -1 in the head; -2 in a chunked body."""
        self._tail = b""
        self._status = 0
        self._sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def begin(self) -> None:
        """Send the first request; once all connections are open, so that handshakes don't count."""
        self._send()

    def data_received(self, data: bytes) -> None:
        if self._left == -1:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            data, head = self._head[end + 4 :], self._head[:end].lower()
            self._head = b""
            self._status = int(head[9:12])
            if b"transfer-encoding: chunked" in head:
                self._left, self._tail = -2, b""
            else:
                at = head.find(b"content-length:")
                self._left = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if self._left == -2:
            self._tail = (self._tail + data)[-7:]
            finished = self._tail.endswith(b"\r\n0\r\n\r\n") or self._tail == b"0\r\n\r\n"
        else:
            self._left -= len(data)
            finished = self._left <= 0
        if finished:
            self._left = -1
            self._answered(self._status, time.perf_counter() - self._sent_s)
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(error or ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        request = self._next_request()
        if request is None:
            self.ended.set_result(None)
            self._transport.close()
            return
        if wait_s := self._due():
            asyncio.get_running_loop().call_later(wait_s, self._write, request)
        else:
            self._write(request)

    def _write(self, request: Callable[[], bytes]) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(request())


class Watcher(asyncio.Protocol):
    """One watch: counts ADDED events until there are enough; with `late`, notes how old each is when it comes."""

    def __init__(
        self, request: bytes, expected: int, ready: Callable[[], None], late: list[float] | None = None
    ) -> None:
        self._late = late
        self._request = request
        self._expected = expected
        self._ready = ready
        self._seen = 0
        self._tail = b""
        self._open = False
        self.ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._open and (self._tail + data).find(b"\r\n\r\n") >= 0:
            self._open = True
            self._ready()
        text = self._tail + data
        self._seen += text.count(ADDED)
        if self._late is not None:
            now_s = time.perf_counter()
            self._late.extend(now_s - float(sent) for sent in SENT.findall(data))
        # A mark may be cut in two by the border between reads; a whole one must not be counted again.
        self._tail = text[-(len(ADDED) - 1) :]
        if self._seen >= self._expected and not self.ended.done():
            self.ended.set_result(time.perf_counter())
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(error or ConnectionError(f"the watch ended after {self._seen} events"))


async def send_requests(order: dict[str, Any], context: ssl.SSLContext) -> dict[str, Any]:
    """`count` requests over `connections`; see `_request` for what `path` and `body` may contain."""
    host, port = _address(order)
    count, sent = order["count"], 0
    times: list[float] = []
    statuses: dict[int, int] = {}

    def next_request() -> Callable[[], bytes] | None:
        nonlocal sent
        if sent >= count:
            return None
        sent += 1
        return functools.partial(_request, order, host, sent - 1)

    def due() -> float:
        """How long to wait with the request that was numbered last."""
        pace = order.get("per_second")
        return max(began_s + sent / pace - time.perf_counter(), 0.0) if pace else 0.0

    def answered(status: int, took_s: float) -> None:
        times.append(took_s)
        statuses[status] = statuses.get(status, 0) + 1

    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Requests(next_request, answered, due), host, port, ssl=context)
        for _ in range(order["connections"])
    ]
    began_s = time.perf_counter()
    for _, protocol in made:
        protocol.begin()
    async with asyncio.timeout(ORDER_SECONDS_MAX):
        await asyncio.gather(*(protocol.ended for _, protocol in made))
    took_s = time.perf_counter() - began_s
    times.sort()
    return {
        "count": len(times),
        "began_s": began_s,
        "seconds": took_s,
        "statuses": statuses,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[min(len(times) - 1, len(times) * 99 // 100)] * 1000,
    }


async def watch(order: dict[str, Any], context: ssl.SSLContext) -> dict[str, Any]:
    """`connections` watches that each wait for `count` events; says "open" on standard output when all are open."""
    host, port = _address(order)
    opened = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()
    late: list[float] = []
    made = []
    for number in range(order["connections"]):
        # To look into every event of every watch would measure this process: one watch in so many is enough.
        sample = late if number % SAMPLED_EVERY == 0 else None
        request = _request(order, host, number)
        make = functools.partial(Watcher, request, order["count"], opened.release, sample)
        made.append(await loop.create_connection(make, host, port, ssl=context))
    async with asyncio.timeout(ORDER_SECONDS_MAX):
        for _ in made:
            await opened.acquire()
        print("open", flush=True)
        ended_s = await asyncio.gather(*(protocol.ended for _, protocol in made))
    late.sort()
    return {
        "count": order["count"] * order["connections"],
        "ended_s": max(ended_s),
        "p50_ms": late[len(late) // 2] * 1000 if late else 0.0,
        "p99_ms": late[len(late) * 99 // 100] * 1000 if late else 0.0,
    }


def order(access: Access, kind: str, path: str, **more: Any) -> subprocess.Popen[str]:
    """Start a load generator on an order; `result` waits for what it measured."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent
    )
    assert process.stdin is not None
    certificates = [access.ca_pem.decode(), access.certificate_pem.decode() + "\n" + access.key_pem.decode()]
    said = {"kind": kind, "server": access.server, "path": path, "certificates": certificates, **more}
    process.stdin.write(json.dumps(said) + "\n")
    process.stdin.flush()
    return process


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, _ = process.communicate(timeout=ORDER_SECONDS_MAX + 10)
    if process.returncode:
        raise RuntimeError(f"the load generator failed: {output}")
    answered: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answered


def _request(order: dict[str, Any], host: str, number: int) -> bytes:
    """In path and body {} is the request's number, {shard} the number modulo `shards`, {now} the time."""
    shard = str(number % order.get("shards", 1))
    path = order["path"].replace("{}", str(number)).replace("{shard}", shard)
    body: str = order.get("body", "")
    if body:
        body = body.replace("{}", str(number)).replace("{shard}", shard).replace("{now}", f"{time.perf_counter():.6f}")
    head: str = f"{order.get('method', 'GET')} {path} HTTP/1.1\r\nhost: {host}\r\n"
    if body:
        content_type = order.get("content_type", "application/json")
        head += f"content-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    return (head + f"accept: {order.get('accept', 'application/json')}\r\n\r\n" + body).encode()


def _address(order: dict[str, Any]) -> tuple[str, int]:
    parts = urlsplit(order["server"])
    return parts.hostname or "127.0.0.1", parts.port or 443


def _context(authority: str, pair: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(pair)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def main() -> None:
    given = json.loads(sys.stdin.readline())
    context = _context(*given["certificates"])
    work = send_requests if given["kind"] == "requests" else watch
    print(json.dumps(uvloop.run(work(given, context))), flush=True)


if __name__ == "__main__":
    main()
