"""The kinds of the group discovery.k8s.io, as they are served."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knarr.api import names
from knarr.api.core.services import some
from knarr.api.core.validate_addresses import validate_ip
from knarr.api.core.validate_values import PROTOCOLS, validate_port
from knarr.api.discovery import v1
from knarr.api.errors import Cause, duplicate, invalid, not_supported, required
from knarr.api.printing import age
from knarr.api.resources import Column, Strategy, served

ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
ENDPOINTS_MAX, PORTS_MAX, ADDRESSES_MAX = 1000, 20000, 100
"""What one slice may hold, as upstream bounds it."""


class EndpointSliceStrategy(Strategy[v1.EndpointSlice]):
    has_generation = True

    def default(self, obj: v1.EndpointSlice) -> None:
        for port in obj.ports:
            port.protocol = port.protocol or "TCP"
            port.name = port.name or ""
        for endpoint in obj.endpoints:
            if endpoint.conditions is None:
                endpoint.conditions = v1.EndpointConditions()

    def validate(self, obj: v1.EndpointSlice) -> Iterable[Cause]:
        if not obj.address_type:
            yield required("addressType")
        elif obj.address_type not in ADDRESS_TYPES:
            yield not_supported("addressType", obj.address_type, ADDRESS_TYPES)
        for field, found, limit in (("endpoints", obj.endpoints, ENDPOINTS_MAX), ("ports", obj.ports, PORTS_MAX)):
            if len(found) > limit:
                yield Cause("FieldValueTooMany", field, f"Too many: {len(found)}: must have at most {limit} items")
        for index, endpoint in enumerate(obj.endpoints):
            yield from _validate_endpoint(endpoint, obj.address_type, f"endpoints[{index}]")
        seen: set[str] = set()
        for index, port in enumerate(obj.ports):
            place = f"ports[{index}]"
            if port.name:
                for fault in names.dns1123_label_faults(port.name):
                    yield invalid(f"{place}.name", port.name, fault)
            if (port.name or "") in seen:
                yield duplicate(f"{place}.name", port.name or "")
            seen.add(port.name or "")
            if port.port is not None:
                yield from validate_port(port.port, f"{place}.port")
            if port.protocol not in PROTOCOLS:
                yield not_supported(f"{place}.protocol", port.protocol, PROTOCOLS)

    def validate_update(self, obj: v1.EndpointSlice, old: v1.EndpointSlice) -> Iterable[Cause]:
        if obj.address_type != old.address_type:
            yield invalid("addressType", obj.address_type, "field is immutable")


def _validate_endpoint(endpoint: v1.Endpoint, address_type: str, path: str) -> Iterable[Cause]:
    if not endpoint.addresses:
        yield required(f"{path}.addresses", "must contain at least 1 address")
    elif len(endpoint.addresses) > ADDRESSES_MAX:
        count = len(endpoint.addresses)
        detail = f"Too many: {count}: must have at most {ADDRESSES_MAX} items"
        yield Cause("FieldValueTooMany", f"{path}.addresses", detail)
    for index, address in enumerate(endpoint.addresses):
        place = f"{path}.addresses[{index}]"
        if address_type == "FQDN":
            for fault in names.dns1123_subdomain_faults(address):
                yield invalid(place, address, fault)
            continue
        # Upstream refuses loopback addresses here; an API server that listens on one has to say so in a slice.
        yield from validate_ip(address, place)
    if endpoint.hostname is not None:
        for fault in names.dns1123_label_faults(endpoint.hostname):
            yield invalid(f"{path}.hostname", endpoint.hostname, fault)
    if endpoint.node_name is not None:
        for fault in names.dns1123_subdomain_faults(endpoint.node_name):
            yield invalid(f"{path}.nodeName", endpoint.node_name, fault)


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


RESOURCES = (served(v1.EndpointSlice, "endpointslices", strategy=EndpointSliceStrategy(), columns=COLUMNS),)
