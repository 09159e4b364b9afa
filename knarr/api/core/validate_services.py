"""What a Service may not say, and what of it may not change (upstream's ValidateService and ValidateServiceUpdate)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from knarr.api import names
from knarr.api.core.v1 import ServicePort, ServiceSpec
from knarr.api.core.validate_values import (
    PROTOCOLS,
    validate_choice,
    validate_ip,
    validate_port,
    validate_port_or_name,
)
from knarr.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required
from knarr.api.metadata import validate_labels

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
AFFINITY_MAX_S = 86400
FAMILIES = ("IPv4", "IPv6")
FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
TRAFFIC_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")


def validate_service(spec: ServiceSpec) -> Iterable[Cause]:
    """All faults of a Service's spec."""
    headless = spec.cluster_ip == "None" or spec.cluster_ips[:1] == ["None"]
    if not spec.ports and not headless and spec.type != "ExternalName":
        yield required("spec.ports")
    yield from _validate_type(spec, headless)
    yield from _validate_ports(spec)
    if spec.selector:
        yield from validate_labels(spec.selector, "spec.selector")
    yield from _validate_affinity(spec)
    yield from _validate_addresses(spec)
    yield from validate_choice(spec.type, TYPES, "spec.type")
    yield from _validate_port_pairs(spec)
    yield from _validate_load_balancer(spec)
    yield from _validate_traffic(spec)


def _validate_type(spec: ServiceSpec, headless: bool) -> Iterable[Cause]:
    if spec.type in ("LoadBalancer", "NodePort"):
        if headless:
            yield invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {spec.type} services")
    elif spec.type == "ExternalName":
        if spec.cluster_ips:
            yield forbidden("spec.clusterIPs", "may not be set when `type` is 'ExternalName'")
        if not spec.external_name:
            yield required("spec.externalName")
        else:
            for fault in names.dns1123_subdomain_faults(spec.external_name.removesuffix(".")):
                yield invalid("spec.externalName", spec.external_name, fault)


def _validate_ports(spec: ServiceSpec) -> Iterable[Cause]:
    seen: set[str] = set()
    for index, port in enumerate(spec.ports):
        path = f"spec.ports[{index}]"
        if not port.name:
            if len(spec.ports) > 1:
                yield required(f"{path}.name")
        else:
            for fault in names.dns1123_label_faults(port.name):
                yield invalid(f"{path}.name", port.name, fault)
            if port.name in seen:
                yield duplicate(f"{path}.name", port.name)
            seen.add(port.name)
        yield from validate_port(port.port, f"{path}.port")
        yield from validate_choice(port.protocol, PROTOCOLS, f"{path}.protocol")
        if port.target_port is not None:
            yield from validate_port_or_name(port.target_port, f"{path}.targetPort")
        for fault in names.label_key_faults(port.app_protocol) if port.app_protocol else ():
            yield invalid(f"{path}.appProtocol", port.app_protocol, fault)


def _validate_affinity(spec: ServiceSpec) -> Iterable[Cause]:
    yield from validate_choice(spec.session_affinity, ("ClientIP", "None"), "spec.sessionAffinity")
    config = spec.session_affinity_config
    if spec.session_affinity == "ClientIP":
        timeout_s = config.client_ip.timeout_seconds if config and config.client_ip else None
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        if timeout_s is None:
            yield required(path)
        elif not 0 < timeout_s <= AFFINITY_MAX_S:
            yield invalid(path, timeout_s, f"must be greater than 0 and less than {AFFINITY_MAX_S}")
    elif spec.session_affinity == "None" and config is not None:
        yield forbidden("spec.sessionAffinityConfig", "must not be set when session affinity is None")


