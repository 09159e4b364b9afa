"""What a container may not say (upstream's validateContainers, validateInitContainers and what they call)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from knarr.api import names
from knarr.api.core.v1 import (
    Container,
    ContainerPort,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    EphemeralContainer,
    GRPCAction,
    HTTPGetAction,
    Lifecycle,
    ObjectFieldSelector,
    Probe,
    ResourceFieldSelector,
    SeccompProfile,
    SecurityContext,
    SleepAction,
    VolumeDevice,
    VolumeMount,
)
from knarr.api.core.validate_values import (
    ID_MAX,
    PROTOCOLS,
    config_key_faults,
    header_name_faults,
    port_name_faults,
    validate_between,
    validate_choice,
    validate_descending_path,
    validate_not_negative,
    validate_port,
    validate_port_or_name,
    validate_requirements,
)
from knarr.api.errors import Cause, duplicate, forbidden, invalid, not_found_value, not_supported, required
from knarr.api.faultless import remembered
from knarr.api.types import json_name

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
MESSAGE_POLICIES = ("FallbackToLogsOnError", "File")
SECCOMP_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")
ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
"""Fields of a pod that its environment variables may hold, besides single labels and annotations."""
AMOUNT_FIELDS = tuple(
    f"{kind}.{name}" for kind in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
)
_ENV_NAME = re.compile(r"[\x20-\x3c\x3e-\x7e]+")
_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['(.*)'\]")

AnyContainer = Container | EphemeralContainer
NOT_EPHEMERAL = (
    "ports",
    "liveness_probe",
    "readiness_probe",
    "lifecycle",
    "startup_probe",
    "resize_policy",
    "restart_policy",
    "restart_policy_rules",
)
"""What an ephemeral container has not, besides resources."""


def validate_containers(containers: Sequence[Container], path: str, volumes: set[str], grace_s: int) -> Iterable[Cause]:
    """The containers that make the pod: at least one."""
    if not containers:
        yield required(path)
        return
    seen: set[str] = set()
    for index, container in enumerate(containers):
        place = f"{path}[{index}]"
        yield from _validate_common(container, place, volumes)
        if container.name and container.name in seen:
            yield duplicate(f"{place}.name", container.name)
        seen.add(container.name)
        yield from _validate_behaviour(container, place, grace_s)
        yield from _validate_restart(container, place)
    yield from _validate_host_ports(containers, path)


def validate_init_containers(
    containers: Sequence[Container], regular: Sequence[Container], path: str, volumes: set[str], grace_s: int
) -> Iterable[Cause]:
    """Those that run before; with restartPolicy Always they are sidecars and stay (KEP-753)."""
    seen = {container.name for container in regular if container.name}
    for index, container in enumerate(containers):
        place = f"{path}[{index}]"
        yield from _validate_common(container, place, volumes)
        sidecar = container.restart_policy == "Always"
        if container.name and container.name in seen:
            yield duplicate(f"{place}.name", container.name)
        seen.add(container.name)
        yield from _validate_restart(container, place)
        if sidecar:
            yield from _validate_behaviour(container, place, grace_s)
        else:
            detail = "may not be set for init containers without restartPolicy=Always"
            for field in ("lifecycle", "liveness_probe", "readiness_probe", "startup_probe"):
                if getattr(container, field) is not None:
                    yield forbidden(f"{place}.{json_name(type(container), field)}", detail)
        yield from _validate_host_ports([container], path, first=index)


def validate_ephemeral_containers(
    containers: Sequence[EphemeralContainer], others: Sequence[Container], path: str, volumes: set[str]
) -> Iterable[Cause]:
    """Those that are added to look into a running pod: they serve nobody, so nothing depends on them."""
    targets = {container.name for container in others}
    seen = set(targets)
    for index, container in enumerate(containers):
        place = f"{path}[{index}]"
        yield from _validate_common(container, place, volumes)
        if container.name in seen:
            yield duplicate(f"{place}.name", container.name)
        seen.add(container.name)
        if container.target_container_name and container.target_container_name not in targets:
            yield not_found_value(f"{place}.targetContainerName", container.target_container_name)
        detail = "cannot be set for an Ephemeral Container"
        resources = container.resources
        for field in NOT_EPHEMERAL:
            if getattr(container, field):
                yield forbidden(f"{place}.{json_name(type(container), field)}", detail)
        if resources and (resources.requests or resources.limits or resources.claims):
            yield forbidden(f"{place}.resources", detail)
        for number, mount in enumerate(container.volume_mounts):
            if mount.sub_path:
                yield forbidden(f"{place}.volumeMounts[{number}].subPath", detail)
            if mount.sub_path_expr:
                yield forbidden(f"{place}.volumeMounts[{number}].subPathExpr", detail)


def _validate_common(container: AnyContainer, path: str, volumes: set[str]) -> Iterable[Cause]:
    if not container.name:
        yield required(f"{path}.name")
    else:
        for fault in names.dns1123_label_faults(container.name):
            yield invalid(f"{path}.name", container.name, fault)
    if not container.image:
        yield required(f"{path}.image")
    elif container.image != container.image.strip():
        yield invalid(f"{path}.image", container.image, "must not have leading or trailing whitespace")
    yield from validate_choice(
        container.termination_message_policy, MESSAGE_POLICIES, f"{path}.terminationMessagePolicy"
    )
    if container.ports:
        yield from _validate_ports(container.ports, f"{path}.ports")
    if container.env:
        yield from _validate_env(container.env, f"{path}.env")
    if container.env_from:
        yield from _validate_env_from(container.env_from, f"{path}.envFrom")
    if container.volume_mounts:
        yield from _validate_mounts(container, f"{path}.volumeMounts", volumes)
    if container.volume_devices:
        yield from _validate_devices(container.volume_devices, f"{path}.volumeDevices", volumes)
    yield from validate_choice(container.image_pull_policy, PULL_POLICIES, f"{path}.imagePullPolicy")
    yield from validate_requirements(container.resources, f"{path}.resources")
    if container.resize_policy:
        yield from _validate_resize(container, f"{path}.resizePolicy")
    if container.security_context:
        yield from _validate_security(container.security_context, f"{path}.securityContext")


def _validate_behaviour(container: Container, path: str, grace_s: int) -> Iterable[Cause]:
    if container.lifecycle:
        yield from _validate_lifecycle(container.lifecycle, f"{path}.lifecycle", grace_s)
    if container.liveness_probe:
        yield from _validate_probe(container.liveness_probe, f"{path}.livenessProbe")
    if container.readiness_probe:
        yield from _validate_probe(container.readiness_probe, f"{path}.readinessProbe", readiness=True)
    if container.startup_probe:
        yield from _validate_probe(container.startup_probe, f"{path}.startupProbe")


def _validate_restart(container: Container, path: str) -> Iterable[Cause]:
    """KEP-753 and KEP-5307: a container's own restart policy, and rules by exit code."""
    policies = ("Always", "Never", "OnFailure")
    if container.restart_policy is not None and container.restart_policy not in policies:
        yield not_supported(f"{path}.restartPolicy", container.restart_policy, policies)
    if not container.restart_policy_rules:
        return
    if not container.restart_policy:
        yield required(f"{path}.restartPolicy", "must specify restartPolicy when restart rules are used")
    for index, rule in enumerate(container.restart_policy_rules):
        place = f"{path}.restartPolicyRules[{index}]"
        if rule.action not in ("Restart", "RestartAllContainers"):
            yield not_supported(f"{place}.action", rule.action, ("Restart", "RestartAllContainers"))
        if rule.exit_codes is None:
            yield required(f"{place}.exitCodes", "must be specified")
        elif rule.exit_codes.operator not in ("In", "NotIn"):
            yield not_supported(f"{place}.exitCodes.operator", rule.exit_codes.operator, ("In", "NotIn"))


