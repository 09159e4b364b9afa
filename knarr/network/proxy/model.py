"""What the service rules must do, as plain values: the part of the proxy that knows Services, not the kernel.

`service_rules` is a pure function from a Service and its EndpointSlices to one `PortRules` for each port. The modes
(`nftables`, `iptables`) only write these down in their own language. The rules are those of upstream's kube-proxy:

* ready endpoints are used; when none is ready, those that still serve while they terminate (KEP-1669);
* internalTrafficPolicy and externalTrafficPolicy Local use endpoints on this node only (KEP-2086);
* hints for this node or its zone narrow the choice when every ready endpoint carries one (KEP-2433, KEP-3015);
* an address whose service has no endpoint at all is refused at once; one whose policy leaves none here is dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum

from msgspec import Struct, field

from knarr.api.core.v1 import Service, ServicePort, ServiceSpec
from knarr.api.discovery.v1 import Endpoint as SliceEndpoint
from knarr.api.discovery.v1 import EndpointSlice

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
OTHER_PROXY_LABEL = "service.kubernetes.io/service-proxy-name"
"""A service with this label belongs to another proxy."""
HEADLESS_LABEL = "service.kubernetes.io/headless"
ZONE_LABEL = "topology.kubernetes.io/zone"
AFFINITY_TIMEOUT_DEFAULT_S = 10_800
PROTOCOLS = ("tcp", "udp", "sctp")


class NodeView(Struct, frozen=True):
    """From where the rules are seen."""

    name: str
    zone: str = ""
    own_addresses: frozenset[str] = frozenset()
    """Cluster IPs that this node answers itself (the cluster DNS): no rule is made for them."""


class Endpoint(Struct, frozen=True, order=True):
    """Where packets go."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


class Verdict(StrEnum):
    """What happens to a new connection."""

    FORWARD = "forward"
    REJECT = "reject"
    """No endpoint anywhere: refused at once."""
    DROP = "drop"
    """Endpoints elsewhere, none here, and the policy is Local: upstream says nothing, so that load balancers
    that spread by health checks find out by themselves."""


class PortRules(Struct, frozen=True):
    """All that the kernel must know of one port of one service."""

    name: str
    """namespace/name, with :port when the port has a name; upstream's ServicePortName."""
    protocol: str
    """tcp, udp or sctp."""
    port: int
    cluster_ip: str
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    """Who may use the load balancer IPs; empty for everyone."""
    node_port: int = 0
    affinity_timeout_s: int = 0
    """0 for no session affinity."""
    internal_local: bool = False
    external_local: bool = False
    cluster_endpoints: tuple[Endpoint, ...] = ()
    local_endpoints: tuple[Endpoint, ...] = ()
    somewhere: bool = field(default=False)
    """Whether any endpoint could serve, wherever it is."""

    @property
    def is_external(self) -> bool:
        """Whether it can be reached by anything but its cluster IP."""
        return bool(self.node_port or self.external_ips or self.load_balancer_ips)

    @property
    def uses_local(self) -> bool:
        return self.internal_local or (self.external_local and self.is_external)

    @property
    def uses_cluster(self) -> bool:
        """Short-circuited traffic of a Local external address (from pods and this node) uses all endpoints."""
        return not self.internal_local or self.is_external

    @property
    def internal(self) -> Verdict:
        return self._verdict(self.local_endpoints if self.internal_local else self.cluster_endpoints)

    @property
    def external(self) -> Verdict:
        return self._verdict(self.local_endpoints if self.external_local else self.cluster_endpoints)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Everything that a packet may be sent to."""
        return tuple(
            sorted(
                {
                    *(self.cluster_endpoints if self.uses_cluster else ()),
                    *(self.local_endpoints if self.uses_local else ()),
                }
            )
        )

    @property
    def frontends(self) -> tuple[str, ...]:
        """Addresses that it answers to, node addresses left out."""
        return (self.cluster_ip, *self.external_ips, *self.load_balancer_ips)

    def _verdict(self, endpoints: tuple[Endpoint, ...]) -> Verdict:
        if endpoints:
            return Verdict.FORWARD
        return Verdict.DROP if self.somewhere else Verdict.REJECT


def service_rules(service: Service, slices: Iterable[EndpointSlice], node: NodeView) -> tuple[PortRules, ...]:
    """The rules of one service on one node; none for headless, ExternalName and other proxies' services."""
    spec = service.spec
    if spec is None or not _is_proxied(service, spec, node.own_addresses):
        return ()
    usable = [each for each in slices if each.address_type == "IPv4" and not each.metadata.deletion_timestamp]
    return tuple(
        _port_rules(service, spec, port, usable, node)
        for port in spec.ports
        if (port.protocol or "TCP").lower() in PROTOCOLS
    )


