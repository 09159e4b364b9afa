"""The server of the tests under load: HTTP/1.1 with kept connections, and an end as every good server has one.

On SIGTERM it stops accepting, answers what is under way and what comes on connections that it has (also those that the
kernel has taken and it has not seen yet), tells there that it closes, and ends when all are closed. It only needs
Python's standard library: it runs in containers that have nothing but the machine's own Python.

    python polite_server.py TEXT
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import cast

PORT = 8080
PATIENCE_S = 15.0
"""For connections on which a request is under way."""
ROUNDS = 10
"""Of the loop: in the first it accepts all that is there, and a few later it has their first requests."""


class Exchange(asyncio.Protocol):
    """One connection."""

    open: set[Exchange] = set()
    ending = False
    answers: dict[bool, bytes] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.buffer = b""
        self.is_idle = False
        """Between two requests."""
        Exchange.open.add(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.is_idle = False
        while b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            closes = Exchange.ending or b"connection: close" in head.lower()
            self.transport.write(Exchange.answers[closes])
            if closes:
                self.transport.close()
                return
        self.is_idle = not self.buffer

    def connection_lost(self, error: Exception | None) -> None:
        Exchange.open.discard(self)


async def main(text: str) -> None:
    body = f"{text}\n".encode()
    for closes in (False, True):
        how = b"close" if closes else b"keep-alive"
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n" % (len(body), how)
        Exchange.answers[closes] = head + body
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    server = await loop.create_server(Exchange, None, PORT, backlog=1024)
    await told.wait()
    for _ in range(ROUNDS):
        await asyncio.sleep(0)
    server.close()
    Exchange.ending = True
    for exchange in list(Exchange.open):
        if exchange.is_idle:
            exchange.transport.close()
    for _ in range(int(PATIENCE_S / 0.01)):
        if not Exchange.open:
            return
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
