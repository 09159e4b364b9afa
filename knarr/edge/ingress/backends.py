"""From a path's backend to a Service's port, and from there to endpoints.

Endpoints are those of the EndpointSlices that are ready; when none is, those that still serve while they terminate
(KEP-1669). An ExternalName is resolved by DNS. Addresses that nobody may reach through us are left out: loopback,
link-local and unspecified ones, multicast, and what else the node refuses (its own agent).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping

from knarr.api.core.v1 import Service, ServicePort
from knarr.api.discovery.v1 import Endpoint as SliceEndpoint
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.networking.v1 import IngressServiceBackend
from knarr.edge.ingress.classes import Lookup
from knarr.edge.ingress.model import Backend, Endpoint, Options, Protocol

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
APP_PROTOCOLS = {
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.HTTP1,
    "kubernetes.io/wss": Protocol.HTTPS,
    "grpc": Protocol.HTTP2,
    "http": Protocol.HTTP1,
    "https": Protocol.HTTPS,
}
"""appProtocol of a Service's port (KEP-3726, IANA's names)."""

Refuse = Callable[[Endpoint], bool]


class NoBackend(Exception):
    """There is nothing to send requests to; `reason` and the message are for an event."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def backend_of(namespace: str, wanted: IngressServiceBackend, services: Lookup[Service], options: Options) -> Backend:
    """Raises NoBackend."""
    key = f"{namespace}/{wanted.name}"
    service = services.get(key)
    if service is None or service.spec is None:
        raise NoBackend("ServiceNotFound", f"Service {key} does not exist")
    name, number = (wanted.port.name, wanted.port.number) if wanted.port else (None, None)
    external = service.spec.type == "ExternalName"
    port = _port(service.spec.ports, name, number)
    if port is None and external and number:
        port = ServicePort(port=number)
    if port is None:
        raise NoBackend("ServicePortNotFound", f"Service {key} has no TCP port {name or number}")
    protocol = options.protocol or APP_PROTOCOLS.get((port.app_protocol or "").lower(), Protocol.HTTP1)
    return Backend(
        service=key,
        port=str(port.port),
        port_name=port.name or "",
        protocol=protocol,
        connect_timeout_s=options.connect_timeout_s,
        by_cookie=options.cookie is not None,
        external_name=(service.spec.external_name or "").lower().rstrip(".") if external else "",
        external_port=port.port if external else 0,
    )


def _port(ports: Iterable[ServicePort], name: str | None, number: int | None) -> ServicePort | None:
    for port in ports:
        if (port.protocol or "TCP") == "TCP" and ((name and port.name == name) or (number and port.port == number)):
            return port
    return None


def endpoints_of(
    backend: Backend,
    slices: Iterable[EndpointSlice],
    resolved: Mapping[str, tuple[str, ...]],
    refuse: Refuse,
) -> tuple[Endpoint, ...]:
    """Where a backend's requests may go, sorted."""
    if backend.external_name:
        addresses = resolved.get(backend.external_name, ())
        found = {Endpoint(address, backend.external_port) for address in addresses}
        return tuple(sorted(each for each in found if not refuse(each)))
    ready: set[Endpoint] = set()
    leaving: set[Endpoint] = set()
    for each in slices:
        if each.address_type not in ("IPv4", "IPv6") or each.metadata.deletion_timestamp:
            continue
        for port in each.ports:
            if (port.name or "") != backend.port_name or (port.protocol or "TCP") != "TCP" or port.port is None:
                continue
            for endpoint in each.endpoints:
                # All of an endpoint's addresses mean the same backend.
                place = Endpoint(endpoint.addresses[0], port.port) if endpoint.addresses else None
                if place is None or refuse(place):
                    continue
                if _is_ready(endpoint):
                    ready.add(place)
                elif _serves_while_terminating(endpoint):
                    leaving.add(place)
    return _one_family(ready or leaving)


def _one_family(places: set[Endpoint]) -> tuple[Endpoint, ...]:
    """A dual-stack Service lists each pod twice, once a family: IPv4 is taken, so that none counts double."""
    first = [each for each in places if ":" not in each.address]
    return tuple(sorted(first or places))


def _is_ready(endpoint: SliceEndpoint) -> bool:
    """Unknown means ready (discovery/v1)."""
    return endpoint.conditions is None or endpoint.conditions.ready is not False


def _serves_while_terminating(endpoint: SliceEndpoint) -> bool:
    conditions = endpoint.conditions
    return conditions is not None and conditions.serving is not False and conditions.terminating is True


def is_unreachable(address: str) -> bool:
    """Addresses that are never a backend: of the machine itself, of the link, of nobody, of many."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return True
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped is not None:
        parsed = mapped
    return parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast
