"""The kinds of the group discovery.k8s.io, as they are served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from knarr.api import names
from knarr.api.core.services import some
from knarr.api.core.validate_addresses import ip_warnings, parsed, validate_ip, validate_not_special
from knarr.api.core.validate_values import PROTOCOLS, validate_port
from knarr.api.discovery import v1
from knarr.api.errors import Cause, duplicate, invalid, not_supported, required, too_many
from knarr.api.metadata import validate_labels
from knarr.api.printing import age
from knarr.api.resources import Column, Strategy, served

ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
ENDPOINTS_MAX, PORTS_MAX, ADDRESSES_MAX, TOPOLOGY_MAX, HINTS_MAX = 1000, 20000, 100, 16, 8
"""What one slice, one endpoint and one hint may hold, as upstream bounds it."""
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
MANAGERS = ("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")


class EndpointSliceStrategy(Strategy[v1.EndpointSlice]):
    has_generation = True

    def default(self, obj: v1.EndpointSlice) -> None:
        for port in obj.ports:
            port.protocol = port.protocol or "TCP"
            port.name = port.name or ""
        for endpoint in obj.endpoints:
            if endpoint.conditions is None:
                endpoint.conditions = v1.EndpointConditions()

    def prepare_for_create(self, obj: v1.EndpointSlice) -> None:
        _drop_topology(obj)

    def prepare_for_update(self, obj: v1.EndpointSlice, old: v1.EndpointSlice) -> None:
        if obj.endpoints != old.endpoints:
            _drop_topology(obj)
        if obj.metadata.labels != old.metadata.labels and _declared(obj) == _declared(old):
            # Labels say whose slice it is: a change of them counts as one of the slice.
            obj.metadata.generation = (old.metadata.generation or 0) + 1

    def validate(self, obj: v1.EndpointSlice) -> Iterable[Cause]:
        if not obj.address_type:
            yield required("addressType")
        elif obj.address_type not in ADDRESS_TYPES:
            yield not_supported("addressType", obj.address_type, ADDRESS_TYPES)
        if len(obj.endpoints) > ENDPOINTS_MAX:
            yield too_many("endpoints", len(obj.endpoints), ENDPOINTS_MAX)
        else:
            for index, endpoint in enumerate(obj.endpoints):
                yield from _validate_endpoint(endpoint, obj.address_type, f"endpoints[{index}]")
        if len(obj.ports) > PORTS_MAX:
            yield too_many("ports", len(obj.ports), PORTS_MAX)
        else:
            yield from _validate_ports(obj.ports)

    def validate_update(self, obj: v1.EndpointSlice, old: v1.EndpointSlice) -> Iterable[Cause]:
        if obj.address_type != old.address_type:
            yield invalid("addressType", obj.address_type, "field is immutable")

    def warnings(self, obj: v1.EndpointSlice, old: v1.EndpointSlice | None) -> Iterable[str]:
        if obj.metadata.labels.get(MANAGED_BY) in MANAGERS:
            return  # They go to a program, which nobody advises.
        if obj.address_type == "FQDN":
            yield "spec.addressType: FQDN endpoints are deprecated"
            return
        for index, endpoint in enumerate(obj.endpoints):
            for number, address in enumerate(endpoint.addresses):
                yield from ip_warnings(address, f"endpoints[{index}].addresses[{number}]")


def _declared(obj: v1.EndpointSlice) -> tuple[object, ...]:
    return obj.address_type, obj.endpoints, obj.ports


def _drop_topology(obj: v1.EndpointSlice) -> None:
    """What v1beta1 had; it is only shown while nobody writes the endpoints anew."""
    for endpoint in obj.endpoints:
        endpoint.deprecated_topology = {}


def _validate_endpoint(endpoint: v1.Endpoint, address_type: str, path: str) -> Iterable[Cause]:
    if not endpoint.addresses:
        yield required(f"{path}.addresses", "must contain at least 1 address")
    elif len(endpoint.addresses) > ADDRESSES_MAX:
        yield too_many(f"{path}.addresses", len(endpoint.addresses), ADDRESSES_MAX)
    for index, address in enumerate(endpoint.addresses):
        yield from _validate_address(address, address_type, f"{path}.addresses[{index}]")
    if endpoint.node_name is not None:
        for fault in names.dns1123_subdomain_faults(endpoint.node_name):
            yield invalid(f"{path}.nodeName", endpoint.node_name, fault)
    topology = endpoint.deprecated_topology
    if len(topology) > TOPOLOGY_MAX:
        yield too_many(f"{path}.deprecatedTopology", len(topology), TOPOLOGY_MAX)
    yield from validate_labels(topology, f"{path}.deprecatedTopology")
    if endpoint.hostname is not None:
        for fault in names.dns1123_label_faults(endpoint.hostname):
            yield invalid(f"{path}.hostname", endpoint.hostname, fault)
    if endpoint.hints is not None:
        zones, nodes = endpoint.hints.for_zones, endpoint.hints.for_nodes
        listed = [each.name for each in zones]
        yield from _validate_hints(listed, f"{path}.hints.forZones", names.label_value_faults)
        listed = [each.name for each in nodes]
        yield from _validate_hints(listed, f"{path}.hints.forNodes", names.dns1123_subdomain_faults)


def _validate_address(address: str, address_type: str, path: str) -> Iterable[Cause]:
    if address_type == "FQDN":
        name = address.removesuffix(".")
        faults = names.dns1123_subdomain_faults(name)
        if not address:
            yield required(path)
        elif faults:
            yield invalid(path, name, ",".join(faults))
        elif "." not in name:
            yield invalid(path, name, "should be a domain with at least two segments separated by dots")
        return
    if address_type not in ADDRESS_TYPES:
        return
    faulty = list(validate_ip(address, path))
    yield from faulty
    seen = parsed(address)
    if faulty or seen is None:
        return
    if f"IPv{seen.version}" != address_type:
        yield invalid(path, address, f"must be an {address_type} address")
    yield from validate_not_special(address, path)


def _validate_hints(listed: Sequence[str], path: str, faults_of: Any) -> Iterable[Cause]:
    if len(listed) > HINTS_MAX:
        yield too_many(path, len(listed), HINTS_MAX)
        return
    for index, name in enumerate(listed):
        if name in listed[:index]:
            yield duplicate(f"{path}[{index}].name", name)
        for fault in faults_of(name):
            yield invalid(f"{path}[{index}].name", name, fault)


def _validate_ports(ports: Sequence[v1.EndpointPort]) -> Iterable[Cause]:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        place = f"ports[{index}]"
        for fault in names.dns1123_label_faults(port.name) if port.name else ():
            yield invalid(f"{place}.name", port.name, fault)
        if (port.name or "") in seen:
            yield duplicate(f"{place}.name", port.name or "")
        seen.add(port.name or "")
        if port.port is not None:
            yield from validate_port(port.port, f"{place}.port")
        if port.protocol not in PROTOCOLS:
            yield not_supported(f"{place}.protocol", port.protocol, PROTOCOLS)
        for fault in names.label_key_faults(port.app_protocol) if port.app_protocol is not None else ():
            yield invalid(f"{place}.appProtocol", port.app_protocol, fault)


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
