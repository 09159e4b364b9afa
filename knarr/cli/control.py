"""The control socket: how `knarr status`, `down` and `image` talk to a running `knarr up`.

HTTP with JSON on a Unix socket in the data folder, which only its owner can open; so it needs no certificate and works
while the API server is still starting or is already stopping. Paths:

    GET /status                       how the cluster is
    POST /stop {"keep": bool}         begin the orderly end; answers at once
    GET /images                       images on this node
    POST /images/load {"path": …}     take an archive
    POST /images/pull {"image": …}    fetch from a registry
    POST /images/remove {"image": …}  remove
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from aiohttp import web

    from knarr.node.runtime.contract import Runtime

SOCKET_NAME = "control.sock"
REQUEST_BYTES_MAX = 64 << 10
"""Requests carry a path or a name."""
ANSWER_TIMEOUT_S = 600.0
"""How long a command waits: for the pull of a large image over a slow line."""


class NotRunning(Exception):
    """Nobody listens on the control socket of this data folder."""


class ControlError(Exception):
    """What was asked could not be done; the message says why."""


class Cluster(Protocol):
    """What the control socket needs of the running process."""

    runtime: Runtime | None
    """None until the node agent has one."""

    async def status(self) -> dict[str, Any]: ...

    def stop(self, *, keep: bool) -> None: ...


def call(folder: Path, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the process that holds `folder`; answers decoded JSON. Raises NotRunning, ControlError."""
    connection = _UnixConnection(folder)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        decoded = json.loads(answer.read())
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise NotRunning(f"knarr does not run on {folder}") from error
    except (http.client.HTTPException, ConnectionError, TimeoutError, ValueError) as error:
        raise ControlError(f"the process on {folder} ended, or did not answer: {error}") from error
    except OSError as error:
        raise ControlError(f"{folder}: {error.strerror}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise ControlError(decoded["message"])
    return decoded


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, folder: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_TIMEOUT_S)
        self._folder = folder

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self.timeout)
        with _short_path(self._folder) as path:
            self.sock.connect(path)


class _short_path:
    """The socket's path by way of the open folder: sun_path holds 108 bytes, a data folder's name can be longer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> str:
        self._descriptor = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._descriptor}/{SOCKET_NAME}"

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class ControlServer:
    """The process's end of the socket."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._folder = folder
        self._cluster = cluster
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen. The caller holds the folder's lock, so a socket that is still there is a dead process's."""
        from aiohttp import web

        (self._folder / SOCKET_NAME).unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short_path(self._folder) as path:
            listening.bind(path)
        (self._folder / SOCKET_NAME).chmod(0o600)
        application = web.Application(client_max_size=REQUEST_BYTES_MAX)
        application.add_routes(
            [
                web.get("/status", self._answering(self._status)),
                web.post("/stop", self._answering(self._stop)),
                web.get("/images", self._answering(self._images)),
                web.post("/images/load", self._answering(self._load)),
                web.post("/images/pull", self._answering(self._pull)),
                web.post("/images/remove", self._answering(self._remove)),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, listening).start()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        (self._folder / SOCKET_NAME).unlink(missing_ok=True)

    def _answering(
        self, handler: Callable[[dict[str, Any]], Awaitable[Any]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        from aiohttp import web

        from knarr.node.runtime.contract import RuntimeFailure

        async def answer(request: web.Request) -> web.Response:
            try:
                return web.json_response(await handler(await request.json() if request.can_read_body else {}))
            except RuntimeFailure as error:
                return web.json_response({"message": f"{error.reason}: {error.message}"}, status=409)
            except (ControlError, KeyError, ValueError) as error:
                return web.json_response({"message": str(error)}, status=400)

        return answer

    async def _status(self, _: dict[str, Any]) -> Any:
        return await self._cluster.status()

    async def _stop(self, asked: dict[str, Any]) -> Any:
        self._cluster.stop(keep=bool(asked["keep"]))
        return {}

    async def _images(self, _: dict[str, Any]) -> Any:
        images = await self._runtime.images()
        return [
            {"id": image.id, "names": [*image.repo_tags, *image.repo_digests], "sizeBytes": image.size_bytes}
            for image in images
        ]

    async def _load(self, asked: dict[str, Any]) -> Any:
        return await self._runtime.load_image(asked["path"])

    async def _pull(self, asked: dict[str, Any]) -> Any:
        return await self._runtime.pull_image(asked["image"])

    async def _remove(self, asked: dict[str, Any]) -> Any:
        image = await self._runtime.image(asked["image"])
        if image is None:
            raise ControlError(f"there is no image {asked['image']!r} here")
        await self._runtime.remove_image(image.id)
        return image.id

    @property
    def _runtime(self) -> Runtime:
        if self._cluster.runtime is None:
            raise ControlError("the node agent is still starting")
        return self._cluster.runtime