def _validate_host_ports(containers: Sequence[Container], path: str, first: int = 0) -> Iterable[Cause]:
    """A port of the host can be had once."""
    seen: set[str] = set()
    for index, container in enumerate(containers, first):
        for number, port in enumerate(container.ports):
            if not port.host_port:
                continue
            taken = f"{port.protocol}/{port.host_ip or ''}/{port.host_port}"
            if taken in seen:
                yield duplicate(f"{path}[{index}].ports[{number}].hostPort", taken)
            seen.add(taken)


@remembered
def _validate_ports(ports: Sequence[ContainerPort], path: str) -> Iterable[Cause]:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        place = f"{path}[{index}]"
        if port.name:
            faults = port_name_faults(port.name)
            for fault in faults:
                yield invalid(f"{place}.name", port.name, fault)
            if not faults and port.name in seen:
                yield duplicate(f"{place}.name", port.name)
            seen.add(port.name)
        if not port.container_port:
            yield required(f"{place}.containerPort")
        else:
            yield from validate_port(port.container_port, f"{place}.containerPort")
        if port.host_port:
            yield from validate_port(port.host_port, f"{place}.hostPort")
        yield from validate_choice(port.protocol, PROTOCOLS, f"{place}.protocol")


@remembered
def _validate_env(variables: Sequence[EnvVar], path: str) -> Iterable[Cause]:
    for index, variable in enumerate(variables):
        place = f"{path}[{index}]"
        if not variable.name:
            yield required(f"{place}.name")
        else:
            yield from _validate_env_name(variable.name, f"{place}.name")
        if variable.value_from:
            yield from _validate_env_source(variable, variable.value_from, f"{place}.valueFrom")


