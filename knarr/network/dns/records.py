"""What the names of the cluster mean: a pure lookup over the objects as they are at that moment.

The schema is Kubernetes DNS-Based Service Discovery 1.1; where that leaves a choice, it is made as CoreDNS makes it.

    <service>.<namespace>.svc.<zone>                  A, AAAA: cluster IPs, or a headless service's ready endpoints
    <hostname>.<service>.<namespace>.svc.<zone>       A, AAAA: one endpoint (without a hostname: 10-1-2-3)
    _<port>._<protocol>.<service>.<namespace>.svc.…   SRV
    <10-1-2-3>.<namespace>.pod.<zone>                 A, AAAA: the address itself, in a namespace that exists
    <reversed address>.in-addr.arpa, ip6.arpa         PTR
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Protocol

from msgspec import Struct

from knarr.api.core.v1 import Service
from knarr.api.discovery.v1 import Endpoint, EndpointSlice
from knarr.network.dns.wire import Code, Name, Record, Reply, Type, name_of

TTL_S = 5
"""How long a client may believe an answer; CoreDNS's default for cluster names."""
SCHEMA_VERSION = "1.1.0"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
_SOA_REFRESH_S, _SOA_RETRY_S, _SOA_EXPIRE_S = 7200, 1800, 86_400


class Objects(Protocol):
    """The cluster's objects, as lookups need them."""

    def namespace_exists(self, name: str) -> bool: ...

    def service(self, namespace: str, name: str) -> Service | None: ...

    def slices(self, namespace: str, service: str) -> Iterable[EndpointSlice]: ...

    def services_at(self, address: str) -> Iterable[Service]:
        """Those with this cluster IP."""

    def slices_at(self, address: str) -> Iterable[EndpointSlice]:
        """Those with an endpoint of this address."""


class Zone(Struct, frozen=True):
    """The cluster's domain."""

    name: Name
    """("cluster", "local")."""
    server_address: str = ""
    """Where ns.dns.<zone> is."""
    serial: int = 1

    def contains(self, name: Name) -> bool:
        return name[-len(self.name) :] == self.name

    def soa(self) -> Record:
        data = (
            ("ns", "dns", *self.name),
            ("hostmaster", *self.name),
            self.serial,
            _SOA_REFRESH_S,
            _SOA_RETRY_S,
            _SOA_EXPIRE_S,
            TTL_S,
        )
        return Record(self.name, Type.SOA, TTL_S, data)


def lookup(objects: Objects, zone: Zone, name: Name, kind: int) -> Reply:
    """The reply to a question for a name in the zone. A CNAME's target is left to the caller."""
    found = _records(objects, zone, name)
    if found is None:
        return Reply(Code.NAME_ERROR, authorities=(zone.soa(),))
    answers = [record for record in found if record.type in (kind, Type.CNAME) or kind == Type.ANY]
    if not answers:
        # The name is there, but has nothing of that type (RFC 2308 §2.2).
        return Reply(authorities=(zone.soa(),))
    additionals = _targets(objects, zone, answers) if kind == Type.SRV else ()
    return Reply(answers=answers, additionals=tuple(additionals))


def reverse_lookup(objects: Objects, zone: Zone, name: Name, kind: int) -> Reply | None:
    """The reply for a reversed address; None when the cluster knows nothing of it."""
    address = address_of_reverse(name)
    if address is None:
        return None
    targets = [_service_name(zone, each) for each in objects.services_at(address)]
    if not targets:
        targets = [
            (_hostname(endpoint, address), *_owner_name(zone, each))
            for each in objects.slices_at(address)
            for endpoint in each.endpoints
            if address in endpoint.addresses and SERVICE_NAME_LABEL in each.metadata.labels
        ]
    if not targets:
        return None
    if kind not in (Type.PTR, Type.ANY):
        return Reply(authorities=(zone.soa(),))
    return Reply(answers=[Record(name, Type.PTR, TTL_S, target) for target in dict.fromkeys(targets)])


def address_of_reverse(name: Name) -> str | None:
    """10.0.96.10.in-addr.arpa → 10.96.0.10."""
    try:
        if name[-2:] == ("in-addr", "arpa") and len(name) == 6:
            return str(ipaddress.IPv4Address(".".join(reversed(name[:4]))))
        if name[-2:] == ("ip6", "arpa") and len(name) == 34:
            digits = "".join(reversed(name[:32]))
            return str(ipaddress.IPv6Address(bytes.fromhex(digits)))
    except ValueError:
        return None
    return None


