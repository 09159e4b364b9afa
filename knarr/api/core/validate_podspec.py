"""What a pod's specification may not say: of pods and of templates.

Paths, messages and order are those of upstream's ValidatePodSpec (pkg/apis/core/validation).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from knarr.api import names
from knarr.api.core.v1 import (
    Affinity,
    NodeSelector,
    NodeSelectorTerm,
    PodAffinityTerm,
    PodDNSConfig,
    PodSecurityContext,
    PodSpec,
    Toleration,
    TopologySpreadConstraint,
)
from knarr.api.core.validate_addresses import validate_ip
from knarr.api.core.validate_containers import (
    AnyContainer,
    validate_containers,
    validate_ephemeral_containers,
    validate_init_containers,
    validate_seccomp,
    validate_volumes_used,
)
from knarr.api.core.validate_values import (
    ID_MAX,
    validate_amount,
    validate_between,
    validate_choice,
    validate_requirements,
    validate_selector,
)
from knarr.api.core.validate_volumes import validate_volumes
from knarr.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required
from knarr.api.faultless import Faultless
from knarr.api.metadata import validate_labels
from knarr.api.types import replace

RESTART_POLICIES = ("Always", "Never", "OnFailure")
DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
NAMESERVERS_MAX = 3
"""That resolvers look at (resolv.conf(5))."""
SEARCHES_MAX = 32
SEARCHES_LENGTH_MAX = 2048
EFFECTS = ("NoExecute", "NoSchedule", "PreferNoSchedule")
TOLERATION_OPERATORS = ("Equal", "Exists")


_faultless_but_for_volumes = Faultless()


def validate_pod_spec(spec: PodSpec | None, path: str) -> Iterable[Cause]:
    """All faults of a pod's specification.

    Pods of one template differ in the name of the volume that holds their token. What is left without volumes and what
    mounts them is not looked through again once it was found faultless.
    """
    if spec is None:
        return (required(f"{path}.containers"),)
    like = msgspec.json.encode(_without_volumes(spec))
    if like in _faultless_but_for_volumes:
        return _validate_only_volumes(spec, path)
    faults = list(_validate_all(spec, path))
    if not faults:
        _faultless_but_for_volumes.add(like)
    return faults


def _without_volumes(spec: PodSpec) -> PodSpec:
    regular, init = (
        [replace(container, volume_mounts=[], volume_devices=[]) for container in containers]
        for containers in (spec.containers, spec.init_containers)
    )
    return replace(spec, volumes=[], containers=regular, init_containers=init)


def _validate_only_volumes(spec: PodSpec, path: str) -> Iterable[Cause]:
    volumes: set[str] = set()
    yield from validate_volumes(spec.volumes, f"{path}.volumes", volumes)
    groups: tuple[tuple[str, Sequence[AnyContainer]], ...] = (
        ("containers", spec.containers),
        ("initContainers", spec.init_containers),
        ("ephemeralContainers", spec.ephemeral_containers),
    )
    for field, containers in groups:
        for index, container in enumerate(containers):
            yield from validate_volumes_used(container, f"{path}.{field}[{index}]", volumes)


def _validate_all(spec: PodSpec, path: str) -> Iterable[Cause]:
    volumes: set[str] = set()
    grace_s = spec.termination_grace_period_seconds or 0
    yield from validate_volumes(spec.volumes, f"{path}.volumes", volumes)
    yield from validate_containers(spec.containers, f"{path}.containers", volumes, grace_s)
    if spec.init_containers:
        yield from validate_init_containers(
            spec.init_containers, spec.containers, f"{path}.initContainers", volumes, grace_s
        )
    if spec.ephemeral_containers:
        others = (*spec.containers, *spec.init_containers)
        yield from validate_ephemeral_containers(
            spec.ephemeral_containers, others, f"{path}.ephemeralContainers", volumes
        )
    if spec.resources:
        yield from validate_requirements(spec.resources, f"{path}.resources")
    yield from validate_choice(spec.restart_policy, RESTART_POLICIES, f"{path}.restartPolicy")
    yield from validate_choice(spec.dns_policy, DNS_POLICIES, f"{path}.dnsPolicy")
    if spec.node_selector:
        yield from validate_labels(spec.node_selector, f"{path}.nodeSelector")
    if spec.host_network:
        yield from _validate_host_network(spec, path)
    if spec.security_context:
        yield from _validate_security(spec, spec.security_context, f"{path}.securityContext")
    for index, reference in enumerate(spec.image_pull_secrets):
        if not reference.name:
            yield required(f"{path}.imagePullSecrets[{index}].name")
    if spec.affinity:
        yield from _validate_affinity(spec.affinity, f"{path}.affinity")
    yield from _validate_dns(spec.dns_config, spec.dns_policy, f"{path}.dnsConfig")
    for index, gate in enumerate(spec.readiness_gates):
        for fault in names.label_key_faults(gate.condition_type):
            yield invalid(f"{path}.readinessGates[{index}].conditionType", gate.condition_type, fault)
    if spec.scheduling_gates:
        yield from _validate_gates(spec, f"{path}.schedulingGates")
    if spec.topology_spread_constraints:
        yield from _validate_spread(spec.topology_spread_constraints, f"{path}.topologySpreadConstraints")
    yield from _validate_names(spec, path)
    if spec.tolerations:
        yield from validate_tolerations(spec.tolerations, f"{path}.tolerations")
    for index, alias in enumerate(spec.host_aliases):
        yield from validate_ip(alias.ip, f"{path}.hostAliases[{index}].ip")
        for hostname in alias.hostnames:
            for fault in names.dns1123_subdomain_faults(hostname):
                yield invalid(f"{path}.hostAliases[{index}].hostnames", hostname, fault)
    yield from _validate_rest(spec, path)


def _validate_names(spec: PodSpec, path: str) -> Iterable[Cause]:
    """Names of other things, and the pod's own in the network."""
    for field, value in (("serviceAccountName", spec.service_account_name), ("nodeName", spec.node_name)):
        for fault in names.dns1123_subdomain_faults(value) if value else ():
            yield invalid(f"{path}.{field}", value, fault)
    yield from validate_between(spec.active_deadline_seconds, 1, 2**31 - 1, f"{path}.activeDeadlineSeconds")
    for field, value in (("hostname", spec.hostname), ("subdomain", spec.subdomain)):
        for fault in names.dns1123_label_faults(value) if value else ():
            yield invalid(f"{path}.{field}", value, fault)


