"""What a pod's specification may not say: of pods and of templates.

Paths, messages and order are those of upstream's ValidatePodSpec (pkg/apis/core/validation).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from knarr.api import names
from knarr.api.core.v1 import (
    Container,
    ContainerPort,
    EnvVar,
    PodSpec,
    Probe,
    ResourceRequirements,
    Volume,
    VolumeMount,
)
from knarr.api.errors import Cause, duplicate, forbidden, invalid, not_found_value, not_supported, required
from knarr.api.quantity import parse_quantity

_ENV_NAME = re.compile(r"[^=\x00-\x1f\x7f]+")
_PORT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def validate_pod_spec(spec: PodSpec | None, path: str) -> Iterable[Cause]:
    """All faults of a pod's specification."""
    if spec is None:
        yield required(f"{path}.containers")
        return
    volumes = {volume.name for volume in spec.volumes}
    yield from _validate_volumes(spec.volumes, f"{path}.volumes")
    if not spec.containers:
        yield required(f"{path}.containers")
    seen: set[str] = set()
    for field, containers in (("containers", spec.containers), ("initContainers", spec.init_containers)):
        for index, container in enumerate(containers):
            place = f"{path}.{field}[{index}]"
            yield from _validate_container(container, place, volumes, init=field == "initContainers")
            if container.name in seen:
                yield duplicate(f"{place}.name", container.name)
            seen.add(container.name)
    if spec.restart_policy not in ("Always", "OnFailure", "Never"):
        yield not_supported(f"{path}.restartPolicy", spec.restart_policy, ("Always", "Never", "OnFailure"))
    if spec.dns_policy not in ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"):
        policies = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
        yield not_supported(f"{path}.dnsPolicy", spec.dns_policy, policies)
    if spec.dns_policy == "None" and not (spec.dns_config and spec.dns_config.nameservers):
        yield required(
            f"{path}.dnsConfig.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"
        )
    if (grace_s := spec.termination_grace_period_seconds) is not None and grace_s < 0:
        yield invalid(f"{path}.terminationGracePeriodSeconds", grace_s, "must be greater than or equal to 0")
    if (deadline_s := spec.active_deadline_seconds) is not None and not 1 <= deadline_s <= 2**31 - 1:
        yield invalid(f"{path}.activeDeadlineSeconds", deadline_s, "must be between 1 and 2147483647, inclusive")
    for field, value in (("hostname", spec.hostname), ("subdomain", spec.subdomain)):
        for fault in names.dns1123_label_faults(value) if value else ():
            yield invalid(f"{path}.{field}", value, fault)
    for field, value in (("nodeName", spec.node_name), ("serviceAccountName", spec.service_account_name)):
        for fault in names.dns1123_subdomain_faults(value) if value else ():
            yield invalid(f"{path}.{field}", value, fault)
    for key, wanted in spec.node_selector.items():
        for fault in (*names.label_key_faults(key), *names.label_value_faults(wanted)):
            yield invalid(f"{path}.nodeSelector", key, fault)
    yield from _validate_tolerations(spec, f"{path}.tolerations")


def _validate_container(container: Container, path: str, volumes: set[str], *, init: bool) -> Iterable[Cause]:
    if not container.name:
        yield required(f"{path}.name")
    else:
        for fault in names.dns1123_label_faults(container.name):
            yield invalid(f"{path}.name", container.name, fault)
    if not container.image:
        yield required(f"{path}.image")
    elif container.image != container.image.strip():
        yield invalid(f"{path}.image", container.image, "must not have leading or trailing whitespace")
    if container.image_pull_policy not in ("Always", "IfNotPresent", "Never"):
        policies = ("Always", "IfNotPresent", "Never")
        yield not_supported(f"{path}.imagePullPolicy", container.image_pull_policy, policies)
    if container.termination_message_policy not in ("File", "FallbackToLogsOnError"):
        offered = ("FallbackToLogsOnError", "File")
        yield not_supported(f"{path}.terminationMessagePolicy", container.termination_message_policy, offered)
    yield from _validate_ports(container.ports, f"{path}.ports")
    yield from _validate_env(container.env, f"{path}.env")
    yield from _validate_mounts(container.volume_mounts, f"{path}.volumeMounts", volumes)
    yield from validate_resources(container.resources, f"{path}.resources")
    sidecar = init and container.restart_policy == "Always"
    for field, probe in (
        ("livenessProbe", container.liveness_probe),
        ("readinessProbe", container.readiness_probe),
        ("startupProbe", container.startup_probe),
    ):
        if probe and init and not sidecar:
            yield forbidden(f"{path}.{field}", "may not be set for init containers without restartPolicy=Always")
        elif probe:
            yield from _validate_probe(probe, f"{path}.{field}", readiness=field == "readinessProbe")
    if container.lifecycle:
        for field, hook in (("postStart", container.lifecycle.post_start), ("preStop", container.lifecycle.pre_stop)):
            if hook:
                yield from _validate_handler(hook, f"{path}.lifecycle.{field}")


def _validate_ports(ports: Sequence[ContainerPort], path: str) -> Iterable[Cause]:
    seen: set[str] = set()
    for index, port in enumerate(ports):
        place = f"{path}[{index}]"
        if port.name:
            if len(port.name) > 15:
                yield invalid(f"{place}.name", port.name, "must be no more than 15 characters")
            if not _PORT_NAME.fullmatch(port.name) or "--" in port.name:
                detail = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
                yield invalid(f"{place}.name", port.name, detail)
            elif not any(character.isalpha() for character in port.name):
                yield invalid(f"{place}.name", port.name, "must contain at least one letter (a-z)")
            if port.name in seen:
                yield duplicate(f"{place}.name", port.name)
            seen.add(port.name)
        if not port.container_port:
            yield required(f"{place}.containerPort")
        else:
            yield from validate_port(port.container_port, f"{place}.containerPort")
        if port.host_port:
            yield from validate_port(port.host_port, f"{place}.hostPort")
        if port.protocol not in ("TCP", "UDP", "SCTP"):
            yield not_supported(f"{place}.protocol", port.protocol, ("SCTP", "TCP", "UDP"))


def validate_port(port: int, path: str) -> Iterable[Cause]:
    if not 1 <= port <= 65535:
        yield invalid(path, port, "must be between 1 and 65535, inclusive")


def _validate_env(variables: Sequence[EnvVar], path: str) -> Iterable[Cause]:
    for index, variable in enumerate(variables):
        place = f"{path}[{index}]"
        if not variable.name:
            yield required(f"{place}.name")
        elif not _ENV_NAME.fullmatch(variable.name):
            detail = "a valid environment variable name must consist only of printable ASCII characters other than '='"
            yield invalid(f"{place}.name", variable.name, detail)
        source = variable.value_from
        if source is None:
            continue
        given = [name for name in type(source).__struct_fields__ if getattr(source, name) is not None]
        if variable.value:
            yield invalid(f"{place}.valueFrom", "", "may not be specified when `value` is not empty")
        if not given:
            yield invalid(
                f"{place}.valueFrom",
                "",
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
            )
        elif len(given) > 1:
            yield invalid(f"{place}.valueFrom", "", "may not have more than one field specified at a time")
        for field, reference in (
            ("configMapKeyRef", source.config_map_key_ref),
            ("secretKeyRef", source.secret_key_ref),
        ):
            if reference and not reference.key:
                yield required(f"{place}.valueFrom.{field}.key")


def _validate_volumes(volumes: Sequence[Volume], path: str) -> Iterable[Cause]:
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        place = f"{path}[{index}]"
        if not volume.name:
            yield required(f"{place}.name")
        else:
            for fault in names.dns1123_label_faults(volume.name):
                yield invalid(f"{place}.name", volume.name, fault)
        if volume.name in seen:
            yield duplicate(f"{place}.name", volume.name)
        seen.add(volume.name)
        if len(_sources(volume)) > 1:
            yield forbidden(place, "may not specify more than 1 volume type")
        if volume.host_path and ".." in (volume.host_path.path or "").split("/"):
            yield invalid(f"{place}.hostPath.path", volume.host_path.path, "must not contain '..'")
        if volume.config_map and not volume.config_map.name:
            yield required(f"{place}.configMap.name")
        if volume.secret and not volume.secret.secret_name:
            yield required(f"{place}.secret.secretName")


