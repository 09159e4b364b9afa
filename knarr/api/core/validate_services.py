"""What a Service may not say, and what of it may not change (upstream's ValidateService and ValidateServiceUpdate)."""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api import names
from knarr.api.core.v1 import LoadBalancerStatus, Service, ServicePort, ServiceSpec
from knarr.api.core.validate_addresses import parsed, validate_cidr, validate_ip, validate_not_special
from knarr.api.core.validate_values import PROTOCOLS, validate_choice, validate_port, validate_port_or_name
from knarr.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required
from knarr.api.metadata import validate_labels

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
AFFINITY_MAX_S = 86400
FAMILIES = ("IPv4", "IPv6")
FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
TRAFFIC_POLICIES = ("Cluster", "Local")
TRAFFIC_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
IP_MODES = ("Proxy", "VIP")
TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"
OLD_HINTS = "service.kubernetes.io/topology-aware-hints"
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
"""The annotation that was before the field."""
ONLY_FOR_BALANCERS = "may only be used when `type` is 'LoadBalancer'"


def validate_service(service: Service) -> Iterable[Cause]:
    """All faults of a Service."""
    spec, annotations = service.spec or ServiceSpec(), service.metadata.annotations
    mode, old_mode = annotations.get(TOPOLOGY_MODE), annotations.get(OLD_HINTS)
    if mode is not None and old_mode is not None and mode != old_mode:
        detail = f"must match annotations[{OLD_HINTS}] when both are specified"
        yield invalid(f"metadata.annotations[{TOPOLOGY_MODE}]", mode, detail)
    headless = is_headless(spec)
    if not spec.ports and not headless and spec.type != "ExternalName":
        yield required("spec.ports")
    yield from _validate_type(spec, headless)
    yield from _validate_ports(spec)
    if spec.selector:
        yield from validate_labels(spec.selector, "spec.selector")
    yield from _validate_affinity(spec)
    yield from validate_cluster_ips(spec)
    for index, address in enumerate(spec.external_ips):
        path = f"spec.externalIPs[{index}]"
        faults = list(validate_ip(address, path))
        yield from faults or validate_not_special(address, path)
    yield from validate_choice(spec.type, TYPES, "spec.type")
    yield from _validate_port_pairs(spec)
    yield from _validate_load_balancer(spec, annotations.get(SOURCE_RANGES))
    yield from _validate_traffic(spec)


def is_headless(spec: ServiceSpec) -> bool:
    return spec.cluster_ips == ["None"]


def needs_health_check_port(spec: ServiceSpec) -> bool:
    """A load balancer asks nodes whether they have a pod of the service when traffic stays local."""
    return spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"


def is_externally_accessible(spec: ServiceSpec) -> bool:
    return spec.type in ("LoadBalancer", "NodePort") or (spec.type == "ClusterIP" and bool(spec.external_ips))


def _validate_type(spec: ServiceSpec, headless: bool) -> Iterable[Cause]:
    if spec.type in ("LoadBalancer", "NodePort"):
        if headless:
            yield invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {spec.type} services")
    elif spec.type == "ExternalName":
        detail = "may not be set for ExternalName services"
        if spec.cluster_ips:
            yield forbidden("spec.clusterIPs", detail)
        if spec.ip_families:
            yield forbidden("spec.ipFamilies", detail)
        if spec.ip_family_policy is not None:
            yield forbidden("spec.ipFamilyPolicy", detail)
        name = (spec.external_name or "").removesuffix(".")
        if not name:
            yield required("spec.externalName")
        for fault in names.dns1123_subdomain_faults(name) if name else ():
            yield invalid("spec.externalName", name, fault)


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