def _validate_rest(spec: PodSpec, path: str) -> Iterable[Cause]:
    for field, value in (
        ("priorityClassName", spec.priority_class_name),
        ("runtimeClassName", spec.runtime_class_name),
    ):
        for fault in names.dns1123_subdomain_faults(value) if value else ():
            yield invalid(f"{path}.{field}", value, fault)
    if spec.preemption_policy is not None:
        yield from validate_choice(
            spec.preemption_policy, ("Never", "PreemptLowerPriority"), f"{path}.preemptionPolicy"
        )
    for name, written in spec.overhead.items():
        yield from validate_amount(name, written, f"{path}.overhead[{name}]")
    if spec.os:
        yield from validate_choice(spec.os.name, ("linux", "windows"), f"{path}.os.name")


def _validate_host_network(spec: PodSpec, path: str) -> Iterable[Cause]:
    """On the host's network a port of a container is the host's own."""
    for field, containers in (("containers", spec.containers), ("initContainers", spec.init_containers)):
        for index, container in enumerate(containers):
            for number, port in enumerate(container.ports):
                if port.host_port and port.host_port != port.container_port:
                    place = f"{path}.{field}[{index}].ports[{number}].containerPort"
                    yield invalid(place, port.container_port, "must match `hostPort` when `hostNetwork` is true")


def _validate_security(spec: PodSpec, context: PodSecurityContext, path: str) -> Iterable[Cause]:
    yield from validate_between(context.fs_group, 0, ID_MAX, f"{path}.fsGroup")
    yield from validate_between(context.run_as_user, 0, ID_MAX, f"{path}.runAsUser")
    yield from validate_between(context.run_as_group, 0, ID_MAX, f"{path}.runAsGroup")
    for index, group in enumerate(context.supplemental_groups):
        yield from validate_between(group, 0, ID_MAX, f"{path}.supplementalGroups[{index}]")
    if spec.share_process_namespace and spec.host_pid:
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        yield invalid(f"{path}.shareProcessNamespace", True, detail)
    seen: set[str] = set()
    for index, setting in enumerate(context.sysctls):
        if not setting.name:
            yield required(f"{path}.sysctls[{index}].name")
        elif setting.name in seen:
            yield duplicate(f"{path}.sysctls[{index}].name", setting.name)
        seen.add(setting.name)
    if context.fs_group_change_policy is not None:
        policies = ("Always", "OnRootMismatch")
        if context.fs_group_change_policy not in policies:
            yield not_supported(f"{path}.fsGroupChangePolicy", context.fs_group_change_policy, policies)
    if context.seccomp_profile:
        yield from validate_seccomp(context.seccomp_profile, f"{path}.seccompProfile")


