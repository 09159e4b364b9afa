"""What a probe or a lifecycle hook does: run a command in the container, ask by HTTP, open a connection, wait.

HTTP, TCP and gRPC go from the node to the pod's address. HTTPS isn't verified; a status from 200 to 399 is success.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from knarr.api.core.v1 import Container, HTTPGetAction, LifecycleHandler, Probe
from knarr.api.types import IntOrString
from knarr.clock import Clock
from knarr.node import grpc_probe
from knarr.node.runtime.contract import Runtime, RuntimeFailure

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

BODY_BYTES_MAX = 10 << 10
"""Of an HTTP answer that is read (and of output that is shown)."""
COMMANDS_MAX = 8
"""Probes that run a command at once: many at a time would only make each other late, and fail."""
SLOT_S_MAX = 2.0
"""A probe doesn't wait longer for its turn: commands that hang must not keep those of other pods from running."""
REDIRECTS = (301, 302, 303, 307, 308)
REQUESTS_MAX = 10
"""Of one HTTP probe, redirects followed: upstream's bound."""
USER_AGENT = "kube-probe/1.36"
Action = Probe | LifecycleHandler


class Outcome(Struct, frozen=True):
    success: bool
    message: str = ""


class Handlers(Protocol):
    """Carries actions out."""

    async def run(
        self, action: Action, container: Container, container_id: str, pod_ip: str, timeout_s: float
    ) -> Outcome: ...

    async def close(self) -> None: ...


class HollowHandlers:
    """For containers that don't run: every action is what a command in the container would answer."""

    def __init__(self, runtime: Runtime, clock: Clock) -> None:
        self._runtime = runtime
        self._clock = clock

    async def run(
        self, action: Action, container: Container, container_id: str, pod_ip: str, timeout_s: float
    ) -> Outcome:
        if isinstance(action, LifecycleHandler) and action.sleep is not None:
            await self._clock.sleep(action.sleep.seconds)
            return Outcome(True)
        return await _run_command(self._runtime, container_id, (), timeout_s)

    async def close(self) -> None:
        return None


class HostHandlers:
    """Real commands and connections."""

    def __init__(self, runtime: Runtime, clock: Clock) -> None:
        self._runtime = runtime
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._commands = asyncio.Semaphore(COMMANDS_MAX)

    async def run(
        self, action: Action, container: Container, container_id: str, pod_ip: str, timeout_s: float
    ) -> Outcome:
        if isinstance(action, Probe) and action.exec is not None:
            async with self._slot():
                return await _run_command(self._runtime, container_id, action.exec.command, timeout_s)
        if action.exec is not None:
            return await _run_command(self._runtime, container_id, action.exec.command, timeout_s)
        if action.http_get is not None:
            return await self._http(action.http_get, container, pod_ip, timeout_s)
        if action.tcp_socket is not None:
            port = port_number(container, action.tcp_socket.port)
            return await self._connect(action.tcp_socket.host or pod_ip, port, timeout_s)
        if isinstance(action, LifecycleHandler) and action.sleep is not None:
            await self._clock.sleep(action.sleep.seconds)
            return Outcome(True)
        if isinstance(action, Probe) and action.grpc is not None:
            return Outcome(*await grpc_probe.ask(pod_ip, action.grpc.port, action.grpc.service or "", timeout_s))
        return Outcome(False, "missing probe handler")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        try:
            async with self._clock.timeout(SLOT_S_MAX):
                await self._commands.acquire()
        except TimeoutError:
            yield
            return
        try:
            yield
        finally:
            self._commands.release()

    async def _connect(self, host: str, port: int | None, timeout_s: float) -> Outcome:
        if port is None:
            return Outcome(False, "couldn't find the port by its name")
        address = f"{_bracketed(host)}:{port}"
        try:
            async with self._clock.timeout(timeout_s):
                _, writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            return Outcome(False, f"dial tcp {address}: i/o timeout")
        except OSError as error:
            return Outcome(False, f"dial tcp {address}: connect: {_words(error)}")
        writer.close()
        return Outcome(True)

    async def _http(self, wanted: HTTPGetAction, container: Container, pod_ip: str, timeout_s: float) -> Outcome:
        import aiohttp  # a node without HTTP probes doesn't pay for it
        from yarl import URL

        port = port_number(container, wanted.port)
        if port is None:
            return Outcome(False, f"couldn't find port {wanted.port!r} of container {container.name}")
        scheme = (wanted.scheme or "HTTP").lower()
        path = wanted.path or "/"
        text = f"{scheme}://{_bracketed(wanted.host or pod_ip)}:{port}{path if path.startswith('/') else '/' + path}"
        headers = [("User-Agent", USER_AGENT), ("Accept", "*/*")]
        for header in wanted.http_headers:
            headers = [pair for pair in headers if pair[0].lower() != header.name.lower()]
        headers += [(header.name, header.value) for header in wanted.http_headers]
        if self._session is None:
            # A connection for each probe: one that is kept open would hide a server that takes no new ones.
            connector = aiohttp.TCPConnector(force_close=True, ssl=False, limit=0)
            self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        try:
            async with self._clock.timeout(timeout_s):
                status, body = await _get(self._session, URL(text, encoded=True), headers)
        except TimeoutError:
            return Outcome(False, f'Get "{text}": context deadline exceeded')
        except aiohttp.ClientConnectorError as error:
            words = _words(error.os_error)
            return Outcome(False, f'Get "{text}": dial tcp {_bracketed(pod_ip)}:{port}: connect: {words}')
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(False, f'Get "{text}": {error or type(error).__name__}')
        if status is None:
            return Outcome(False, f'Get "{text}": stopped after {REQUESTS_MAX} redirects')
        if 200 <= status < 400:
            return Outcome(True, body.decode("utf-8", "replace"))
        return Outcome(False, f"HTTP probe failed with statuscode: {status}")


async def _get(session: aiohttp.ClientSession, url: URL, headers: list[tuple[str, str]]) -> tuple[int | None, bytes]:
    """Status and body at the end of all redirects; no status when there are too many.

    A redirect to another host is not followed, and is success: a container must not have the node ask others.
    """
    for _ in range(REQUESTS_MAX):
        async with session.get(url, headers=headers, allow_redirects=False) as answer:
            body = await answer.content.read(BODY_BYTES_MAX)
        location = answer.headers.get("Location")
        if answer.status not in REDIRECTS or not location:
            return answer.status, body
        target = url.join(type(url)(location))
        if target.host != url.host:
            return answer.status, body
        url = target
    return None, b""


def port_number(container: Container, port: IntOrString) -> int | None:
    """A port's number; a name is looked up among the container's ports."""
    if isinstance(port, int):
        return port
    if port.isdigit():
        return int(port)
    return next((each.container_port for each in container.ports if each.name == port), None)


async def _run_command(
    runtime: Runtime, container_id: str, command: list[str] | tuple[str, ...], timeout_s: float
) -> Outcome:
    try:
        result = await runtime.exec_sync(container_id, command, timeout_s)
    except TimeoutError:
        return Outcome(False, f'command timed out: "{shlex.join(command)}" timed out after {timeout_s:g}s')
    except RuntimeFailure as failure:
        return Outcome(False, failure.message)
    return Outcome(result.exit_code == 0, result.output[:BODY_BYTES_MAX].decode("utf-8", "replace"))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _words(error: OSError) -> str:
    """connection refused, no route to host: as Go says it."""
    import os

    return os.strerror(error.errno).lower() if error.errno else str(error)