def _is_proxied(service: Service, spec: ServiceSpec, own_addresses: Collection[str]) -> bool:
    address = spec.cluster_ip or ""
    return (
        spec.type != "ExternalName"
        and address not in ("", "None")
        and _is_ipv4(address)
        and address not in own_addresses
        and OTHER_PROXY_LABEL not in service.metadata.labels
    )


def _port_rules(
    service: Service, spec: ServiceSpec, port: ServicePort, slices: Sequence[EndpointSlice], node: NodeView
) -> PortRules:
    name = f"{service.metadata.namespace}/{service.metadata.name}" + (f":{port.name}" if port.name else "")
    protocol = port.protocol or "TCP"
    candidates = _candidates(port.name or "", protocol, slices)
    everywhere = _choose(_hinted(candidates, node))
    here = _choose([each for each in candidates if each[1].node_name == node.name])
    ingress = service.status.load_balancer.ingress if service.status and service.status.load_balancer else []
    return PortRules(
        name=name,
        protocol=protocol.lower(),
        port=port.port,
        cluster_ip=spec.cluster_ip or "",
        external_ips=tuple(sorted({each for each in spec.external_ips if _is_ipv4(each)})),
        load_balancer_ips=tuple(
            sorted(
                {
                    each.ip
                    for each in ingress
                    if spec.type == "LoadBalancer" and each.ip and _is_ipv4(each.ip) and each.ip_mode in (None, "VIP")
                }
            )
        ),
        source_ranges=tuple(sorted({each.strip() for each in spec.load_balancer_source_ranges if ":" not in each})),
        node_port=(port.node_port or 0) if spec.type in ("NodePort", "LoadBalancer") else 0,
        affinity_timeout_s=_affinity_timeout_s(spec),
        internal_local=spec.internal_traffic_policy == "Local",
        external_local=spec.external_traffic_policy == "Local",
        cluster_endpoints=everywhere,
        local_endpoints=here,
        somewhere=bool(_choose(candidates)),
    )


def _affinity_timeout_s(spec: ServiceSpec) -> int:
    if spec.session_affinity != "ClientIP":
        return 0
    configured = spec.session_affinity_config and spec.session_affinity_config.client_ip
    return (configured and configured.timeout_seconds) or AFFINITY_TIMEOUT_DEFAULT_S


_Candidate = tuple[Endpoint, SliceEndpoint]


def _candidates(port_name: str, protocol: str, slices: Sequence[EndpointSlice]) -> list[_Candidate]:
    """Endpoints for a port. One that is in two slices while it moves counts once, ready if either says so."""
    found: dict[Endpoint, SliceEndpoint] = {}
    for each in slices:
        for slice_port in each.ports:
            if (slice_port.name or "") != port_name or (slice_port.protocol or "TCP") != protocol:
                continue
            if slice_port.port is None:
                continue
            for endpoint in each.endpoints:
                # Only the first address counts: all of an endpoint's addresses mean the same backend.
                if not endpoint.addresses:
                    continue
                key = Endpoint(endpoint.addresses[0], slice_port.port)
                if key not in found or (is_ready(endpoint) and not is_ready(found[key])):
                    found[key] = endpoint
    return sorted(found.items(), key=lambda item: item[0])


def is_ready(endpoint: SliceEndpoint) -> bool:
    """Unknown means ready (discovery/v1)."""
    return endpoint.conditions is None or endpoint.conditions.ready is not False


def _serves_while_terminating(endpoint: SliceEndpoint) -> bool:
    conditions = endpoint.conditions
    return conditions is not None and conditions.serving is not False and conditions.terminating is True


def _choose(candidates: Sequence[_Candidate]) -> tuple[Endpoint, ...]:
    ready = tuple(endpoint for endpoint, state in candidates if is_ready(state))
    return ready or tuple(endpoint for endpoint, state in candidates if _serves_while_terminating(state))


def _hinted(candidates: Sequence[_Candidate], node: NodeView) -> Sequence[_Candidate]:
    """Those meant for this node or its zone, when every ready one has such hints and some are meant for here."""
    ready = [each for each in candidates if is_ready(each[1])]
    if not ready:
        return candidates
    if all(state.hints and state.hints.for_nodes for _, state in ready):
        for_node = [
            each for each in ready if each[1].hints and any(hint.name == node.name for hint in each[1].hints.for_nodes)
        ]
        if for_node:
            return for_node
    if node.zone and all(state.hints and state.hints.for_zones for _, state in ready):
        for_zone = [
            each for each in ready if each[1].hints and any(hint.name == node.zone for hint in each[1].hints.for_zones)
        ]
        if for_zone:
            return for_zone
    return candidates


def _is_ipv4(address: str) -> bool:
    return ":" not in address
