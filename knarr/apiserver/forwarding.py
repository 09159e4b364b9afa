"""What goes on from here to somebody else's server, and what stays: the same for pods, Services and nodes behind the
proxy as for those who serve other parts of the API."""

from __future__ import annotations

from msgspec import Struct

CONNECT_S = 5.0
"""How long somebody may take to accept a connection (upstream's dial timeout is 30 s; a person waits here)."""
HOP_BY_HOP = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""RFC 9110, section 7.6.1: of one connection only."""
OURS = frozenset({"authorization", "host", "content-length"})
"""Not for others: who the client is to us is not their business."""
PATH_SAFE = "/:@!$&'()*+,;=~-._"
"""What stands in a path as it is."""


class Address(Struct, frozen=True):
    """Where a request goes."""

    host: str
    port: int

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
