"""What a container may not say (upstream's validateContainers, validateInitContainers and what they call)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from knarr.api import names
from knarr.api.core.v1 import (
    Container,
    ContainerPort,
    EphemeralContainer,
    SeccompProfile,
    SecurityContext,
    VolumeDevice,
    VolumeMount,
)
from knarr.api.core.validate_environment import validate_env, validate_env_from
from knarr.api.core.validate_handlers import validate_lifecycle, validate_probe
from knarr.api.core.validate_values import (
    ID_MAX,
    PROTOCOLS,
    port_name_faults,
    validate_between,
    validate_choice,
    validate_descending_path,
    validate_port,
    validate_requirements,
)
from knarr.api.errors import Cause, duplicate, forbidden, invalid, not_found_value, not_supported, required
from knarr.api.faultless import remembered
from knarr.api.types import json_name

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
MESSAGE_POLICIES = ("FallbackToLogsOnError", "File")
SECCOMP_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")

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
        yield from validate_env(container.env, f"{path}.env")
    if container.env_from:
        yield from validate_env_from(container.env_from, f"{path}.envFrom")
    yield from validate_volumes_used(container, path, volumes)
    yield from validate_choice(container.image_pull_policy, PULL_POLICIES, f"{path}.imagePullPolicy")
    yield from validate_requirements(container.resources, f"{path}.resources")
    if container.resize_policy:
        yield from _validate_resize(container, f"{path}.resizePolicy")
    if container.security_context:
        yield from _validate_security(container.security_context, f"{path}.securityContext")


def _validate_behaviour(container: Container, path: str, grace_s: int) -> Iterable[Cause]:
    if container.lifecycle:
        yield from validate_lifecycle(container.lifecycle, f"{path}.lifecycle", grace_s)
    if container.liveness_probe:
        yield from validate_probe(container.liveness_probe, f"{path}.livenessProbe")
    if container.readiness_probe:
        yield from validate_probe(container.readiness_probe, f"{path}.readinessProbe", readiness=True)
    if container.startup_probe:
        yield from validate_probe(container.startup_probe, f"{path}.startupProbe")


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


def validate_volumes_used(container: AnyContainer, path: str, volumes: set[str]) -> Iterable[Cause]:
    """What a container does with the pod's volumes; `volumes` are the names of the faultless ones."""
    if container.volume_mounts:
        yield from _validate_mounts(container, f"{path}.volumeMounts", volumes)
    if container.volume_devices:
        yield from _validate_devices(container.volume_devices, f"{path}.volumeDevices", volumes)


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
