"""NetworkPolicy: what is filled in, refused and shown (networking/v1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from knarr.api.core.validate_addresses import validate_cidr
from knarr.api.core.validate_values import validate_port, validate_port_or_name, validate_selector
from knarr.api.errors import Cause, forbidden, invalid, not_supported, required
from knarr.api.meta.v1 import LabelSelector
from knarr.api.networking.v1 import IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec
from knarr.api.printing import NONE, age
from knarr.api.resources import Column, Strategy
from knarr.api.selectors import selector_of

POLICY_TYPES = ("Ingress", "Egress")
PROTOCOLS = ("TCP", "UDP", "SCTP")


class NetworkPolicyRules(Strategy[NetworkPolicy]):
    has_generation = True

    def default(self, obj: NetworkPolicy) -> None:
        spec = obj.spec = obj.spec or NetworkPolicySpec()
        if spec.pod_selector is None:
            spec.pod_selector = LabelSelector()
        if not spec.policy_types:
            spec.policy_types = ["Ingress", "Egress"] if spec.egress else ["Ingress"]
        ports = [port for entering in spec.ingress for port in entering.ports]
        for port in (*ports, *(port for leaving in spec.egress for port in leaving.ports)):
            port.protocol = "TCP" if port.protocol is None else port.protocol

    def validate(self, obj: NetworkPolicy) -> Iterable[Cause]:
        spec = obj.spec or NetworkPolicySpec()
        yield from validate_selector(spec.pod_selector, "spec.podSelector")
        for index, entering in enumerate(spec.ingress):
            path = f"spec.ingress[{index}]"
            yield from _validate_ports(entering.ports, f"{path}.ports")
            for number, peer in enumerate(entering.from_):
                yield from _validate_peer(peer, f"{path}.from[{number}]")
        for index, leaving in enumerate(spec.egress):
            path = f"spec.egress[{index}]"
            yield from _validate_ports(leaving.ports, f"{path}.ports")
            for number, peer in enumerate(leaving.to):
                yield from _validate_peer(peer, f"{path}.to[{number}]")
        if len(spec.policy_types) > len(POLICY_TYPES):
            yield invalid("spec.policyTypes", spec.policy_types, "may not specify more than two policyTypes")
            return
        for index, kind in enumerate(spec.policy_types):
            if kind not in POLICY_TYPES:
                yield not_supported(f"spec.policyTypes[{index}]", kind, POLICY_TYPES, in_order=True)


def _validate_ports(ports: Sequence[NetworkPolicyPort], path: str) -> Iterable[Cause]:
    for index, port in enumerate(ports):
        place = f"{path}[{index}]"
        if port.protocol not in PROTOCOLS:
            yield not_supported(f"{place}.protocol", port.protocol, PROTOCOLS, in_order=True)
        if port.port is None:
            if port.end_port is not None:
                yield invalid(f"{place}.endPort", port.end_port, "may not be specified when `port` is not specified")
            continue
        if isinstance(port.port, str) and port.end_port is not None:
            yield invalid(f"{place}.endPort", port.end_port, "may not be specified when `port` is non-numeric")
        yield from validate_port_or_name(port.port, f"{place}.port")
        if port.end_port is not None and isinstance(port.port, int):
            if port.end_port < port.port:
                yield invalid(f"{place}.endPort", port.end_port, "must be greater than or equal to `port`")
            yield from validate_port(port.end_port, f"{place}.endPort")


def _validate_peer(peer: NetworkPolicyPeer, path: str) -> Iterable[Cause]:
    selected = peer.pod_selector or peer.namespace_selector
    yield from validate_selector(peer.pod_selector, f"{path}.podSelector")
    yield from validate_selector(peer.namespace_selector, f"{path}.namespaceSelector")
    if peer.ip_block:
        yield from _validate_block(peer.ip_block, f"{path}.ipBlock")
        if selected:
            yield forbidden(path, "may not specify both ipBlock and another peer")
    elif not selected:
        yield required(path, "must specify a peer")


def _validate_block(block: IPBlock, path: str) -> Iterable[Cause]:
    if not block.cidr:
        yield required(f"{path}.cidr")
        return
    faults = list(validate_cidr(block.cidr, f"{path}.cidr"))
    yield from faults
    whole = network(block.cidr)
    if faults or whole is None:
        return
    for index, written in enumerate(block.except_):
        place, part = f"{path}.except[{index}]", network(written)
        faults = list(validate_cidr(written, place))
        yield from faults
        if faults or part is None:
            continue
        if part.version != whole.version or part == whole or not part.subnet_of(whole):  # type: ignore[arg-type]
            yield invalid(place, written, "must be a strict subset of `cidr`")


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def network(written: str) -> Network | None:
    """A CIDR, read; None for what is none."""
    if "/" not in written:
        return None
    try:
        return ipaddress.ip_network(written, strict=False)
    except ValueError:
        return None


def _selector(obj: NetworkPolicy) -> str:
    found = selector_of(obj.spec.pod_selector) if obj.spec else None
    return str(found) if found and found.requirements else NONE


COLUMNS = (
    Column("Pod-Selector", lambda obj, now_s: _selector(obj)),
    Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s)),
)
