"""Services and their endpoints: defaults, what may change, and how they are shown. Addresses are the API server's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from knarr.api import names
from knarr.api.core.endpoint_subsets import repacked, validate_subsets
from knarr.api.core.v1 import (
    ClientIPConfig,
    Endpoints,
    LoadBalancerStatus,
    Service,
    ServiceSpec,
    ServiceStatus,
    SessionAffinityConfig,
)
from knarr.api.core.validate_addresses import cidr_warnings, ip_warnings
from knarr.api.core.validate_services import (
    OLD_HINTS,
    TOPOLOGY_MODE,
    is_externally_accessible,
    needs_health_check_port,
    validate_load_balancer_status,
    validate_service,
    validate_service_update,
)
from knarr.api.errors import Cause
from knarr.api.printing import NONE, age, labels
from knarr.api.resources import Column, Strategy
from knarr.api.types import replace

AFFINITY_TIMEOUT_S = 10800
MANAGED_BY, MANAGER = "endpoints.kubernetes.io/managed-by", "endpoint-controller"
"""How Endpoints that our controller keeps are known."""
WITH_NODE_PORTS = ("NodePort", "LoadBalancer")
WITH_CLUSTER_IP = ("ClusterIP", "NodePort", "LoadBalancer")


class ServiceStrategy(Strategy[Service]):
    name_faults = staticmethod(names.dns1123_label_faults)
    """KEP-5311: as other names."""
    has_status = True
    returns_deleted = True
    field_names = ("spec.clusterIP", "spec.type")

    def default(self, obj: Service) -> None:
        if obj.spec is None:
            obj.spec = ServiceSpec()
        _default_spec(obj.spec)
        balancer = obj.status.load_balancer if obj.status else None
        for ingress in balancer.ingress if balancer and obj.spec.type == "LoadBalancer" else ():
            if ingress.ip and ingress.ip_mode is None:
                ingress.ip_mode = "VIP"

    def prepare_for_create(self, obj: Service) -> None:
        obj.status = ServiceStatus(load_balancer=LoadBalancerStatus())
        spec = obj.spec
        if spec and spec.cluster_ip and not spec.cluster_ips:
            spec.cluster_ips = [spec.cluster_ip]

    def prepare_for_update(self, obj: Service, old: Service) -> None:
        if obj.spec is None or old.spec is None:
            return
        _drop_what_the_type_lost(obj.spec, old.spec)
        _keep_allocated(obj.spec, old.spec)
        _pair_addresses(obj.spec, old.spec)
        if obj.status and obj.spec.type != "LoadBalancer":
            # What provided it takes it down later; nobody needs to know.
            obj.status = replace(obj.status, load_balancer=LoadBalancerStatus())

    def prepare_for_status_update(self, obj: Service, old: Service) -> None:
        if obj.status and obj.status.load_balancer is None:
            obj.status.load_balancer = LoadBalancerStatus()

    def validate(self, obj: Service) -> Iterable[Cause]:
        return validate_service(obj)

    def validate_update(self, obj: Service, old: Service) -> Iterable[Cause]:
        return validate_service_update(obj.spec or ServiceSpec(), old.spec or ServiceSpec())

    def validate_status_update(self, obj: Service, old: Service) -> Iterable[Cause]:
        balancer = obj.status.load_balancer if obj.status else None
        return validate_load_balancer_status(balancer or LoadBalancerStatus(), obj.spec or ServiceSpec())

    def warnings(self, obj: Service, old: Service | None) -> Iterable[str]:
        return _warnings(obj, obj.spec or ServiceSpec())

    def fields(self, obj: Service) -> Mapping[str, str]:
        spec = obj.spec or ServiceSpec()
        return {"spec.clusterIP": spec.cluster_ip or "", "spec.type": spec.type or ""}


def _warnings(obj: Service, spec: ServiceSpec) -> Iterable[str]:
    """What is allowed and has no effect, or is old, or could be misread."""
    if OLD_HINTS in obj.metadata.annotations:
        yield f"annotation {OLD_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"
    headless, named = spec.type == "ClusterIP" and spec.cluster_ip == "None", spec.type == "ExternalName"
    for index, address in enumerate(spec.cluster_ips):
        yield from ip_warnings(address, f"spec.clusterIPs[{index}]")
    if headless:
        if spec.load_balancer_ip:
            yield "spec.loadBalancerIP is ignored for headless services"
        if spec.external_ips:
            yield "spec.externalIPs is ignored for headless services"
        if spec.session_affinity != "None":
            yield "spec.SessionAffinity is ignored for headless services"
    for index, address in enumerate(spec.external_ips):
        yield from ip_warnings(address, f"spec.externalIPs[{index}]")
    if spec.external_ips and not headless and not named:
        yield "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
    if spec.load_balancer_ip:
        yield from ip_warnings(spec.load_balancer_ip, "spec.loadBalancerIP")
    for index, written in enumerate(spec.load_balancer_source_ranges):
        yield from cidr_warnings(written, f"spec.loadBalancerSourceRanges[{index}]")
    if named and spec.external_ips:
        yield 'spec.externalIPs is ignored when spec.type is "ExternalName"'
    if not named and spec.external_name:
        yield 'spec.externalName is ignored when spec.type is not "ExternalName"'
    if spec.traffic_distribution == "PreferClose":
        yield 'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'


def _default_spec(spec: ServiceSpec) -> None:
    spec.type = spec.type or "ClusterIP"
    spec.session_affinity = spec.session_affinity or "None"
    if spec.session_affinity == "None":
        spec.session_affinity_config = None
    elif spec.session_affinity == "ClientIP":
        config = spec.session_affinity_config
        if config is None or config.client_ip is None or config.client_ip.timeout_seconds is None:
            client_ip = ClientIPConfig(timeout_seconds=AFFINITY_TIMEOUT_S)
            spec.session_affinity_config = SessionAffinityConfig(client_ip=client_ip)
    for port in spec.ports:
        port.protocol = port.protocol or "TCP"
        if port.target_port in (None, 0, ""):
            port.target_port = port.port
    if spec.type in WITH_CLUSTER_IP and spec.internal_traffic_policy is None:
        spec.internal_traffic_policy = "Cluster"
    if is_externally_accessible(spec):
        spec.external_traffic_policy = spec.external_traffic_policy or "Cluster"
    if spec.type == "LoadBalancer" and spec.allocate_load_balancer_node_ports is None:
        spec.allocate_load_balancer_node_ports = True


def _drop_what_the_type_lost(spec: ServiceSpec, old: ServiceSpec) -> None:
    """Values that only the old type had, when they came along unchanged."""
    if old.type in WITH_CLUSTER_IP and spec.type not in WITH_CLUSTER_IP:
        if (spec.cluster_ip, spec.cluster_ips) == (old.cluster_ip, old.cluster_ips):
            spec.cluster_ip, spec.cluster_ips = None, []
        if spec.ip_families == old.ip_families:
            spec.ip_families = []
        if spec.ip_family_policy == old.ip_family_policy:
            spec.ip_family_policy = None
    if old.type in WITH_NODE_PORTS and spec.type not in WITH_NODE_PORTS and _node_ports(spec) <= _node_ports(old):
        for port in spec.ports:
            port.node_port = None
    unchanged = spec.external_traffic_policy == old.external_traffic_policy
    if is_externally_accessible(old) and not is_externally_accessible(spec) and unchanged:
        spec.external_traffic_policy = None
    unchanged = spec.health_check_node_port == old.health_check_node_port
    if needs_health_check_port(old) and not needs_health_check_port(spec) and unchanged:
        spec.health_check_node_port = None
    if old.type == "LoadBalancer" and spec.type != "LoadBalancer":
        if spec.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports:
            spec.allocate_load_balancer_node_ports = None
        if spec.load_balancer_class == old.load_balancer_class:
            spec.load_balancer_class = None


def _node_ports(spec: ServiceSpec) -> set[int]:
    return {port.node_port for port in spec.ports if port.node_port}


def _keep_allocated(spec: ServiceSpec, old: ServiceSpec) -> None:
    """What the server handed out and the update doesn't mention: a manifest may be sent again as it is."""
    if spec.type in WITH_CLUSTER_IP and old.type in WITH_CLUSTER_IP:
        spec.cluster_ip = spec.cluster_ip or old.cluster_ip
        spec.cluster_ips = spec.cluster_ips or list(old.cluster_ips)
    if spec.type in WITH_NODE_PORTS and old.type in WITH_NODE_PORTS:
        before = {port.name or "": port.node_port for port in old.ports}
        used = _node_ports(spec) & _node_ports(old)
        for port in spec.ports:
            known = before.get(port.name or "")
            if not port.node_port and known not in used:
                port.node_port = known
    if needs_health_check_port(spec) and needs_health_check_port(old):
        spec.health_check_node_port = spec.health_check_node_port or old.health_check_node_port