def validate_cluster_ips(spec: ServiceSpec) -> Iterable[Cause]:
    """clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy; also before addresses are given (KEP-563)."""
    if spec.type == "ExternalName":
        return
    path, addresses = "spec.clusterIPs", spec.cluster_ips
    if spec.cluster_ip and not addresses:
        yield required(path)
    elif spec.cluster_ip and addresses[0] != spec.cluster_ip:
        yield invalid(path, addresses, "first value must match `clusterIP`")
    elif not spec.cluster_ip and addresses:
        yield invalid(path, addresses, "must be empty when `clusterIP` is not specified")
    for index, family in enumerate(spec.ip_families):
        if family not in FAMILIES:
            yield not_supported(f"spec.ipFamilies[{index}]", family, FAMILIES)
        if family in spec.ip_families[:index]:
            yield duplicate(f"spec.ipFamilies[{index}]", family)
    if spec.ip_family_policy is not None and spec.ip_family_policy not in FAMILY_POLICIES:
        yield not_supported("spec.ipFamilyPolicy", spec.ip_family_policy, FAMILY_POLICIES)
    faults = list(_validate_each_cluster_ip(addresses, path))
    yield from faults
    if len(addresses) > 2:
        yield invalid(path, addresses, "may only hold up to 2 values")
    if faults:
        return
    versions = [address.version for each in addresses if (address := parsed(each))]
    if len(addresses) > 1 and len(set(versions)) != len(addresses):
        yield invalid(path, addresses, "may specify no more than one IP for each IP family")
    for index, (version, family) in enumerate(zip(versions, spec.ip_families, strict=False)):
        if family in FAMILIES and family != f"IPv{version}":
            detail = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            yield invalid(f"{path}[{index}]", addresses[index], detail)


def _validate_each_cluster_ip(addresses: list[str], path: str) -> Iterable[Cause]:
    for index, address in enumerate(addresses):
        if index or address != "None":
            yield from validate_ip(address, f"{path}[{index}]")
        elif len(addresses) > 1:
            yield invalid(path, addresses, "'None' must be the first and only value")


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


def _validate_load_balancer(spec: ServiceSpec, annotated: str | None) -> Iterable[Cause]:
    balanced = spec.type == "LoadBalancer"
    if spec.load_balancer_source_ranges:
        path = "spec.LoadBalancerSourceRanges"  # As upstream writes it.
        if not balanced:
            yield forbidden(path, ONLY_FOR_BALANCERS)
        for index, written in enumerate(spec.load_balancer_source_ranges):
            yield from validate_cidr(written.strip(), f"{path}[{index}]")
    elif annotated is not None:
        path = f"metadata.annotations[{SOURCE_RANGES}]"
        if not balanced:
            yield forbidden(path, ONLY_FOR_BALANCERS)
        for written in annotated.strip().split(",") if annotated.strip() else ():
            yield from validate_cidr(written.strip(), path)
    if spec.allocate_load_balancer_node_ports is not None and not balanced:
        yield forbidden("spec.allocateLoadBalancerNodePorts", ONLY_FOR_BALANCERS)
    elif spec.allocate_load_balancer_node_ports is None and balanced:
        yield required("allocateLoadBalancerNodePorts")
    if spec.load_balancer_class is not None and not balanced:
        yield forbidden("spec.loadBalancerClass", ONLY_FOR_BALANCERS)
    elif spec.load_balancer_class is not None:
        for fault in names.label_key_faults(spec.load_balancer_class):
            yield invalid("spec.loadBalancerClass", spec.load_balancer_class, fault)


def _validate_traffic(spec: ServiceSpec) -> Iterable[Cause]:
    policy, path = spec.external_traffic_policy, "spec.externalTrafficPolicy"
    if not is_externally_accessible(spec):
        if policy:
            yield invalid(path, policy, "may only be set for externally-accessible services")
    elif not policy:
        yield required(path)
    elif policy not in TRAFFIC_POLICIES:
        yield not_supported(path, policy, TRAFFIC_POLICIES)
    port, path = spec.health_check_node_port, "spec.healthCheckNodePort"
    if not needs_health_check_port(spec):
        if port:
            detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            yield invalid(path, port, detail)
    elif not port:
        yield required(path)
    else:
        yield from validate_port(port, path)
    policy, path = spec.internal_traffic_policy, "spec.internalTrafficPolicy"
    if policy is None:
        if spec.type in ("ClusterIP", "LoadBalancer", "NodePort"):
            yield required(path)
    elif policy not in TRAFFIC_POLICIES:
        yield not_supported(path, policy, TRAFFIC_POLICIES)
    if spec.traffic_distribution is not None and spec.traffic_distribution not in TRAFFIC_DISTRIBUTIONS:
        yield not_supported("spec.trafficDistribution", spec.traffic_distribution, TRAFFIC_DISTRIBUTIONS)