def _validate_mounts(mounts: Sequence[VolumeMount], path: str, volumes: set[str]) -> Iterable[Cause]:
    seen: set[str] = set()
    for index, mount in enumerate(mounts):
        place = f"{path}[{index}]"
        if not mount.name:
            yield required(f"{place}.name")
        elif mount.name not in volumes:
            yield not_found_value(f"{place}.name", mount.name)
        if not mount.mount_path:
            yield required(f"{place}.mountPath")
        if mount.mount_path in seen:
            yield invalid(f"{place}.mountPath", mount.mount_path, "must be unique")
        seen.add(mount.mount_path)
        for field, value in (("subPath", mount.sub_path), ("subPathExpr", mount.sub_path_expr)):
            if value and value.startswith("/"):
                yield invalid(f"{place}.{field}", value, "must be a relative path")
            if value and ".." in value.split("/"):
                yield invalid(f"{place}.{field}", value, "must not contain '..'")


def validate_resources(resources: ResourceRequirements | None, path: str) -> Iterable[Cause]:
    if resources is None:
        return
    for field, amounts in (("limits", resources.limits), ("requests", resources.requests)):
        for name, value in amounts.items():
            place = f"{path}.{field}[{name}]" if "." in name or "/" in name else f"{path}.{field}.{name}"
            try:
                amount = parse_quantity(value)
            except ValueError as error:
                yield invalid(place, value, str(error))
                continue
            if amount < 0:
                yield invalid(place, value, "must be greater than or equal to 0")
            limit = resources.limits.get(name)
            if (
                field == "requests"
                and limit is not None
                and _amount(limit) is not None
                and amount > (_amount(limit) or 0)
            ):
                yield invalid(f"{path}.requests", value, f"must be less than or equal to {name} limit of {limit}")


def _amount(value: str | int | float) -> Any:
    try:
        return parse_quantity(value)
    except ValueError:
        return None


def _validate_probe(probe: Probe, path: str, *, readiness: bool) -> Iterable[Cause]:
    yield from _validate_handler(probe, path)
    for field, value in (
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ):
        if value is not None and value < 0:
            yield invalid(f"{path}.{field}", value, "must be greater than or equal to 0")
    if not readiness and probe.success_threshold not in (None, 1):
        yield invalid(f"{path}.successThreshold", probe.success_threshold, "must be 1")


_HANDLERS = {"exec": "exec", "http_get": "httpGet", "tcp_socket": "tcpSocket", "grpc": "grpc", "sleep": "sleep"}


def _validate_handler(handler: Any, path: str) -> Iterable[Cause]:
    """Of a probe or a lifecycle hook: exactly one way."""
    given = [name for name in _HANDLERS if getattr(handler, name, None) is not None]
    if not given:
        yield required(path, "must specify a handler type")
    for name in given[1:]:
        yield forbidden(f"{path}.{_HANDLERS[name]}", "may not specify more than 1 handler type")
    if handler.exec and not handler.exec.command:
        yield required(f"{path}.exec.command")
    for name in ("http_get", "tcp_socket"):
        action = getattr(handler, name, None)
        if action is None:
            continue
        if isinstance(action.port, int):
            yield from validate_port(action.port, f"{path}.{_HANDLERS[name]}.port")
        elif not _PORT_NAME.fullmatch(action.port):
            detail = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
            yield invalid(f"{path}.{_HANDLERS[name]}.port", action.port, detail)


def _validate_tolerations(spec: PodSpec, path: str) -> Iterable[Cause]:
    for index, toleration in enumerate(spec.tolerations):
        place = f"{path}[{index}]"
        operator = toleration.operator or "Equal"
        if operator not in ("Equal", "Exists"):
            yield not_supported(f"{place}.operator", operator, ("Equal", "Exists"))
        if not toleration.key and operator != "Exists":
            yield invalid(
                f"{place}.operator",
                operator,
                'operator must be Exists when `key` is empty, which means "match all values and all keys"',
            )
        if operator == "Exists" and toleration.value:
            yield invalid(f"{place}.operator", operator, "value must be empty when `operator` is 'Exists'")
        if toleration.effect and toleration.effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
            yield not_supported(f"{place}.effect", toleration.effect, effects)
        if toleration.toleration_seconds is not None and toleration.effect != "NoExecute":
            yield invalid(
                f"{place}.effect", toleration.effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"
            )


def _sources(volume: Volume) -> list[Any]:
    return [getattr(volume, name) for name in Volume.__struct_fields__ if name != "name" and getattr(volume, name)]
