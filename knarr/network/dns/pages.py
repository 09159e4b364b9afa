"""The DNS server's pages, on its own address at the port that CoreDNS has its metrics on."""

from __future__ import annotations

from collections.abc import Sequence

from knarr.exposition import CONTENT_TYPE, exposed
from knarr.network.dns.server import DnsServer
from knarr.network.pages import Page, Pages

METRICS_PORT = 9153


def dns_pages(
    server: DnsServer, addresses: Sequence[str], port: int = METRICS_PORT, *, network_namespace: str | None = None
) -> Pages:
    """/metrics, /health (it lives) and /ready (it knows the cluster)."""
    return Pages(
        {
            "/metrics": lambda: Page(exposed([server.figures]), content_type=CONTENT_TYPE),
            "/health": lambda: Page(b"OK"),
            "/ready": lambda: Page(b"OK") if server.is_ready else Page(b"kubernetes", status=503),
        },
        [(address, port) for address in addresses],
        network_namespace=network_namespace,
    )
