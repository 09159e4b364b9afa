"""What the service rules must do, as plain values: the part of the proxy that knows Services, not the kernel.

`service_rules` is a pure function from a Service and its EndpointSlices to one `PortRules` for each port and address
family. The modes (`nftables`, `iptables`) only write these down in their own language. The rules are those of
upstream's kube-proxy:

* a Service's address of a family leads to the endpoints of slices of that family (KEP-563);
* ready endpoints are used; when none is ready, those that still serve while they terminate (KEP-1669);
* internalTrafficPolicy and externalTrafficPolicy Local use endpoints on this node only (KEP-2086);
* hints for this node or its zone narrow the choice when every ready endpoint carries one (KEP-2433, KEP-3015);
* an address whose service has no endpoint at all is refused at once; one whose policy leaves none here is dropped;
* nothing leads to loopback or link-local addresses, whoever wrote them down: a node answers itself and its cloud there;
* nothing leads to the agent of a node, be it by hand or by a pod on the node's network: to no place that a Node tells
  of, and to port 10250 of nothing that is no pod.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Literal, cast

from msgspec import Struct, field

from knarr.api.core.node_agents import KUBELET_PORT, Place, canonical
from knarr.api.core.v1 import LoadBalancerIngress, Service, ServicePort, ServiceSpec
from knarr.api.discovery.v1 import Endpoint as SliceEndpoint
from knarr.api.discovery.v1 import EndpointSlice

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
OTHER_PROXY_LABEL = "service.kubernetes.io/service-proxy-name"
"""A service with this label belongs to another proxy."""
HEADLESS_LABEL = "service.kubernetes.io/headless"
ZONE_LABEL = "topology.kubernetes.io/zone"
AFFINITY_TIMEOUT_DEFAULT_S = 10_800
PROTOCOLS = ("tcp", "udp", "sctp")
ANY_ADDRESS = {"IPv4": "0.0.0.0", "IPv6": "::"}
"""Stands for all addresses of this node, whatever they are at the moment."""
ADDRESSES_KNOWN_MAX = 65_536

Family = Literal["IPv4", "IPv6"]
FAMILIES: tuple[Family, ...] = ("IPv4", "IPv6")


def family_of(text: str) -> Family:
    """Of an address or a range."""
    return "IPv6" if ":" in text else "IPv4"


class NodeView(Struct, frozen=True):
    """From where the rules are seen."""

    name: str
    zone: str = ""
    own_addresses: frozenset[str] = frozenset()
    """Cluster IPs that this node answers itself (the cluster DNS): no rule is made for them."""
    addresses: tuple[str, ...] = ()
    """The node's own (InternalIP), of both families."""
    node_port_addresses: tuple[str, ...] = ()
    """Where node ports are answered, of both families."""
    pod_ranges: tuple[str, ...] = ()
    """Of all pods of the cluster; without any, pods are not told from what else answers at an agent's usual port."""
    agents: frozenset[Place] = frozenset()
    """Where the agents of nodes answer."""


class Endpoint(Struct, frozen=True, order=True):
    """Where packets go."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Verdict(StrEnum):
    """What happens to a new connection."""

    FORWARD = "forward"
    REJECT = "reject"
    """No endpoint anywhere: refused at once."""
    DROP = "drop"
    """Endpoints elsewhere, none here, and the policy is Local: upstream says nothing, so that load balancers
    that spread by health checks find out by themselves."""


class PortRules(Struct, frozen=True):
    """All that the kernel must know of one port of one service, in one address family."""

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
    node_addresses: tuple[str, ...] = ()
    """Where the node port is answered; none without a node port."""
    affinity_timeout_s: int = 0
    """0 for no session affinity."""
    internal_local: bool = False
    external_local: bool = False
    cluster_endpoints: tuple[Endpoint, ...] = ()
    local_endpoints: tuple[Endpoint, ...] = ()
    somewhere: bool = field(default=False)
    """Whether any endpoint could serve, wherever it is."""
    serving: tuple[Endpoint, ...] = ()
    """What still answers, whether or not new connections go there: flows that are there may stay."""

    @property
    def family(self) -> Family:
        return family_of(self.cluster_ip)

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
    if spec is None or spec.type == "ExternalName" or OTHER_PROXY_LABEL in service.metadata.labels:
        return ()
    addresses = [each for each in spec.cluster_ips or [spec.cluster_ip or ""] if each not in ("", "None")]
    usable = [each for each in slices if not each.metadata.deletion_timestamp]
    return tuple(
        _port_rules(service, spec, port, address, usable, node)
        for address in addresses
        if address not in node.own_addresses
        for port in spec.ports
        if (port.protocol or "TCP").lower() in PROTOCOLS
    )


class HealthCheck(Struct, frozen=True):
    """What a load balancer may ask this node about a Service (healthCheckNodePort)."""

    port: int
    local_endpoints: int
    """Ready ones on this node."""


def health_check(service: Service, slices: Iterable[EndpointSlice], node: NodeView) -> HealthCheck | None:
    """None for a Service that load balancers need not ask about."""
    spec = service.spec
    if spec is None or spec.type != "LoadBalancer" or spec.external_traffic_policy != "Local":
        return None
    if not spec.health_check_node_port or OTHER_PROXY_LABEL in service.metadata.labels:
        return None
    here: dict[str, set[str]] = {}
    for each in slices:
        addresses = here.setdefault(each.address_type, set())
        for endpoint in each.endpoints:
            if endpoint.node_name == node.name and endpoint.addresses and is_ready(endpoint):
                addresses.add(endpoint.addresses[0])
    # A pod with an address of each family is one endpoint: load balancers share connections out by this number.
    return HealthCheck(spec.health_check_node_port, max((len(each) for each in here.values()), default=0))


def refused_addresses(service: Service, slices: Iterable[EndpointSlice]) -> list[str]:
    """Addresses that a Service or its endpoints name, and that no rule leads to."""
    named = [address for each in slices for endpoint in each.endpoints for address in endpoint.addresses[:1]]
    if service.spec:
        named += service.spec.external_ips
    named += [each.ip for each in _ingress(service) if each.ip]
    return sorted({each for each in named if not may_lead_to(each)})


@lru_cache(ADDRESSES_KNOWN_MAX)
def may_lead_to(address: str) -> bool:
    """Whether packets may be sent there for a service: no loopback, link-local, multicast or unspecified address.

    An IPv4 address inside an IPv6 one counts as what it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    return not (parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified)


