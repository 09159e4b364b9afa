"""Constant load on several ways to one application: so many requests a second in all, none waiting for another.

    python -m tests.e2e.constant_load '{"rate": 1000, "targets": [{"name": "node port", "host": …, "port": …}]}'

Each target gets its share twice: on connections that are kept, and on a new one for each request. Requests are begun
when they are due, whatever became of those before. One counts as failed when it is refused, broken off, not answered
within 20 s, or answered with anything but 200. As every HTTP client does (RFC 9112 §9.3.1) it is tried once more, on a
new connection, when a connection that had been idle was closed before any byte of the answer.

Prints a line once each target has answered; failures count from then on. Runs until its standard input is closed, then
finishes what is under way and prints one JSON document. Times are of CLOCK_MONOTONIC, which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import uvloop

TIMEOUT_S = 20.0
"""A request is lost or it is not: how long an answer takes says how busy the machine is."""
TICK_S = 0.004
SHOWN_MAX = 10
"""Failures that are described, of each target."""
KEPT = 16
"""Connections that each target keeps, used in turn: so all pods have some."""
BEGUN = "each target has answered\n"
BEGIN_S_MAX = 60.0
AFTER_S = 1.0
"""So long the load goes on afterwards."""


@contextmanager
def constant_load(rate: float, targets: list[dict[str, Any]], enter: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """What is done inside meets the load, each target having answered; afterwards the result is in the dictionary."""
    wanted, result = json.dumps({"rate": rate, "targets": targets}), {}
    command = [*enter, sys.executable, "-m", "tests.e2e.constant_load", wanted]
    where, pipe = Path(__file__).parents[2], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=where) as load:
        assert load.stdout
        try:
            told = load.stdout.readline()
            assert told == BEGUN, told
            yield result
            time.sleep(AFTER_S)
        finally:
            printed, _ = load.communicate(timeout=60)
    result.update(json.loads(printed))


class Request:
    __slots__ = ("began_s", "is_connected", "over", "tried_again")

    def __init__(self, began_s: float) -> None:
        self.began_s = began_s
        self.tried_again = False
        self.is_connected = False
        self.over = False


class Connection(asyncio.Protocol):
    """One connection; at most one request on it at a time."""

    def __init__(self, target: Target, request: Request) -> None:
        self.target = target
        self.request: Request | None = request
        self.reused = False
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self.transport.write(self.target.message)
        if self.request is not None:
            self.request.is_connected = True

    def ask(self, request: Request) -> None:
        assert self.transport is not None
        self.request, self.reused, self.buffer = request, True, b""
        request.is_connected = True
        self.transport.write(self.target.message)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator or self.request is None:
            return
        lowered = head.lower()
        at = lowered.find(b"content-length:")
        length = int(lowered[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) < length:
            return
        assert self.transport is not None
        request, self.request = self.request, None
        status = head.split(b" ", 2)[1]
        if status == b"200":
            self.target.answered(request, body.decode().strip())
        else:
            self.target.failed(request, f"{head.splitlines()[0].decode()}: {body.decode(errors='replace').strip()}")
        if self.target.keeps and b"connection: close" not in lowered and not self.transport.is_closing():
            self.target.idle.append(self)
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.target.connections -= 1
        request, self.request = self.request, None
        if request is None:
            if self in self.target.idle:
                self.target.idle.remove(self)
        elif self.reused and not self.buffer and not request.tried_again:
            request.tried_again = True
            self.target.tried_again += 1
            self.target.open(request)
        else:
            how = "broken off" if self.buffer else "closed without an answer"
            self.target.failed(request, f"{how}: {error}" if error else how)


class Target:
    """One way to the application, with kept connections or new ones."""

    def __init__(self, load: Load, wanted: dict[str, Any], *, keeps: bool) -> None:
        self.load = load
        self.keeps = keeps
        self.name = f"{wanted['name']}, {'kept' if keeps else 'new'} connections"
        self.host, self.port = wanted["host"], wanted["port"]
        host = wanted.get("header") or f"{self.host}:{self.port}"
        kept = "keep-alive" if keeps else "close"
        self.message = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: {kept}\r\n\r\n".encode()
        self.idle: deque[Connection] = deque()
        self.connections = 0
        self.tried_again = 0
        self.bodies: Counter[str] = Counter()
        self.took_s: list[float] = []
        self.failures: list[dict[str, Any]] = []

    def begin(self, request: Request) -> None:
        while self.idle and self.connections >= KEPT:
            connection = self.idle.popleft()
            if connection.transport is not None and not connection.transport.is_closing():
                connection.ask(request)
                return
        self.open(request)

    def open(self, request: Request) -> None:
        self.connections += 1
        task = self.load.loop.create_task(self._connect(request))
        self.load.tasks.add(task)
        task.add_done_callback(self.load.tasks.discard)

    async def _connect(self, request: Request) -> None:
        try:
            await self.load.loop.create_connection(lambda: Connection(self, request), self.host, self.port)
        except OSError as error:
            self.connections -= 1
            self.failed(request, f"not connected: {error.strerror or error}")

    def answered(self, request: Request, body: str) -> None:
        if not request.over:
            request.over = True
            self.bodies[body] += 1
            self.took_s.append(time.monotonic() - request.began_s)

    def failed(self, request: Request, why: str) -> None:
        if not request.over:
            request.over = True
            if request.began_s < self.load.counts_from_s:
                return
            self.failures.append({"began_s": request.began_s, "at_s": time.monotonic(), "why": why})

    def told(self) -> dict[str, Any]:
        took_s = sorted(self.took_s)
        return {
            "answered": len(took_s),
            "tried_again": self.tried_again,
            "p50_ms": round(took_s[len(took_s) // 2] * 1000, 1) if took_s else None,
            "p99_ms": round(took_s[len(took_s) * 99 // 100] * 1000, 1) if took_s else None,
            "bodies": dict(self.bodies),
            "failed": len(self.failures),
            "failures": self.failures[:SHOWN_MAX],
            "last_failure_s": max((each["began_s"] for each in self.failures), default=None),
        }


class Load:
    """All targets, and the requests under way."""

    def __init__(self, targets: list[dict[str, Any]], rate: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.rate = rate
        self.tasks: set[asyncio.Task[None]] = set()
        self.targets = [Target(self, each, keeps=keeps) for each in targets for keeps in (True, False)]
        self.under_way: deque[tuple[Request, Target]] = deque()
        self.counts_from_s = math.inf

    async def run(self) -> dict[str, Any]:
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        began_s = time.monotonic()
        begun, late_s, told = 0, 0.0, False
        while not ended.done():
            now_s = time.monotonic()
            due = int((now_s - began_s) * self.rate)
            late_s = max(late_s, (due - begun) / self.rate)
            for number in range(begun, due):
                target = self.targets[number % len(self.targets)]
                request = Request(now_s)
                self.under_way.append((request, target))
                target.begin(request)
            begun = due
            self._time_out(now_s)
            if not told and (silent := self._silent(now_s - began_s)) is not None:
                told, self.counts_from_s = True, now_s
                print(f"no answer of {silent}" if silent else BEGUN.strip(), flush=True)
            await asyncio.wait([ended], timeout=TICK_S)
        lasted_s = time.monotonic() - began_s
        while self.under_way:
            self._time_out(time.monotonic())
            await asyncio.sleep(TICK_S)
        return {
            "lasted_s": round(lasted_s, 2),
            "begun": begun,
            "rate": round(begun / lasted_s),
            "late_ms": round(late_s * 1000),
            "targets": {target.name: target.told() for target in self.targets},
        }

    def _silent(self, lasted_s: float) -> list[str] | None:
        """Who has not answered; None where it is too early to say."""
        silent = [target.name for target in self.targets if not target.took_s]
        return silent if not silent or lasted_s > BEGIN_S_MAX else None

    def _time_out(self, now_s: float) -> None:
        """Forget, from the oldest on, what is over, and give up what takes too long."""
        while self.under_way:
            request, target = self.under_way[0]
            if not request.over:
                if now_s - request.began_s < TIMEOUT_S:
                    return
                target.failed(
                    request, f"{'no answer' if request.is_connected else 'no connection'} within {TIMEOUT_S:g} s"
                )
            self.under_way.popleft()


async def main(wanted: dict[str, Any]) -> None:
    print(json.dumps(await Load(wanted["targets"], wanted["rate"]).run()))


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.argv[1])))
