"""The kinds of the group discovery.k8s.io, as they are served."""

from __future__ import annotations

from typing import Any

from knarr.api.core.services import some
from knarr.api.discovery import v1
from knarr.api.printing import age
from knarr.api.resources import Column, Resource, Strategy


class EndpointSliceStrategy(Strategy[v1.EndpointSlice]):
    has_generation = True

    def default(self, obj: v1.EndpointSlice) -> None:
        for port in obj.ports:
            port.protocol = port.protocol or "TCP"
            port.name = port.name or ""
        for endpoint in obj.endpoints:
            if endpoint.conditions is None:
                endpoint.conditions = v1.EndpointConditions()


def _ports(piece: Any, now_s: float) -> str:
    return some([port.port if port.port is not None else "*" for port in piece.ports]).replace("<none>", "<unset>")


COLUMNS = (
    Column("AddressType", lambda piece, now_s: piece.address_type),
    Column("Ports", _ports),
    Column("Endpoints", lambda piece, now_s: _endpoints(piece).replace("<none>", "<unset>")),
    Column("Age", lambda piece, now_s: age(piece.metadata.creation_timestamp, now_s)),
)


def _endpoints(piece: Any) -> str:
    return some([address for endpoint in piece.endpoints for address in endpoint.addresses])


RESOURCES = (
    Resource(
        v1.EndpointSlice,
        "discovery.k8s.io",
        "v1",
        "EndpointSlice",
        "endpointslices",
        "endpointslice",
        True,
        strategy=EndpointSliceStrategy(),
        columns=COLUMNS,
    ),
)
