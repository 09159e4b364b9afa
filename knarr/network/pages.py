"""A few pages over HTTP for probes and for who collects figures: /healthz, /metrics and their like."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence

from aiohttp import web
from msgspec import Struct, field

from knarr.network import netlink as kernel

SHUTDOWN_S = 1.0
"""For pages that are being read when it closes."""


class Page(Struct, frozen=True):
    """An answer to GET."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


class Pages:
    """Serves pages by path from `start` to `close`; each is made anew when somebody asks."""

    def __init__(
        self,
        pages: Mapping[str, Callable[[], Page]],
        listen: Sequence[tuple[str, int]],
        *,
        network_namespace: str | None = None,
    ) -> None:
        """`listen` are (address, port) pairs; port 0 takes a free one. An empty address means all, of both families."""
        self._pages = pages
        self._listen = tuple(listen)
        self._namespace = network_namespace
        self._runner: web.AppRunner | None = None
        self.addresses: list[tuple[str, int]] = []
        """Where it listens, once started."""

    async def start(self) -> None:
        """Bind. OSError when an address isn't the node's or its port is taken; nothing stays bound then."""
        app = web.Application()
        for path, page in self._pages.items():
            app.router.add_get(path, _handler(page))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        try:
            for address, port in self._listen:
                made = self._bind(address, port)
                self.addresses.append(made.getsockname()[:2])
                await web.SockSite(self._runner, made).start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop serving. Idempotent."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner, self.addresses = None, []

    def _bind(self, address: str, port: int) -> socket.socket:
        with kernel.entered(self._namespace):
            if not address:
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            return socket.create_server((address, port), family=family)


def _handler(page: Callable[[], Page]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        made = page()
        return web.Response(
            body=made.body, status=made.status, headers={"content-type": made.content_type, **made.headers}
        )

    return answer