def _pair_addresses(spec: ServiceSpec, old: ServiceSpec) -> None:
    """clusterIP is always the first of clusterIPs; a client of old may change the one and not know the other."""
    if spec.cluster_ip == old.cluster_ip or spec.cluster_ips != old.cluster_ips:
        return
    spec.cluster_ips = [spec.cluster_ip] if spec.cluster_ip else []


def _external_ip(service: Service, now_s: float) -> str:
    spec = service.spec or ServiceSpec()
    if spec.type == "ExternalName":
        return spec.external_name or NONE
    found = list(spec.external_ips)
    if spec.type == "LoadBalancer":
        balancer = service.status.load_balancer if service.status else None
        found = [each.ip or each.hostname or "" for each in (balancer.ingress if balancer else ())] + found
        return ",".join(found) or "<pending>"
    return ",".join(found) or NONE


def _ports(service: Service, now_s: float) -> str:
    shown = []
    for port in service.spec.ports if service.spec else ():
        node = f":{port.node_port}" if port.node_port else ""
        shown.append(f"{port.port}{node}/{port.protocol}")
    return ",".join(shown) or NONE


def _spec(service: Service) -> ServiceSpec:
    return service.spec or ServiceSpec()


COLUMNS = (
    Column("Type", lambda service, now_s: _spec(service).type),
    Column("Cluster-IP", lambda service, now_s: _spec(service).cluster_ip or NONE),
    Column("External-IP", _external_ip),
    Column("Port(s)", _ports),
    Column("Age", lambda service, now_s: age(service.metadata.creation_timestamp, now_s)),
    Column("Selector", lambda service, now_s: labels(_spec(service).selector), priority=1),
)


