"""Subsets of Endpoints: what is wrong with them, and their one tidy form.

However Endpoints are written, they are kept with as few subsets as there can be: ports that the same addresses offer
are together, an address is there once, and one that is unready anywhere for a port is unready for it (upstream's
RepackSubsets).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from knarr.api import names
from knarr.api.core.v1 import EndpointAddress, EndpointPort, EndpointSubset
from knarr.api.core.validate_addresses import parsed, validate_ip, validate_not_special
from knarr.api.core.validate_values import PROTOCOLS, validate_choice, validate_port
from knarr.api.errors import Cause, invalid, required

Host = tuple[str, str]
"""An address and the uid of what it leads to."""
Port = tuple[str | None, int, str | None, str | None]
"""Name, number, protocol, application protocol."""


def validate_subsets(subsets: Sequence[EndpointSubset]) -> Iterable[Cause]:
    for index, subset in enumerate(subsets):
        path = f"subsets[{index}]"
        if not subset.addresses and not subset.not_ready_addresses:
            yield required(path, "must specify `addresses` or `notReadyAddresses`")
        for number, address in enumerate(subset.addresses):
            yield from _validate_address(address, f"{path}.addresses[{number}]")
        for number, address in enumerate(subset.not_ready_addresses):
            yield from _validate_address(address, f"{path}.notReadyAddresses[{number}]")
        for number, port in enumerate(subset.ports):
            yield from _validate_port(port, len(subset.ports) > 1, f"{path}.ports[{number}]")


def _validate_address(address: EndpointAddress, path: str) -> Iterable[Cause]:
    yield from validate_ip(address.ip, f"{path}.ip")
    for fault in names.dns1123_label_faults(address.hostname) if address.hostname else ():
        yield invalid(f"{path}.hostname", address.hostname, fault)
    if address.node_name is not None:
        for fault in names.dns1123_subdomain_faults(address.node_name):
            yield invalid(f"{path}.nodeName", address.node_name, fault)
    yield from validate_not_special(address.ip, f"{path}.ip")


def _validate_port(port: EndpointPort, needs_name: bool, path: str) -> Iterable[Cause]:
    if needs_name and not port.name:
        yield required(f"{path}.name")
    for fault in names.dns1123_label_faults(port.name) if port.name else ():
        yield invalid(f"{path}.name", port.name, fault)
    yield from validate_port(port.port, f"{path}.port")
    yield from validate_choice(port.protocol, PROTOCOLS, f"{path}.protocol")
    for fault in names.label_key_faults(port.app_protocol) if port.app_protocol is not None else ():
        yield invalid(f"{path}.appProtocol", port.app_protocol, fault)


def repacked(subsets: Iterable[EndpointSubset]) -> list[EndpointSubset]:
    """The same addresses and ports, in their tidy form; addresses in their order, the rest as they came."""
    addresses: dict[Host, EndpointAddress] = {}
    ports: dict[Port | None, EndpointPort | None] = {}
    offers: dict[Port | None, dict[Host, bool]] = {}
    for subset in subsets:
        offered: Sequence[EndpointPort | None] = subset.ports or (None,)
        for port in offered:
            key = (port.name, port.port, port.protocol, port.app_protocol) if port else None
            ports.setdefault(key, port)
            hosts = offers.setdefault(key, {})
            for ready, listed in ((True, subset.addresses), (False, subset.not_ready_addresses)):
                for address in listed:
                    host = (address.ip, (address.target_ref.uid if address.target_ref else None) or "")
                    addresses.setdefault(host, address)
                    hosts[host] = hosts.get(host, True) and ready

    together: dict[frozenset[tuple[Host, bool]], list[EndpointPort]] = {}
    for key, hosts in offers.items():
        if hosts:
            found = together.setdefault(frozenset(hosts.items()), [])
            if (kept := ports[key]) is not None:
                found.append(kept)
    return [_subset(hosts, addresses, listed) for hosts, listed in together.items()]


def _subset(
    hosts: Iterable[tuple[Host, bool]], addresses: dict[Host, EndpointAddress], ports: list[EndpointPort]
) -> EndpointSubset:
    in_order = sorted(hosts, key=lambda pair: (_bytes(pair[0][0]), pair[0][1]))
    return EndpointSubset(
        addresses=[addresses[host] for host, ready in in_order if ready],
        not_ready_addresses=[addresses[host] for host, ready in in_order if not ready],
        ports=ports,
    )


def _bytes(ip: str) -> bytes:
    address = parsed(ip)
    return address.packed if address else ip.encode()
