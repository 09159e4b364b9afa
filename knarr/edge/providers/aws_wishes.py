"""What a Service wants of a Network Load Balancer: listeners, health checks, and what its annotations ask for.

The annotations are upstream's, service.beta.kubernetes.io/aws-load-balancer-…; docs/load-balancers.md lists those that
are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from knarr.edge.providers.contract import LoadBalancer, Port, ProviderFailure

ANNOTATION = "service.beta.kubernetes.io/aws-load-balancer-"
HEALTH_PATH = "/healthz"
"""Where a node says at its health-check node port whether it has ready endpoints."""
PROTOCOLS = ("TCP", "UDP")


class Wishes(Struct, frozen=True):
    """What a Service's annotations ask for."""

    scheme: str = "internet-facing"
    subnets: tuple[str, ...] = ()
    target_type: str = ""
    security_groups: tuple[str, ...] = ()
    """Instead of one of its own."""
    allocations: tuple[str, ...] = ()
    """Elastic addresses, one a subnet."""
    address_type: str = ""
    certificates: tuple[str, ...] = ()
    tls_ports: tuple[str, ...] = ()
    """Names or numbers; empty: all, where there are certificates."""
    tls_policy: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    target_attributes: Mapping[str, str] = field(default_factory=dict)
    health: Mapping[str, str] = field(default_factory=dict)
    """protocol, port, path, interval, timeout, healthy-threshold, unhealthy-threshold."""


class Listener(Struct, frozen=True):
    """A listener and its target group."""

    port: int
    protocol: str
    """TCP, UDP, TCP_UDP or TLS."""
    node_port: int

    @property
    def target_protocol(self) -> str:
        return "TCP" if self.protocol == "TLS" else self.protocol


def listeners_of(balancer: LoadBalancer) -> list[Listener]:
    """The listeners of a Service; a port of both protocols is one. Raises ProviderFailure."""
    wishes = wishes_of(balancer)
    found: dict[int, Listener] = {}
    for port in balancer.ports:
        if port.protocol not in PROTOCOLS:
            raise ProviderFailure(f"Network Load Balancers don't know {port.protocol} (port {port.port})")
        if not port.node_port:
            raise ProviderFailure(f"port {port.port} has no node port, and the targets are node ports")
        protocol = "TLS" if port.protocol == "TCP" and _is_tls(wishes, port) else port.protocol
        other = found.get(port.port)
        if other is not None:
            if {other.protocol, protocol} != {"TCP", "UDP"} or other.node_port != port.node_port:
                raise ProviderFailure(
                    f"port {port.port} is wanted for {other.protocol} and {protocol}: "
                    "a Network Load Balancer needs the same node port for both"
                )
            protocol = "TCP_UDP"
        found[port.port] = Listener(port.port, protocol, port.node_port)
    return list(found.values())


def wishes_of(balancer: LoadBalancer) -> Wishes:
    """Raises ProviderFailure."""
    given = {
        key.removeprefix(ANNOTATION): value.strip()
        for key, value in balancer.annotations.items()
        if key.startswith(ANNOTATION)
    }
    scheme = given.get("scheme") or ("internal" if given.get("internal", "false") == "true" else "internet-facing")
    if scheme not in ("internal", "internet-facing"):
        raise ProviderFailure(f"{ANNOTATION}scheme must be internal or internet-facing, not {scheme!r}")
    target_type = given.get("nlb-target-type") or given.get("target-type", "")
    if target_type not in ("", "instance", "ip"):
        raise ProviderFailure(f"{ANNOTATION}nlb-target-type must be instance or ip, not {target_type!r}")
    attributes = _read_pairs(given.get("attributes", ""))
    if "cross-zone-load-balancing-enabled" in given:
        attributes["load_balancing.cross_zone.enabled"] = given["cross-zone-load-balancing-enabled"]
    return Wishes(
        scheme=scheme,
        subnets=_read_list(given.get("subnets", "")),
        target_type=target_type,
        security_groups=_read_list(given.get("security-groups", "")),
        allocations=_read_list(given.get("eip-allocations", "")),
        address_type=given.get("ip-address-type", ""),
        certificates=_read_list(given.get("ssl-cert", "")),
        tls_ports=tuple(each for each in _read_list(given.get("ssl-ports", "")) if each != "*"),
        tls_policy=given.get("ssl-negotiation-policy", ""),
        tags=_read_pairs(given.get("additional-resource-tags", "")),
        attributes=attributes,
        target_attributes={
            **({"proxy_protocol_v2.enabled": "true"} if given.get("proxy-protocol") == "*" else {}),
            **_read_pairs(given.get("target-group-attributes", "")),
        },
        health={
            key.removeprefix("healthcheck-"): value for key, value in given.items() if key.startswith("healthcheck-")
        },
    )


def health_check(balancer: LoadBalancer, wishes: Wishes) -> dict[str, Any]:
    """By the node ports; with externalTrafficPolicy Local by whether a node has endpoints."""
    local = balancer.local_only and balancer.health_check_port
    protocol = wishes.health.get("protocol", "HTTP" if local else "TCP").upper()
    port = wishes.health.get("port", str(balancer.health_check_port) if local else "traffic-port")
    found: dict[str, Any] = {"HealthCheckProtocol": protocol, "HealthCheckPort": port}
    if protocol != "TCP":
        found["HealthCheckPath"] = wishes.health.get("path", HEALTH_PATH)
    for key, name in (
        ("interval", "HealthCheckIntervalSeconds"),
        ("timeout", "HealthCheckTimeoutSeconds"),
        ("healthy-threshold", "HealthyThresholdCount"),
        ("unhealthy-threshold", "UnhealthyThresholdCount"),
    ):
        if key in wishes.health:
            if not wishes.health[key].isdecimal():
                raise ProviderFailure(f"{ANNOTATION}healthcheck-{key} must be a number, not {wishes.health[key]!r}")
            found[name] = int(wishes.health[key])
    return found


def target_attributes(balancer: LoadBalancer, wishes: Wishes, listener: Listener) -> dict[str, str]:
    found = {"stickiness.enabled": "false"}
    if balancer.affinity_s and listener.protocol != "TLS":
        found = {"stickiness.enabled": "true", "stickiness.type": "source_ip"}
    return {**found, **wishes.target_attributes}


def instance_of(provider_id: str) -> str:
    """aws:///eu-west-1a/i-0123 → i-0123; empty for anything else."""
    match = re.fullmatch(r"aws://[^/]*/[^/]*/(i-[0-9a-f]+)", provider_id)
    return match[1] if match else ""


def _is_tls(wishes: Wishes, port: Port) -> bool:
    if not wishes.certificates:
        return False
    return not wishes.tls_ports or str(port.port) in wishes.tls_ports or port.name in wishes.tls_ports


def _read_list(text: str) -> tuple[str, ...]:
    return tuple(each.strip() for each in text.split(",") if each.strip())


def _read_pairs(text: str) -> dict[str, str]:
    """a=b,c=d"""
    return {key.strip(): value.strip() for key, _, value in (each.partition("=") for each in _read_list(text))}
