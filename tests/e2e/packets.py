"""Who reaches whom, by packets from network namespaces: a connection that is accepted or refused has come through.

Nobody needs to listen: where nothing is in the way, the kernel of who is asked answers for a port that is closed (RST).
What is dropped is told by silence.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from knarr.network.netlink import enter, entered

OPEN, REFUSED, SILENT = "open", "refused", "silent"
SILENCE_S = 0.3
"""What takes longer counts as dropped: answers take less than a millisecond, and a SYN is said again after a second."""
PATIENCE_S = 20.0
"""For an answer that has to come."""
BACKLOG = 4000
WATCH_EACH_S = 0.004
WATCH_SILENCE_S = 0.1
WATCH_S_MAX = 30.0
ANSWERING_EACH_S = 0.05
"""So often a server looks whether it is to end."""


@dataclass(frozen=True)
class Ask:
    """A connection from a network namespace."""

    path: str
    address: str
    port: int


def begun(address: str, port: int) -> socket.socket:
    """A connection that is under way, from where the calling thread is; it ends without a trace."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    made.connect_ex((address, port))
    return made


@contextmanager
def listening(path: str, port: int) -> Iterator[None]:
    """In a network namespace, for both families: it accepts as the kernel does, and says nothing."""
    with entered(path):
        made = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("::", port))
    with made:
        made.listen(BACKLOG)
        yield


def outcome(connection: socket.socket) -> str:
    """Of one that poll tells about."""
    fault = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return OPEN if fault == 0 else REFUSED if fault == errno.ECONNREFUSED else SILENT


def answers(asks: Iterable[Ask], expected: Container[Ask] = ()) -> dict[Ask, str]:
    """All of them at once.

    An answer proves something however late it is; so those that are expected are waited for, where silence would be a
    fault of what is tested or of a busy machine.
    """
    found = dict.fromkeys(asks, SILENT)
    waiting: dict[int, tuple[Ask, socket.socket]] = {}
    poll = select.poll()
    for path in {ask.path for ask in found}:
        with entered(path):
            for ask in found:
                if ask.path == path:
                    connection = begun(ask.address, ask.port)
                    waiting[connection.fileno()] = (ask, connection)
                    poll.register(connection, select.POLLOUT)
    began_s = time.monotonic()
    while waiting:
        missing = any(ask in expected for ask, _ in waiting.values())
        deadline_s = began_s + (PATIENCE_S if missing else SILENCE_S)
        told = poll.poll(max(deadline_s - time.monotonic(), 0.0) * 1000)
        if not told:
            break  # time is up, and what came in time is known, however late this process looks
        for number, _ in told:
            ask, connection = waiting.pop(number)
            poll.unregister(number)
            found[ask] = outcome(connection)
            connection.close()
    for _, connection in waiting.values():
        connection.close()
    return found


def datagram(path: str, address: str, port: int, source_port: int) -> str:
    """What a server answers to a datagram from a port; nothing is silence."""
    with entered(path):
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    with made:
        made.bind(("", source_port))
        made.settimeout(SILENCE_S)
        made.connect((address, port))
        try:
            made.send(b"?")
            return made.recv(1500).decode()
        except OSError:
            return SILENT


@contextmanager
def answering(path: str, port: int, text: str) -> Iterator[None]:
    """A server of datagrams in a network namespace, of both families."""
    with entered(path):
        made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind(("::", port))

    made.settimeout(ANSWERING_EACH_S)
    ending = threading.Event()

    def serve() -> None:
        while not ending.is_set():
            with suppress(TimeoutError):
                _, client = made.recvfrom(1500)
                made.sendto(text.encode(), client)

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    with made:
        yield
        ending.set()
        server.join()


class Watch(threading.Thread):
    """Asks again and again, each time by a new connection, until it is stopped."""

    def __init__(self, ask: Ask, each_s: float, silence_s: float) -> None:
        super().__init__(daemon=True)
        self.ask = ask
        self.each_s = each_s
        self.silence_s = silence_s
        self.answered: list[tuple[float, str]] = []
        """When asked, and what came of it; in order."""
        self._ending = threading.Event()

    def run(self) -> None:
        enter(self.ask.path)
        under_way: list[tuple[float, socket.socket]] = []
        poll = select.poll()
        while not self._ending.is_set() or under_way:
            if not self._ending.is_set():
                began_s = time.monotonic()
                connection = begun(self.ask.address, self.ask.port)
                under_way.append((began_s, connection))
                poll.register(connection, select.POLLOUT)
            time.sleep(self.each_s)
            now_s, rest = time.monotonic(), []  # before the look: what it doesn't see had no answer for so long
            answered = {number for number, _ in poll.poll(0)}
            for began_s, connection in under_way:
                if connection.fileno() not in answered and now_s - began_s < self.silence_s:
                    rest.append((began_s, connection))
                    continue
                told = outcome(connection) if connection.fileno() in answered else SILENT
                self.answered.append((began_s, told))
                poll.unregister(connection)
                connection.close()
            under_way = rest
        self.answered.sort()

    def stop(self) -> None:
        self._ending.set()
        self.join()

    def becomes(self, *, silent: bool) -> None:
        """Wait until the latest one got no answer, or got one."""
        deadline_s = time.monotonic() + WATCH_S_MAX
        while not self.answered or (self.answered[-1][1] == SILENT) is not silent:
            assert time.monotonic() < deadline_s, self.ask
            time.sleep(self.each_s)

    def outcomes(self) -> set[str]:
        return {told for _, told in self.answered}

    def last_s(self, *, silent: bool) -> float:
        """When the last one was begun that got no answer, or that got one."""
        return max((at_s for at_s, told in self.answered if (told == SILENT) is silent), default=0.0)


@contextmanager
def watching(*asks: Ask, each_s: float = WATCH_EACH_S, silence_s: float = WATCH_SILENCE_S) -> Iterator[list[Watch]]:
    """Watches, stopped at the end."""
    watches = [Watch(ask, each_s, silence_s) for ask in asks]
    for watch in watches:
        watch.start()
    try:
        yield watches
    finally:
        for watch in watches:
            watch.stop()
