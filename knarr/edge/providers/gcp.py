"""External passthrough Network Load Balancers of Google Cloud, by google-cloud-compute (`pip install knarr[gcp]`).

A Service has, all named by its uid: a regional address; for each protocol a forwarding rule and a regional backend
service; a health check; in each zone with nodes a network endpoint group of them (GCE_VM_IP); and two firewall rules,
one for its clients and one for Google's health checkers. Packets come to the nodes with the load balancer's address, so
it is the service rules that take them (ipMode VIP); node ports only serve health checks.

The SDK blocks: each call of the contract runs in a thread of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from knarr.api.core.node_agents import KUBELET_PORT
from knarr.api.core.v1 import LoadBalancerIngress
from knarr.edge.providers.blocking import BlockingProvider
from knarr.edge.providers.contract import (
    Ingress,
    LoadBalancer,
    ProviderFailure,
    Target,
    quiet,
    without_secrets,
)

CALL_S_MAX = 20.0
OPERATION_S_MAX = 120.0
PORTS_MAX = 5
"""Of a forwarding rule that names them one by one; more are a range, and the firewall leaves out what is between."""
HEALTH_CHECKERS = ["35.191.0.0/16", "130.211.0.0/22", "209.85.152.0/22", "209.85.204.0/22"]
"""From where Google looks whether a node answers."""
INTERNAL = "networking.gke.io/load-balancer-type"
PROTOCOLS = ("TCP", "UDP")


class GcpSettings(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The file that cloudConfig names."""

    project: str
    region: str
    network: str = "default"
    subnetwork: str = "default"
    node_tags: tuple[str, ...] = ()
    """The firewall opens nodes with one of these network tags; empty: all instances of the network."""
    endpoint: str = ""
    """Of another service that speaks the Compute Engine API."""


class Kind(Struct, frozen=True):
    """A kind of resource: how the SDK calls its client and its arguments."""

    client: str
    argument: str
    scope: str
    """region, zone, or empty for global ones."""
    change: str = "patch"
    """How it is changed; empty: it can't be, another takes its place."""


ADDRESS = Kind("AddressesClient", "address", "region", change="")
HEALTH_CHECK = Kind("RegionHealthChecksClient", "health_check", "region", change="update")
BACKEND_SERVICE = Kind("RegionBackendServicesClient", "backend_service", "region")
FORWARDING_RULE = Kind("ForwardingRulesClient", "forwarding_rule", "region", change="")
ENDPOINT_GROUP = Kind("NetworkEndpointGroupsClient", "network_endpoint_group", "zone", change="")
FIREWALL = Kind("FirewallsClient", "firewall", "")