def _validate_affinity(affinity: Affinity, path: str) -> Iterable[Cause]:
    required_field = "requiredDuringSchedulingIgnoredDuringExecution"
    preferred_field = "preferredDuringSchedulingIgnoredDuringExecution"
    node = affinity.node_affinity
    if node:
        place = f"{path}.nodeAffinity"
        wanted = node.required_during_scheduling_ignored_during_execution
        if wanted is not None:
            yield from validate_node_selector(wanted, f"{place}.{required_field}")
        for index, preferred in enumerate(node.preferred_during_scheduling_ignored_during_execution):
            where = f"{place}.{preferred_field}[{index}]"
            if not 1 <= preferred.weight <= 100:
                yield invalid(f"{where}.weight", preferred.weight, "must be in the range 1-100")
            yield from validate_node_term(preferred.preference, f"{where}.preference")
    for field, pod in (("podAffinity", affinity.pod_affinity), ("podAntiAffinity", affinity.pod_anti_affinity)):
        if pod is None:
            continue
        for index, one in enumerate(pod.required_during_scheduling_ignored_during_execution):
            yield from _validate_pod_term(one, f"{path}.{field}.{required_field}[{index}]")
        for index, weighted in enumerate(pod.preferred_during_scheduling_ignored_during_execution):
            where = f"{path}.{field}.{preferred_field}[{index}]"
            if not 1 <= weighted.weight <= 100:
                yield invalid(f"{where}.weight", weighted.weight, "must be in the range 1-100")
            yield from _validate_pod_term(weighted.pod_affinity_term, f"{where}.podAffinityTerm")


def validate_node_selector(selector: NodeSelector, path: str) -> Iterable[Cause]:
    """Which nodes will do: those that fit one of the terms."""
    where = f"{path}.nodeSelectorTerms"
    if not selector.node_selector_terms:
        yield required(where, "must have at least one node selector term")
    for index, term in enumerate(selector.node_selector_terms):
        yield from validate_node_term(term, f"{where}[{index}]")