def validate_service_update(spec: ServiceSpec, old: ServiceSpec) -> Iterable[Cause]:
    """A second address may come and go; the first stays, but for changes from and to ExternalName."""
    if "ExternalName" not in (spec.type, old.type):
        yield from _validate_cluster_ips_update(spec, old)
        yield from _validate_families_update(spec, old)
    if spec.type == old.type == "LoadBalancer" and spec.load_balancer_class != old.load_balancer_class:
        yield invalid("spec.loadBalancerClass", spec.load_balancer_class, "may not change once set")
    changed = spec.health_check_node_port != old.health_check_node_port
    if needs_health_check_port(spec) and needs_health_check_port(old) and changed:
        yield forbidden("spec.healthCheckNodePort", "field is immutable")


def _validate_cluster_ips_update(spec: ServiceSpec, old: ServiceSpec) -> Iterable[Cause]:
    after, before, detail = spec.cluster_ips, old.cluster_ips, "may not change once set"
    if is_headless(spec) and is_headless(old):
        return
    if len(after) == len(before):
        for index, (address, was) in enumerate(zip(after, before, strict=True)):
            if address != was:
                yield invalid(f"spec.clusterIPs[{index}]", after, detail)
        return
    if not after:
        yield invalid("spec.clusterIPs[0]", after, "primary clusterIP can not be unset")
    elif before and after[0] != before[0]:
        yield invalid("spec.clusterIPs[0]", after, detail)
    if len(before) > len(after) == 1 and spec.ip_family_policy != "SingleStack":
        detail = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        yield invalid("spec.ipFamilyPolicy", spec.ip_family_policy, detail)


def _validate_families_update(spec: ServiceSpec, old: ServiceSpec) -> Iterable[Cause]:
    after, before, path = spec.ip_families, old.ip_families, "spec.ipFamilies[0]"
    detail = "may not change once set"
    if is_headless(spec) or is_headless(old):
        return  # A headless Service may change its families; one that becomes headless is refused for its address.
    if len(after) == len(before):
        for family, was in zip(after, before, strict=True):
            if family != was:
                yield invalid(path, after, detail)
        return
    if len(before) > len(after) and not spec.cluster_ips:
        yield invalid(path, after, "primary ipFamily can not be unset")
    if before and after and after[0] != before[0]:
        yield invalid(path, spec.cluster_ips, detail)
    if len(before) > len(after) == 1 and spec.ip_family_policy != "SingleStack":
        detail = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        yield invalid("spec.ipFamilyPolicy", spec.ip_family_policy, detail)


def validate_load_balancer_status(status: LoadBalancerStatus, spec: ServiceSpec) -> Iterable[Cause]:
    """Where a load balancer can be reached: only a Service of that type has one."""
    if spec.type != "LoadBalancer":
        if status.ingress:
            detail = "may only be used when `spec.type` is 'LoadBalancer'"
            yield forbidden("status.loadBalancer.ingress", detail)
        return
    for index, each in enumerate(status.ingress):
        path = f"status.loadBalancer.ingress[{index}]"
        if each.ip:
            yield from validate_ip(each.ip, f"{path}.ip")
        if each.ip_mode is None:
            if each.ip:
                yield required(f"{path}.ipMode", "must be specified when `ip` is set")
        elif not each.ip:
            yield forbidden(f"{path}.ipMode", "may not be specified when `ip` is not set")
        elif each.ip_mode not in IP_MODES:
            yield not_supported(f"{path}.ipMode", each.ip_mode, IP_MODES)
        if each.hostname:
            for fault in names.dns1123_subdomain_faults(each.hostname):
                yield invalid(f"{path}.hostname", each.hostname, fault)
            if parsed(each.hostname) is not None:
                yield invalid(f"{path}.hostname", each.hostname, "must be a DNS name, not an IP address")