def _validate_env_name(name: str, path: str) -> Iterable[Cause]:
    """KEP-4369: any printable ASCII character but the equals sign."""
    if not _ENV_NAME.fullmatch(name):
        detail = "a valid environment variable name must consist only of printable ASCII characters other than '='"
        yield invalid(path, name, detail)


def _validate_env_source(variable: EnvVar, source: EnvVarSource, path: str) -> Iterable[Cause]:
    given = 0
    if source.field_ref:
        given += 1
        yield from validate_field_reference(source.field_ref, ENV_FIELDS, f"{path}.fieldRef")
    if source.resource_field_ref:
        given += 1
        yield from validate_amount_reference(source.resource_field_ref, f"{path}.resourceFieldRef")
    for field, reference in (("configMapKeyRef", source.config_map_key_ref), ("secretKeyRef", source.secret_key_ref)):
        if reference is None:
            continue
        given += 1
        if not reference.name:
            yield required(f"{path}.{field}.name")
        if not reference.key:
            yield required(f"{path}.{field}.key")
        else:
            for fault in config_key_faults(reference.key):
                yield invalid(f"{path}.{field}.key", reference.key, fault)
    given += source.file_key_ref is not None
    if not given:
        detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        yield invalid(path, "", detail)
    elif variable.value:
        yield invalid(path, "", "may not be specified when `value` is not empty")
    elif given > 1:
        yield invalid(path, "", "may not have more than one field specified at a time")


def validate_field_reference(reference: ObjectFieldSelector, allowed: Sequence[str], path: str) -> Iterable[Cause]:
    """A field of the pod itself (the downward API)."""
    if not reference.api_version:
        yield required(f"{path}.apiVersion")
        return
    if not reference.field_path:
        yield required(f"{path}.fieldPath")
        return
    where = reference.field_path
    found = _SUBSCRIPT.fullmatch(where)
    if found:
        key = found.group(2)
        for fault in names.label_key_faults(key if found.group(1) == "metadata.labels" else key.lower()):
            yield invalid(path, key, fault)
    elif where not in allowed:
        if where in ENV_FIELDS or where in ("metadata.labels", "metadata.annotations"):
            yield not_supported(f"{path}.fieldPath", where, allowed)
        else:
            detail = f"error converting fieldPath: field label not supported: {where}"
            yield invalid(f"{path}.fieldPath", where, detail)


def validate_amount_reference(reference: ResourceFieldSelector, path: str, *, volume: bool = False) -> Iterable[Cause]:
    """An amount that one of the pod's containers requests or is limited to."""
    if volume and not reference.container_name:
        yield required(f"{path}.containerName")
    elif not reference.resource:
        yield required(f"{path}.resource")
    elif reference.resource not in AMOUNT_FIELDS and not re.match(r"(limits|requests)\.hugepages-", reference.resource):
        yield not_supported(f"{path}.resource", reference.resource, AMOUNT_FIELDS)


def _validate_env_from(sources: Sequence[EnvFromSource], path: str) -> Iterable[Cause]:
    for index, source in enumerate(sources):
        place = f"{path}[{index}]"
        if source.prefix:
            yield from _validate_env_name(source.prefix, f"{place}.prefix")
        for field, reference in (("configMapRef", source.config_map_ref), ("secretRef", source.secret_ref)):
            if reference and not reference.name:
                yield required(f"{place}.{field}.name")
        if source.config_map_ref and source.secret_ref:
            yield invalid(place, "", "may not have more than one field specified at a time")
        elif not source.config_map_ref and not source.secret_ref:
            yield invalid(place, "", "must specify one of: `configMapRef` or `secretRef`")