def _records(objects: Objects, zone: Zone, name: Name) -> list[Record] | None:
    """All records of a name; None when there is no such name (NXDOMAIN), empty when it only has names below it."""
    match name[: len(name) - len(zone.name)][::-1]:  # from the zone inwards
        case ():
            return [zone.soa(), Record(name, Type.NS, TTL_S, ("ns", "dns", *zone.name))]
        case ("dns-version",):
            return [Record(name, Type.TXT, TTL_S, SCHEMA_VERSION)]
        case ("dns",) | ("svc",) | ("pod",):
            return []
        case ("dns", "ns"):
            return list(_addresses(name, [zone.server_address] if zone.server_address else []))
        case ("svc" | "pod", namespace):
            return [] if objects.namespace_exists(namespace) else None
        case ("pod", namespace, dashed):
            return _pod(objects, name, namespace, dashed)
        case ("svc", namespace, service, *rest):
            found = objects.service(namespace, service)
            if found is None or found.spec is None:
                return None
            return _service(objects, zone, name, found, rest)
    return None


def _pod(objects: Objects, name: Name, namespace: str, dashed: str) -> list[Record] | None:
    for separator in (".", ":"):
        try:
            address = str(ipaddress.ip_address(dashed.replace("-", separator)))
        except ValueError:
            continue
        return list(_addresses(name, [address])) if objects.namespace_exists(namespace) else None
    return None


def _service(objects: Objects, zone: Zone, name: Name, service: Service, rest: list[str]) -> list[Record] | None:
    """`rest` is what stands before the service's name, from right to left."""
    assert service.spec is not None
    if service.spec.type == "ExternalName":
        target = name_of(service.spec.external_name or "")
        return [Record(name, Type.CNAME, TTL_S, target)] if not rest and target else None
    match rest:
        case []:
            if _is_headless(service):
                found = [address for _, _, address in _endpoints(objects, service)]
                return list(_addresses(name, dict.fromkeys(found))) or None
            return list(_addresses(name, _cluster_ips(service)))
        case [protocol] if protocol in ("_tcp", "_udp", "_sctp"):
            protocols = {f"_{(port.protocol or 'TCP').lower()}" for port in service.spec.ports}
            return [] if protocol in protocols else None
        case [protocol, port] if protocol.startswith("_") and port.startswith("_"):
            return list(_srv(objects, zone, name, service, port[1:], protocol[1:])) or None
        case [hostname]:
            found = [
                address
                for _, endpoint, address in _endpoints(objects, service)
                if _hostname(endpoint, address) == hostname
            ]
            return list(_addresses(name, dict.fromkeys(found))) or None
    return None


def _srv(objects: Objects, zone: Zone, name: Name, service: Service, port_name: str, protocol: str) -> Iterator[Record]:
    assert service.spec is not None
    own_name = _service_name(zone, service)
    if not _is_headless(service):
        for port in service.spec.ports:
            if port.name == port_name and (port.protocol or "TCP").lower() == protocol:
                yield Record(name, Type.SRV, TTL_S, (0, 100, port.port, own_name))
        return
    targets = dict.fromkeys(
        (port.port, (_hostname(endpoint, address), *own_name))
        for each, endpoint, address in _endpoints(objects, service)
        for port in each.ports
        if port.name == port_name and (port.protocol or "TCP").lower() == protocol and port.port
    )
    for port_number, target in targets:
        yield Record(name, Type.SRV, TTL_S, (0, max(1, 100 // len(targets)), port_number, target))


def _targets(objects: Objects, zone: Zone, answers: Iterable[Record]) -> Iterator[Record]:
    """The addresses of what SRV records point to, so that nobody needs to ask again."""
    targets = dict.fromkeys(
        record.data[3] for record in answers if record.type == Type.SRV and isinstance(record.data[3], tuple)
    )
    for target in targets:
        for record in _records(objects, zone, target) or ():
            if record.type in (Type.A, Type.AAAA):
                yield record


def _endpoints(objects: Objects, service: Service) -> Iterator[tuple[EndpointSlice, Endpoint, str]]:
    """Ready endpoints, one item for each address. publishNotReadyAddresses has made itself felt in `ready` already."""
    for each in objects.slices(service.metadata.namespace or "", service.metadata.name or ""):
        for endpoint in each.endpoints:
            if endpoint.conditions is None or endpoint.conditions.ready is not False:
                for address in endpoint.addresses:
                    yield each, endpoint, address


def _addresses(name: Name, addresses: Iterable[str]) -> Iterator[Record]:
    for address in addresses:
        yield Record(name, Type.AAAA if ":" in address else Type.A, TTL_S, address)


def _cluster_ips(service: Service) -> list[str]:
    assert service.spec is not None
    return service.spec.cluster_ips or ([service.spec.cluster_ip] if service.spec.cluster_ip else [])


def _is_headless(service: Service) -> bool:
    return service.spec is not None and service.spec.cluster_ip == "None"


def _hostname(endpoint: Endpoint, address: str) -> str:
    return (endpoint.hostname or address.replace(".", "-").replace(":", "-")).lower()


def _service_name(zone: Zone, service: Service) -> Name:
    return (service.metadata.name or "", service.metadata.namespace or "", "svc", *zone.name)


def _owner_name(zone: Zone, each: EndpointSlice) -> Name:
    return (each.metadata.labels[SERVICE_NAME_LABEL], each.metadata.namespace or "", "svc", *zone.name)