def validate_node_term(term: NodeSelectorTerm, path: str) -> Iterable[Cause]:
    """One term of a node selector."""
    for index, requirement in enumerate(term.match_expressions):
        place = f"{path}.matchExpressions[{index}]"
        match requirement.operator:
            case "In" | "NotIn":
                if not requirement.values:
                    yield required(f"{place}.values", "must be specified when `operator` is 'In' or 'NotIn'")
            case "Exists" | "DoesNotExist":
                if requirement.values:
                    detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                    yield forbidden(f"{place}.values", detail)
            case "Gt" | "Lt":
                if len(requirement.values) != 1:
                    detail = "must be specified single value when `operator` is 'Lt' or 'Gt'"
                    yield required(f"{place}.values", detail)
            case _:
                yield invalid(f"{place}.operator", requirement.operator, "not a valid selector operator")
        for fault in names.label_key_faults(requirement.key):
            yield invalid(f"{place}.key", requirement.key, fault)
    for index, requirement in enumerate(term.match_fields):
        place = f"{path}.matchFields[{index}]"
        if requirement.operator not in ("In", "NotIn"):
            yield invalid(f"{place}.operator", requirement.operator, "not a valid selector operator")
        elif len(requirement.values) != 1:
            yield required(
                f"{place}.values", "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            )
        if requirement.key != "metadata.name":
            yield invalid(f"{place}.key", requirement.key, "not a valid field selector key")


def _validate_pod_term(term: PodAffinityTerm, path: str) -> Iterable[Cause]:
    yield from validate_selector(term.label_selector, f"{path}.labelSelector")
    yield from validate_selector(term.namespace_selector, f"{path}.namespaceSelector")
    for namespace in term.namespaces:
        for fault in names.dns1123_label_faults(namespace):
            yield invalid(f"{path}.namespaces", namespace, fault)
    yield from _validate_topology_key(term.topology_key, path)


def _validate_topology_key(key: str, path: str) -> Iterable[Cause]:
    if not key:
        yield required(f"{path}.topologyKey", "can not be empty")
        return
    for fault in names.label_key_faults(key):
        yield invalid(f"{path}.topologyKey", key, fault)


def _validate_dns(config: PodDNSConfig | None, policy: str | None, path: str) -> Iterable[Cause]:
    if policy == "None" and config is None:
        yield required(path, "must provide `dnsConfig` when `dnsPolicy` is None")
    elif policy == "None" and config and not config.nameservers:
        detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        yield required(f"{path}.nameservers", detail)
    if config is None:
        return
    if len(config.nameservers) > NAMESERVERS_MAX:
        detail = f"must not have more than {NAMESERVERS_MAX} nameservers"
        yield invalid(f"{path}.nameservers", config.nameservers, detail)
    for index, address in enumerate(config.nameservers):
        yield from validate_ip(address, f"{path}.nameservers[{index}]")
    if len(config.searches) > SEARCHES_MAX:
        detail = f"must not have more than {SEARCHES_MAX} search paths"
        yield invalid(f"{path}.searches", config.searches, detail)
    if len(" ".join(config.searches)) > SEARCHES_LENGTH_MAX:
        detail = f"must not have more than {SEARCHES_LENGTH_MAX} characters (including spaces) in the search list"
        yield invalid(f"{path}.searches", config.searches, detail)
    for index, domain in enumerate(config.searches):
        # KEP-4427: underscores, and the root alone, are allowed.
        bare = domain.rstrip(".").replace("_", "-").strip("-")
        for fault in names.dns1123_subdomain_faults(bare) if domain != "." else ():
            yield invalid(f"{path}.searches[{index}]", domain, fault)
    for index, option in enumerate(config.options):
        if not option.name:
            yield required(f"{path}.options[{index}]", "must not be empty")


def _validate_gates(spec: PodSpec, path: str) -> Iterable[Cause]:
    seen: set[str] = set()
    for index, gate in enumerate(spec.scheduling_gates):
        for fault in names.label_key_faults(gate.name):
            yield invalid(f"{path}[{index}]", gate.name, fault)
        if gate.name in seen:
            yield duplicate(f"{path}[{index}]", gate.name)
        seen.add(gate.name)


def _validate_spread(constraints: Sequence[TopologySpreadConstraint], path: str) -> Iterable[Cause]:
    seen: set[tuple[str, str]] = set()
    for index, constraint in enumerate(constraints):
        place = f"{path}[{index}]"
        if constraint.max_skew <= 0:
            yield invalid(f"{place}.maxSkew", constraint.max_skew, "must be greater than zero")
        yield from _validate_topology_key(constraint.topology_key, place)
        modes = ("DoNotSchedule", "ScheduleAnyway")
        if constraint.when_unsatisfiable not in modes:
            yield not_supported(f"{place}.whenUnsatisfiable", constraint.when_unsatisfiable, modes)
        pair = (constraint.topology_key, constraint.when_unsatisfiable)
        if pair in seen:
            yield duplicate(f"{place}.{{topologyKey, whenUnsatisfiable}}", f"{{{pair[0]}, {pair[1]}}}")
        seen.add(pair)
        if constraint.min_domains is not None:
            if constraint.min_domains <= 0:
                yield invalid(f"{place}.minDomains", constraint.min_domains, "must be greater than zero")
            if constraint.when_unsatisfiable != "DoNotSchedule":
                detail = (
                    f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {constraint.when_unsatisfiable}"
                )
                yield invalid(f"{place}.minDomains", constraint.min_domains, detail)
        for field, policy in (
            ("nodeAffinityPolicy", constraint.node_affinity_policy),
            ("nodeTaintsPolicy", constraint.node_taints_policy),
        ):
            if policy is not None and policy not in ("Honor", "Ignore"):
                yield not_supported(f"{place}.{field}", policy, ("Honor", "Ignore"))
        yield from validate_selector(constraint.label_selector, f"{place}.labelSelector")


def validate_tolerations(tolerations: Sequence[Toleration], path: str) -> Iterable[Cause]:
    for index, toleration in enumerate(tolerations):
        place = f"{path}[{index}]"
        for fault in names.label_key_faults(toleration.key) if toleration.key else ():
            yield invalid(f"{place}.key", toleration.key, fault)
        if not toleration.key and toleration.operator != "Exists":
            detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            yield invalid(f"{place}.operator", toleration.operator or "", detail)
        if toleration.toleration_seconds is not None and toleration.effect != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            yield invalid(f"{place}.effect", toleration.effect or "", detail)
        match toleration.operator or "Equal":
            case "Equal":
                faults = names.label_value_faults(toleration.value or "")
                if faults:
                    yield invalid(f"{place}.operator", toleration.value, ";".join(faults))
            case "Exists":
                if toleration.value:
                    yield invalid(f"{place}.operator", toleration, "value must be empty when `operator` is 'Exists'")
            case _:
                yield not_supported(f"{place}.operator", toleration.operator, TOLERATION_OPERATORS)
        if toleration.effect and toleration.effect not in EFFECTS:
            yield not_supported(f"{place}.effect", toleration.effect, EFFECTS)