class Gcp(BlockingProvider):
    """The provider `gcp`. `credentials` are google.auth's; by default those of the environment."""

    name = "gcp"
    load_balancer_class = "knarr.dev/gcp"

    def __init__(self, settings: GcpSettings, credentials: Any = None) -> None:
        self._settings = settings
        self._credentials = credentials
        self._clients: dict[str, Any] = {}
        quiet("google", "urllib3", "requests")

    async def close(self) -> None:
        for client in self._clients.values():
            client.transport.close()

    def _told(self, error: Exception) -> Exception | None:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException

        known = isinstance(error, (GoogleAPIError, GoogleAuthError, RequestException))
        return ProviderFailure(without_secrets(f"Google Cloud: {error}")) if known else None

    # The contract, blocking

    def _status(self, balancer: LoadBalancer) -> Ingress | None:
        name = balancer.unique_name
        address = self._get(ADDRESS, name)
        rules = [self._get(FORWARDING_RULE, _of(name, protocol)) for protocol in PROTOCOLS]
        if any(rules):
            return _ingress(next(rule for rule in rules if rule).I_p_address)
        parts = [
            *((BACKEND_SERVICE, _of(name, protocol)) for protocol in PROTOCOLS),
            (HEALTH_CHECK, name),
            (FIREWALL, _firewall(name)),
            (FIREWALL, _health_firewall(name)),
        ]
        if address or any(self._get(kind, each) for kind, each in parts) or self._zones(name):
            return ()
        return None

    def _ensure(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress:
        check_wishes(balancer)
        name, network = balancer.unique_name, self._path("networks", self._settings.network, "global")
        description = f"Kubernetes Service {balancer.key} of the cluster {balancer.cluster}"
        address = balancer.requested[0] if balancer.requested else self._address(name, description)
        health = self._put(HEALTH_CHECK, name, health_check(balancer))
        groups = self._groups(name, network, nodes)
        protocols = {port.protocol for port in balancer.ports}
        for protocol in PROTOCOLS:
            rule, service = (FORWARDING_RULE, _of(name, protocol)), (BACKEND_SERVICE, _of(name, protocol))
            if protocol not in protocols:
                self._remove(*rule)
                self._remove(*service)
                continue
            backend = self._put(*service, self._backend(balancer, protocol, health.self_link, groups.values()))
            self._put(*rule, self._rule(balancer, protocol, address, backend.self_link))
        for zone in self._zones(name) - groups.keys():
            self._remove(ENDPOINT_GROUP, name, zone)
        self._put(FIREWALL, _firewall(name), self._opened(balancer, network, address))
        self._put(FIREWALL, _health_firewall(name), self._opened_for_checks(balancer, network))
        if balancer.requested:
            self._remove(ADDRESS, name)
        return _ingress(address)

    def _delete(self, balancer: LoadBalancer) -> None:
        name = balancer.unique_name
        for kind in (FORWARDING_RULE, BACKEND_SERVICE):  # each names the next
            for protocol in PROTOCOLS:
                self._remove(kind, _of(name, protocol))
        self._remove(HEALTH_CHECK, name)
        for zone in self._zones(name):
            self._remove(ENDPOINT_GROUP, name, zone)
        self._remove(FIREWALL, _firewall(name))
        self._remove(FIREWALL, _health_firewall(name))
        self._remove(ADDRESS, name)

    # What there is to be

    def _address(self, name: str, description: str) -> str:
        wanted = {"description": description, "address_type": "EXTERNAL", "network_tier": "PREMIUM"}
        address: str = self._put(ADDRESS, name, wanted).address
        if not address:
            raise ProviderFailure(f"the address {name} is not reserved yet")
        return address

    def _groups(self, name: str, network: str, nodes: Sequence[Target]) -> dict[str, str]:
        """The nodes of each zone are in a group; answers the groups by zone."""
        by_zone: dict[str, set[str]] = {}
        for node in nodes:
            zone, instance = instance_of(node.provider_id)
            if instance:
                by_zone.setdefault(zone, set()).add(instance)
        found = {}
        subnetwork = self._path("subnetworks", self._settings.subnetwork, f"regions/{self._settings.region}")
        for zone, instances in by_zone.items():
            wanted = {"network_endpoint_type": "GCE_VM_IP", "network": network, "subnetwork": subnetwork}
            found[zone] = self._put(ENDPOINT_GROUP, name, wanted, zone).self_link
            self._match_endpoints(name, zone, instances)
        return found

    def _match_endpoints(self, name: str, zone: str, instances: set[str]) -> None:
        client = self._client(ENDPOINT_GROUP)
        where = {"project": self._settings.project, "zone": zone, "network_endpoint_group": name}
        answer = client.list_network_endpoints(request=where, timeout=CALL_S_MAX)
        there = {each.network_endpoint.instance.rpartition("/")[2] for each in answer}
        for verb, some in (("attach", instances - there), ("detach", there - instances)):
            if some:
                endpoints = {
                    "network_endpoints": [
                        {"instance": self._path("instances", each, f"zones/{zone}")} for each in sorted(some)
                    ]
                }
                argument = f"network_endpoint_groups_{verb}_endpoints_request_resource"
                call = getattr(client, f"{verb}_network_endpoints")
                self._finished(call(request={**where, argument: endpoints}, timeout=CALL_S_MAX))

    def _backend(self, balancer: LoadBalancer, protocol: str, health: str, groups: Iterable[str]) -> dict[str, Any]:
        return {
            "load_balancing_scheme": "EXTERNAL",
            "protocol": protocol,
            "health_checks": [health],
            "backends": [{"group": group, "balancing_mode": "CONNECTION"} for group in sorted(groups)],
            "session_affinity": "CLIENT_IP" if balancer.affinity_s else "NONE",
        }

    def _rule(self, balancer: LoadBalancer, protocol: str, address: str, backend: str) -> dict[str, Any]:
        ports = sorted(port.port for port in balancer.ports if port.protocol == protocol)
        named: dict[str, Any] = {"ports": [str(port) for port in ports]}
        if len(ports) > PORTS_MAX:
            named = {"port_range": f"{ports[0]}-{ports[-1]}"}
        return {
            "description": f"Kubernetes Service {balancer.key} of the cluster {balancer.cluster}",
            "load_balancing_scheme": "EXTERNAL",
            "I_p_address": address,
            "I_p_protocol": protocol,
            "backend_service": backend,
            "network_tier": "PREMIUM",
            **named,
        }

    def _opened(self, balancer: LoadBalancer, network: str, address: str) -> dict[str, Any]:
        """Who may connect."""
        protocols = sorted({port.protocol for port in balancer.ports})
        return {
            "network": network,
            "direction": "INGRESS",
            "source_ranges": list(balancer.source_ranges) or ["0.0.0.0/0"],
            "destination_ranges": [address],
            "target_tags": list(self._settings.node_tags),
            "allowed": [
                {
                    "I_p_protocol": protocol.lower(),
                    "ports": [str(port.port) for port in balancer.ports if port.protocol == protocol],
                }
                for protocol in protocols
            ],
        }

    def _opened_for_checks(self, balancer: LoadBalancer, network: str) -> dict[str, Any]:
        return {
            "network": network,
            "direction": "INGRESS",
            "source_ranges": HEALTH_CHECKERS,
            "target_tags": list(self._settings.node_tags),
            "allowed": [{"I_p_protocol": "tcp", "ports": [str(health_port(balancer))]}],
        }

    # Resources

    def _client(self, kind: Kind) -> Any:
        from google.cloud import compute_v1  # 1.5 s and 100 MB that only its users pay for

        if kind.client not in self._clients:
            options = {"api_endpoint": self._settings.endpoint} if self._settings.endpoint else None
            made = getattr(compute_v1, kind.client)(credentials=self._credentials, client_options=options)
            self._clients[kind.client] = made
        return self._clients[kind.client]

    def _where(self, kind: Kind, zone: str) -> dict[str, str]:
        scopes = {"region": {"region": self._settings.region}, "zone": {"zone": zone}}
        return {"project": self._settings.project, **scopes.get(kind.scope, {})}

    def _get(self, kind: Kind, name: str, zone: str = "") -> Any:
        """None where there is none."""
        from google.api_core.exceptions import NotFound

        try:
            return self._client(kind).get(request={**self._where(kind, zone), kind.argument: name}, timeout=CALL_S_MAX)
        except NotFound:
            return None

    def _put(self, kind: Kind, name: str, wanted: Mapping[str, Any], zone: str = "") -> Any:
        """Make it, or make it as it is wanted; answers it."""
        from google.api_core.exceptions import Conflict

        client, where, there = self._client(kind), self._where(kind, zone), self._get(kind, name, zone)
        resource = {f"{kind.argument}_resource": {"name": name, **wanted}}
        if there is not None:
            if is_as(there, wanted):
                return there
            if kind.change:
                # Who changes a resource that somebody else has changed meanwhile is refused, and looks again.
                if fingerprint := getattr(there, "fingerprint", ""):
                    resource[f"{kind.argument}_resource"]["fingerprint"] = fingerprint
                request = {**where, kind.argument: name, **resource}
                self._finished(getattr(client, kind.change)(request=request, timeout=CALL_S_MAX))
                return self._get(kind, name, zone)
            self._remove(kind, name, zone)
        try:
            self._finished(client.insert(request={**where, **resource}, timeout=CALL_S_MAX))
        except Conflict:
            pass  # it was asked for before, and is there by now
        made = self._get(kind, name, zone)
        if made is None:
            raise ProviderFailure(f"{kind.argument} {name} is not there yet")
        return made

    def _remove(self, kind: Kind, name: str, zone: str = "") -> None:
        from google.api_core.exceptions import NotFound

        try:
            request = {**self._where(kind, zone), kind.argument: name}
            self._finished(self._client(kind).delete(request=request, timeout=CALL_S_MAX))
        except NotFound:
            pass

    def _zones(self, name: str) -> set[str]:
        """Where there are endpoint groups of that name."""
        request = {"project": self._settings.project, "filter": f'name = "{name}"'}
        found = set()
        for scope, some in self._client(ENDPOINT_GROUP).aggregated_list(request=request, timeout=CALL_S_MAX):
            if any(group.name == name for group in some.network_endpoint_groups):
                found.add(scope.rpartition("/")[2])
        return found

    def _finished(self, operation: Any) -> None:
        operation.result(timeout=OPERATION_S_MAX)

    def _path(self, kind: str, name: str, scope: str) -> str:
        return name if "/" in name else f"projects/{self._settings.project}/{scope}/{kind}/{name}"


def check_wishes(balancer: LoadBalancer) -> None:
    """What can't be had. Raises ProviderFailure."""
    for port in balancer.ports:
        if port.protocol not in PROTOCOLS:
            raise ProviderFailure(f"Network Load Balancers of Google Cloud don't know {port.protocol} here")
    if balancer.annotations.get(INTERNAL, "External").lower() != "external":
        raise ProviderFailure(f"only external load balancers are made ({INTERNAL})")
    if "IPv4" not in balancer.families:
        raise ProviderFailure("only IPv4 load balancers are made")


def health_port(balancer: LoadBalancer) -> int:
    """Where a node is looked at: whether it has endpoints, else a port of the Service, else whether it is there."""
    if balancer.local_only and balancer.health_check_port:
        return balancer.health_check_port
    ports = [port.node_port for port in balancer.ports if port.protocol == "TCP" and port.node_port]
    return ports[0] if ports else KUBELET_PORT


def health_check(balancer: LoadBalancer) -> dict[str, Any]:
    port = health_port(balancer)
    if balancer.local_only and balancer.health_check_port:
        return {"type_": "HTTP", "http_health_check": {"port": port, "request_path": "/healthz"}, **_TIMES}
    return {"type_": "TCP", "tcp_health_check": {"port": port}, **_TIMES}


_TIMES = {"check_interval_sec": 8, "timeout_sec": 1, "healthy_threshold": 1, "unhealthy_threshold": 3}
"""Upstream's."""


def instance_of(provider_id: str) -> tuple[str, str]:
    """gce://project/zone/name → (zone, name); empty for anything else."""
    match = re.fullmatch(r"gce://[^/]+/([^/]+)/([^/]+)", provider_id)
    return (match[1], match[2]) if match else ("", "")


def is_as(there: Any, wanted: Mapping[str, Any]) -> bool:
    """A resource has all that is wanted of it; what else it has, Google has filled in."""
    return _has(type(there).to_dict(there, use_integers_for_enums=False), wanted)


def _has(there: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(_has(there.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        there = there or []
        return len(there) == len(wanted) and all(map(_has, there, wanted))
    if isinstance(wanted, str) and isinstance(there, str):
        return _short(there) == _short(wanted)
    return bool(there == wanted)


def _short(link: str) -> str:
    """A resource's link without the server's name."""
    return link[link.index("projects/") :] if "projects/" in link else link


def _of(name: str, protocol: str) -> str:
    return f"{name}-{protocol.lower()}"


def _firewall(name: str) -> str:
    return f"k8s-fw-{name}"


def _health_firewall(name: str) -> str:
    return f"k8s-fw-{name}-hc"


def _ingress(address: str) -> Ingress:
    return (LoadBalancerIngress(ip=address, ip_mode="VIP"),)