def _validate_mounts(container: AnyContainer, path: str, volumes: set[str]) -> Iterable[Cause]:
    seen: set[str] = set()
    privileged = bool(container.security_context and container.security_context.privileged)
    devices = {device.device_path for device in container.volume_devices}
    for index, mount in enumerate(container.volume_mounts):
        place = f"{path}[{index}]"
        if not mount.name:
            yield required(f"{place}.name")
        if not mount.mount_path:
            yield required(f"{place}.mountPath")
        if mount.mount_path in seen:
            yield invalid(f"{place}.mountPath", mount.mount_path, "must be unique")
        seen.add(mount.mount_path)
        if mount.name and mount.name not in volumes:
            yield not_found_value(f"{place}.name", mount.name)
        if mount.mount_path in devices:
            yield invalid(f"{place}.mountPath", mount.mount_path, "must not already exist as a path in volumeDevices")
        if mount.sub_path:
            yield from validate_descending_path(mount.sub_path, f"{place}.subPath")
        if mount.sub_path_expr:
            if mount.sub_path:
                detail = "subPathExpr and subPath are mutually exclusive"
                yield invalid(f"{place}.subPathExpr", mount.sub_path_expr, detail)
            yield from validate_descending_path(mount.sub_path_expr, f"{place}.subPathExpr")
        yield from _validate_sharing(mount, place, privileged)


def _validate_sharing(mount: VolumeMount, path: str, privileged: bool) -> Iterable[Cause]:
    """Whether mounts inside show outside, and whether read-only holds for what is mounted below (KEP-3857)."""
    propagation = mount.mount_propagation
    if propagation is not None:
        if propagation == "Bidirectional" and not privileged:
            detail = "Bidirectional mount propagation is available only to privileged containers"
            yield forbidden(f"{path}.mountPropagation", detail)
        choices = ("Bidirectional", "HostToContainer", "None")
        if propagation not in choices:
            yield not_supported(f"{path}.mountPropagation", propagation, choices)
    recursive = mount.recursive_read_only
    if recursive is None or recursive == "Disabled":
        return
    if recursive not in ("Enabled", "IfPossible"):
        yield not_supported(f"{path}.recursiveReadOnly", recursive, ("Disabled", "Enabled", "IfPossible"))
        return
    if not mount.read_only:
        yield forbidden(f"{path}.recursiveReadOnly", "may only be specified when readOnly is true")
    if propagation not in (None, "None"):
        detail = "may only be specified when mountPropagation is None or not specified"
        yield forbidden(f"{path}.recursiveReadOnly", detail)


def _validate_devices(devices: Sequence[VolumeDevice], path: str, volumes: set[str]) -> Iterable[Cause]:
    seen_names: set[str] = set()
    seen_paths: set[str] = set()
    for index, device in enumerate(devices):
        place = f"{path}[{index}]"
        if not device.name:
            yield required(f"{place}.name")
        if not device.device_path:
            yield required(f"{place}.devicePath")
        if device.device_path in seen_paths:
            yield invalid(f"{place}.devicePath", device.device_path, "must be unique")
        if device.name in seen_names:
            yield invalid(f"{place}.name", device.name, "must be unique")
        if device.name and device.name not in volumes:
            yield not_found_value(f"{place}.name", device.name)
        seen_names.add(device.name)
        seen_paths.add(device.device_path)


def _validate_resize(container: AnyContainer, path: str) -> Iterable[Cause]:
    """KEP-1287."""
    seen: set[str] = set()
    for policy in container.resize_policy:
        if policy.resource_name in seen:
            yield duplicate(path, policy.resource_name)
        seen.add(policy.resource_name)
        if policy.resource_name not in ("cpu", "memory"):
            yield not_supported(path, policy.resource_name, ("cpu", "memory"))
        if policy.restart_policy not in ("NotRequired", "RestartContainer"):
            yield not_supported(path, policy.restart_policy, ("NotRequired", "RestartContainer"))


