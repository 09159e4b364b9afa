"""What a node is told to serve Ingress by, and where it asks (see `handover`)."""

from __future__ import annotations

from msgspec import Struct

from knarr.api.core.node_agents import Place

PATH = "/knarr/ingress/certificates"


class Terms(Struct, frozen=True, kw_only=True):
    """How a node is to serve."""

    http_port: int
    """0: not at all."""
    https_port: int
    metrics_port: int
    api_server: Place
    """Which is no backend."""