def leads_to_agent(address: str, port: int, agents: Collection[Place], pod_ranges: tuple[str, ...]) -> bool:
    """A machine has more addresses than its Node tells of, so nothing but pods is reached at an agent's usual port."""
    if (canonical(address), port) in agents:
        return True
    return port == KUBELET_PORT and bool(pod_ranges) and not _is_within(address, pod_ranges)


@lru_cache(ADDRESSES_KNOWN_MAX)
def _is_within(address: str, ranges: tuple[str, ...]) -> bool:
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(each) for each in ranges)


def _port_rules(
    service: Service,
    spec: ServiceSpec,
    port: ServicePort,
    cluster_ip: str,
    slices: Sequence[EndpointSlice],
    node: NodeView,
) -> PortRules:
    family = family_of(cluster_ip)
    name = f"{service.metadata.namespace}/{service.metadata.name}" + (f":{port.name}" if port.name else "")
    protocol = port.protocol or "TCP"
    of_family = [each for each in slices if each.address_type == family]
    candidates = _candidates(port.name or "", protocol, of_family, node)
    balancers = _usable((each.ip for each in _ingress(service) if each.ip and each.ip_mode in (None, "VIP")), family)
    node_port = (port.node_port or 0) if spec.type in ("NodePort", "LoadBalancer") else 0
    return PortRules(
        name=name,
        protocol=protocol.lower(),
        port=port.port,
        cluster_ip=cluster_ip,
        external_ips=_usable(spec.external_ips, family),
        load_balancer_ips=balancers,
        source_ranges=_source_ranges(spec, family, balancers, node),
        node_port=node_port,
        node_addresses=_of_family(node.node_port_addresses, family) if node_port else (),
        affinity_timeout_s=_affinity_timeout_s(spec),
        internal_local=spec.internal_traffic_policy == "Local",
        external_local=spec.external_traffic_policy == "Local",
        cluster_endpoints=_choose(_hinted(candidates, node)),
        local_endpoints=_choose([each for each in candidates if each[1].node_name == node.name]),
        somewhere=bool(_choose(candidates)),
        serving=tuple(endpoint for endpoint, state in candidates if _serves(state)),
    )


def _ingress(service: Service) -> list[LoadBalancerIngress]:
    """What the load balancer has told; nothing for services that want none."""
    balanced = service.spec is not None and service.spec.type == "LoadBalancer"
    status = service.status and service.status.load_balancer
    return status.ingress if balanced and status else []


def _usable(addresses: Iterable[str], family: Family) -> tuple[str, ...]:
    return tuple(sorted({each for each in addresses if family_of(each) == family and may_lead_to(each)}))


def _of_family(addresses: Iterable[str], family: Family) -> tuple[str, ...]:
    return tuple(each for each in addresses if family_of(each) == family)


def _source_ranges(spec: ServiceSpec, family: Family, balancers: Sequence[str], node: NodeView) -> tuple[str, ...]:
    """Who may use the load balancer's addresses. Where a node takes such an address as its own, its packets to it come
    from it too: they are let through when the node itself may."""
    networks = []
    for text in spec.load_balancer_source_ranges:
        try:
            networks.append(ipaddress.ip_network(text.strip(), strict=False))
        except ValueError:
            continue
    ranges = [each for each in networks if family_of(str(each)) == family]
    own = [ipaddress.ip_address(each) for each in _of_family(node.addresses, family)]
    admitted = balancers if any(address in each for address in own for each in ranges) else ()
    all_of_them = cast(list[ipaddress.IPv4Network], [*ranges, *map(ipaddress.ip_network, admitted)])
    return tuple(str(each) for each in ipaddress.collapse_addresses(all_of_them))


def _affinity_timeout_s(spec: ServiceSpec) -> int:
    if spec.session_affinity != "ClientIP":
        return 0
    configured = spec.session_affinity_config and spec.session_affinity_config.client_ip
    return (configured and configured.timeout_seconds) or AFFINITY_TIMEOUT_DEFAULT_S


_Candidate = tuple[Endpoint, SliceEndpoint]


def _candidates(port_name: str, protocol: str, slices: Sequence[EndpointSlice], node: NodeView) -> list[_Candidate]:
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
                if not endpoint.addresses or not may_lead_to(endpoint.addresses[0]):
                    continue
                if leads_to_agent(endpoint.addresses[0], slice_port.port, node.agents, node.pod_ranges):
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


def _serves(endpoint: SliceEndpoint) -> bool:
    return is_ready(endpoint) or (endpoint.conditions is not None and endpoint.conditions.serving is not False)


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