def _validate_security(context: SecurityContext, path: str) -> Iterable[Cause]:
    yield from validate_between(context.run_as_user, 0, ID_MAX, f"{path}.runAsUser")
    yield from validate_between(context.run_as_group, 0, ID_MAX, f"{path}.runAsGroup")
    if context.proc_mount is not None and context.proc_mount not in ("Default", "Unmasked"):
        yield not_supported(f"{path}.procMount", context.proc_mount, ("Default", "Unmasked"))
    if context.seccomp_profile:
        yield from validate_seccomp(context.seccomp_profile, f"{path}.seccompProfile")
    if context.allow_privilege_escalation is False:
        if context.privileged:
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            yield invalid(path, context, detail)
        if context.capabilities and "CAP_SYS_ADMIN" in context.capabilities.add:
            detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            yield invalid(path, context, detail)


def validate_seccomp(profile: SeccompProfile, path: str) -> Iterable[Cause]:
    if not profile.type:
        yield required(f"{path}.type", "type is required when seccompProfile is set")
    elif profile.type not in SECCOMP_TYPES:
        yield not_supported(f"{path}.type", profile.type, SECCOMP_TYPES)
    elif profile.type == "Localhost":
        if profile.localhost_profile is None:
            yield required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost")
        else:
            yield from validate_descending_path(profile.localhost_profile, f"{path}.localhostProfile")
    elif profile.localhost_profile is not None:
        detail = "can only be set when seccomp type is Localhost"
        yield invalid(f"{path}.localhostProfile", profile.localhost_profile, detail)


def _validate_probe(probe: Probe, path: str, *, readiness: bool = False) -> Iterable[Cause]:
    yield from _validate_handler(probe, path, 0)
    yield from validate_not_negative(probe.initial_delay_seconds, f"{path}.initialDelaySeconds")
    yield from validate_not_negative(probe.timeout_seconds, f"{path}.timeoutSeconds")
    yield from validate_not_negative(probe.period_seconds, f"{path}.periodSeconds")
    yield from validate_not_negative(probe.success_threshold, f"{path}.successThreshold")
    yield from validate_not_negative(probe.failure_threshold, f"{path}.failureThreshold")
    period_s = probe.termination_grace_period_seconds
    if readiness:
        if period_s is not None:
            yield invalid(f"{path}.terminationGracePeriodSeconds", period_s, "must not be set for readinessProbes")
        return
    if period_s is not None and period_s <= 0:
        yield invalid(f"{path}.terminationGracePeriodSeconds", period_s, "must be greater than 0")
    if probe.success_threshold not in (None, 1):
        yield invalid(f"{path}.successThreshold", probe.success_threshold, "must be 1")


def _validate_lifecycle(lifecycle: Lifecycle, path: str, grace_s: int) -> Iterable[Cause]:
    if lifecycle.post_start:
        yield from _validate_handler(lifecycle.post_start, f"{path}.postStart", grace_s)
    if lifecycle.pre_stop:
        yield from _validate_handler(lifecycle.pre_stop, f"{path}.preStop", grace_s)


_HANDLERS = (
    ("exec", "exec"),
    ("http_get", "httpGet"),
    ("tcp_socket", "tcpSocket"),
    ("grpc", "grpc"),
    ("sleep", "sleep"),
)


def _validate_handler(handler: Any, path: str, grace_s: int) -> Iterable[Cause]:
    """Of a probe or a hook: exactly one way to do it."""
    found = False
    for field, name in _HANDLERS:
        action = getattr(handler, field, None)
        if action is None:
            continue
        place = f"{path}.{name}"
        if found:
            yield forbidden(place, "may not specify more than 1 handler type")
            continue
        found = True
        yield from _validate_action(action, name, place, grace_s)
    if not found:
        yield required(path, "must specify a handler type")


def _validate_action(action: Any, name: str, path: str, grace_s: int) -> Iterable[Cause]:
    if name == "exec":
        if not action.command:
            yield required(f"{path}.command")
    elif isinstance(action, HTTPGetAction):
        if not action.path:
            yield required(f"{path}.path")
        yield from validate_port_or_name(action.port, f"{path}.port")
        if action.scheme not in ("HTTP", "HTTPS"):
            yield not_supported(f"{path}.scheme", action.scheme, ("HTTP", "HTTPS"))
        for header in action.http_headers:
            for fault in header_name_faults(header.name):
                yield invalid(f"{path}.httpHeaders", header.name, fault)
    elif isinstance(action, GRPCAction):
        yield from validate_port(action.port, f"{path}.port")
    elif isinstance(action, SleepAction):
        if not 0 <= action.seconds <= grace_s:
            detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_s})"
            yield invalid(path, action.seconds, detail)
    else:
        yield from validate_port_or_name(action.port, f"{path}.port")