class EndpointsStrategy(Strategy[Endpoints]):
    def default(self, obj: Endpoints) -> None:
        for subset in obj.subsets:
            for port in subset.ports:
                port.protocol = port.protocol or "TCP"

    def prepare_for_create(self, obj: Endpoints) -> None:
        _repack(obj)

    def prepare_for_update(self, obj: Endpoints, old: Endpoints) -> None:
        _repack(obj)

    def validate(self, obj: Endpoints) -> Iterable[Cause]:
        return validate_subsets(obj.subsets)

    def warnings(self, obj: Endpoints, old: Endpoints | None) -> Iterable[str]:
        if obj.metadata.labels.get(MANAGED_BY) == MANAGER:
            return  # They go to a program, which nobody advises.
        for index, subset in enumerate(obj.subsets):
            for field, listed in (("addresses", subset.addresses), ("notReadyAddresses", subset.not_ready_addresses)):
                for number, address in enumerate(listed):
                    yield from ip_warnings(address.ip, f"subsets[{index}].{field}[{number}].ip")


def _repack(obj: Endpoints) -> None:
    """What is faulty stays as it is: its faults are told by where they are."""
    if not any(validate_subsets(obj.subsets)):
        obj.subsets = repacked(obj.subsets)


SHOWN_MAX = 3
"""Endpoints that a row shows before it says how many more there are."""


def _addresses(endpoints: Endpoints, now_s: float) -> str:
    found = []
    for subset in endpoints.subsets:
        if subset.ports:
            found += [_joined(address.ip, port.port) for port in subset.ports for address in subset.addresses]
        else:
            found += [address.ip for address in subset.addresses]
    return some(found)


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def some(found: list[Any]) -> str:
    """The first few, and how many more."""
    more = f" + {len(found) - SHOWN_MAX} more..." if len(found) > SHOWN_MAX else ""
    return ",".join(str(each) for each in found[:SHOWN_MAX]) + more or NONE


ENDPOINTS_COLUMNS = (
    Column("Endpoints", _addresses),
    Column("Age", lambda endpoints, now_s: age(endpoints.metadata.creation_timestamp, now_s)),
)
