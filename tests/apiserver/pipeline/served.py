"""A test's API server on a TLS socket, with a CA and clients of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knarr import pki
from knarr.apiserver.listener import Listener, tls_context
from knarr.client.https import HTTPSTransport, client_context
from knarr.clock import SystemClock
from tests.apiserver.pipeline.door import Door, open_door


@dataclass
class Served:
    """Where it listens, and how to come in."""

    door: Door
    listener: Listener
    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> str:
        return str(self.folder / "ca.crt")

    def transport(self, token: str = "", *, certificate: bool = True) -> HTTPSTransport:
        """As the administrator, or whom a token names."""
        shown = (str(self.folder / "admin.crt"), str(self.folder / "admin.key")) if certificate else ("", "")
        return HTTPSTransport(self.url, client_context(self.ca, *shown), token)

    def kubeconfig(self) -> str:
        """Written, and its path answered."""
        path = self.folder / "kubeconfig"
        path.write_text(f"""
apiVersion: v1
kind: Config
clusters: [{{name: k, cluster: {{server: "{self.url}", certificate-authority: "{self.ca}"}}}}]
users: [{{name: u, user: {{client-certificate: "{self.folder}/admin.crt", client-key: "{self.folder}/admin.key"}}}}]
contexts: [{{name: c, context: {{cluster: k, user: u}}}}]
current-context: c
""")
        return str(path)


@asynccontextmanager
async def serve(folder: Path, nodes: Any = None, host: str = "127.0.0.1") -> AsyncIterator[Served]:
    made = pki.ensure(folder, SystemClock(), dns_names=["localhost"], addresses=["127.0.0.1"])
    async with open_door(nodes, front_proxy=made.front_proxy_client) as door:
        listener = Listener(door.server, tls_context(made.apiserver, made.ca), host, 0)
        door.server.ready = True
        port = await listener.start()
        try:
            yield Served(door, listener, folder, port)
        finally:
            await listener.close()