def _validate_addresses(spec: ServiceSpec) -> Iterable[Cause]:
    if spec.type != "ExternalName":
        for index, family in enumerate(spec.ip_families):
            if family not in FAMILIES:
                yield not_supported(f"spec.ipFamilies[{index}]", family, FAMILIES)
            elif family in spec.ip_families[:index]:
                yield duplicate(f"spec.ipFamilies[{index}]", family)
        if spec.ip_family_policy is not None and spec.ip_family_policy not in FAMILY_POLICIES:
            yield not_supported("spec.ipFamilyPolicy", spec.ip_family_policy, FAMILY_POLICIES)
        if len(spec.cluster_ips) > 2:
            yield invalid("spec.clusterIPs", spec.cluster_ips, "may only hold up to 2 values")
        if spec.cluster_ip and spec.cluster_ips and spec.cluster_ip != spec.cluster_ips[0]:
            yield invalid("spec.clusterIPs", spec.cluster_ips, "first value must match `clusterIP`")
        for index, address in enumerate(spec.cluster_ips):
            if address == "None":
                if index:
                    yield invalid(
                        f"spec.clusterIPs[{index}]",
                        address,
                        "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                    )
                elif len(spec.cluster_ips) > 1:
                    detail = "'None' must be the first and only value"
                    yield invalid(f"spec.clusterIPs[{index}]", address, detail)
            else:
                yield from validate_ip(address, f"spec.clusterIPs[{index}]")
    for index, address in enumerate(spec.external_ips):
        path = f"spec.externalIPs[{index}]"
        faults = list(validate_ip(address, path))
        yield from faults or _validate_endpoint_address(address, path)


def _validate_endpoint_address(address: str, path: str) -> Iterable[Cause]:
    """Addresses that traffic from elsewhere can't have as a goal."""
    parsed = ipaddress.ip_address(address)
    if parsed.is_unspecified:
        yield invalid(path, address, f"may not be unspecified ({address})")
    if parsed.is_loopback:
        yield invalid(path, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if parsed.is_link_local:
        yield invalid(path, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if parsed.is_multicast and (int(parsed) >> 8 == 0xE00000 or str(parsed).startswith("ff02")):
        yield invalid(path, address, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")


def _validate_port_pairs(spec: ServiceSpec) -> Iterable[Cause]:
    """A port is served once, and taken from the nodes once."""
    if spec.type == "ClusterIP":
        for index, port in enumerate(spec.ports):
            if port.node_port:
                yield forbidden(f"spec.ports[{index}].nodePort", "may not be used when `type` is 'ClusterIP'")
    taken: set[tuple[str | None, int]] = set()
    for index, port in enumerate(spec.ports):
        if not port.node_port:
            continue
        if (port.protocol, port.node_port) in taken:
            yield duplicate(f"spec.ports[{index}].nodePort", port.node_port)
        taken.add((port.protocol, port.node_port))
    served: set[tuple[str | None, int]] = set()
    for index, port in enumerate(spec.ports):
        if (port.protocol, port.port) in served:
            yield duplicate(f"spec.ports[{index}]", ServicePort(protocol=port.protocol, port=port.port))
        served.add((port.protocol, port.port))


def _validate_load_balancer(spec: ServiceSpec) -> Iterable[Cause]:
    ranges = spec.load_balancer_source_ranges
    if ranges:
        path = "spec.loadBalancerSourceRanges"
        if spec.type != "LoadBalancer":
            yield forbidden(path, "may only be used when `type` is 'LoadBalancer'")
        for index, written in enumerate(ranges):
            try:
                ipaddress.ip_network(written.strip(), strict=False)
                right = "/" in written
            except ValueError:
                right = False
            if not right:
                detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
                yield invalid(f"{path}[{index}]", written, detail)
    if spec.type == "LoadBalancer":
        if spec.allocate_load_balancer_node_ports is None:
            yield required("spec.allocateLoadBalancerNodePorts")
        for fault in names.label_key_faults(spec.load_balancer_class) if spec.load_balancer_class else ():
            yield invalid("spec.loadBalancerClass", spec.load_balancer_class, fault)
        return
    detail = "may only be used when `type` is 'LoadBalancer'"
    if spec.allocate_load_balancer_node_ports is not None:
        yield forbidden("spec.allocateLoadBalancerNodePorts", detail)
    if spec.load_balancer_class is not None:
        yield forbidden("spec.loadBalancerClass", detail)


def _validate_traffic(spec: ServiceSpec) -> Iterable[Cause]:
    reachable = spec.type in ("LoadBalancer", "NodePort") or (spec.type == "ClusterIP" and spec.external_ips)
    policy = spec.external_traffic_policy
    if policy and not reachable:
        detail = "may only be set for externally-accessible services"
        yield invalid("spec.externalTrafficPolicy", policy, detail)
    elif policy and policy not in ("Cluster", "Local"):
        yield not_supported("spec.externalTrafficPolicy", policy, ("Cluster", "Local"))
    elif not policy and spec.type in ("LoadBalancer", "NodePort"):
        yield required("spec.externalTrafficPolicy")
    if spec.health_check_node_port and not (spec.type == "LoadBalancer" and policy == "Local"):
        detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        yield invalid("spec.healthCheckNodePort", spec.health_check_node_port, detail)
    if spec.type in ("ClusterIP", "LoadBalancer", "NodePort"):
        yield from validate_choice(spec.internal_traffic_policy, ("Cluster", "Local"), "spec.internalTrafficPolicy")
    if spec.traffic_distribution is not None:
        yield from validate_choice(spec.traffic_distribution, TRAFFIC_DISTRIBUTIONS, "spec.trafficDistribution")


def validate_service_update(spec: ServiceSpec, old: ServiceSpec) -> Iterable[Cause]:
    """The first address stays while the Service has one; a load balancer stays of its class."""
    if "ExternalName" not in (spec.type, old.type) and old.cluster_ips:
        if not spec.cluster_ips:
            yield invalid("spec.clusterIPs[0]", spec.cluster_ips, "primary clusterIP can not be unset")
        elif spec.cluster_ips[0] != old.cluster_ips[0]:
            yield invalid("spec.clusterIPs[0]", spec.cluster_ips, "may not change once set")
    if spec.type == old.type == "LoadBalancer" and spec.load_balancer_class != old.load_balancer_class:
        yield invalid("spec.loadBalancerClass", spec.load_balancer_class, "may not change once set")
