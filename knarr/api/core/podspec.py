"""What a pod's spec is when its author left things out: the same for pods and for the templates of workloads.

Follows upstream's SetDefaults_PodSpec, _Container, _Probe and _Volume (pkg/apis/core/v1/defaults.go), and its
conversion (serviceAccount and serviceAccountName are one field in two spellings). Structs that upstream writes even
when they are empty (`resources: {}`) are made here too.
"""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api.core.amounts import canonical_amount, default_amounts, default_requirements
from knarr.api.core.v1 import (
    Container,
    DownwardAPIVolumeFile,
    EmptyDirVolumeSource,
    EphemeralContainer,
    HTTPGetAction,
    LifecycleHandler,
    PodSecurityContext,
    PodSpec,
    PodTemplateSpec,
    Probe,
    ProjectedVolumeSource,
    ResourceRequirements,
    Volume,
    VolumeResourceRequirements,
)
from knarr.api.meta.v1 import ObjectMeta

FILE_MODE = 0o644
"""Of files in secret, configMap, downwardAPI and projected volumes."""
TOKEN_LIFETIME_S = 3600
CERTIFICATE_LIFETIME_S = 86400

_SOURCES = tuple(name for name in Volume.__struct_fields__ if name != "name")
"""The fields of a Volume that say where it comes from."""


def default_template(template: PodTemplateSpec) -> None:
    """A workload's pod template."""
    if template.metadata is None:
        template.metadata = ObjectMeta()
    if template.spec is None:
        template.spec = PodSpec()
    default_pod_spec(template.spec)


def default_pod_spec(spec: PodSpec) -> None:
    """What pods and templates have in common."""
    spec.restart_policy = spec.restart_policy or "Always"
    spec.dns_policy = spec.dns_policy or "ClusterFirst"
    spec.scheduler_name = spec.scheduler_name or "default-scheduler"
    if spec.termination_grace_period_seconds is None:
        spec.termination_grace_period_seconds = 30
    if spec.security_context is None:
        spec.security_context = PodSecurityContext()
    spec.service_account_name = spec.service_account_name or spec.service_account
    spec.service_account = spec.service_account_name
    for container in spec.containers:
        _default_container(container)
    for container in spec.init_containers:
        _default_container(container)
    for ephemeral in spec.ephemeral_containers:
        _default_container(ephemeral)
    for volume in spec.volumes:
        _default_volume(volume)
    if spec.overhead:
        default_amounts(spec.overhead)
    if spec.resources:
        default_requirements(spec.resources)


def default_requests(spec: PodSpec) -> None:
    """A container that is limited but requests nothing requests its limits. Pods only, not templates."""
    for container in (*spec.init_containers, *spec.containers):
        resources = container.resources
        if resources and resources.limits:
            resources.requests = {**resources.limits, **resources.requests}
    if spec.resources and spec.resources.limits:
        spec.resources.requests = {**spec.resources.limits, **spec.resources.requests}


def default_host_ports(spec: PodSpec) -> None:
    """On the host's network a container's port is the host's port. Pods only, not templates."""
    for container in (*spec.init_containers, *spec.containers):
        for port in container.ports:
            port.host_port = port.host_port or port.container_port


def image_pull_policy(image: str) -> str:
    """Always for the tag latest (also when it is only implied), else IfNotPresent."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _default_container(container: Container | EphemeralContainer) -> None:
    container.image_pull_policy = container.image_pull_policy or image_pull_policy(container.image or "")
    container.termination_message_path = container.termination_message_path or "/dev/termination-log"
    container.termination_message_policy = container.termination_message_policy or "File"
    if container.resources is None:
        container.resources = ResourceRequirements()
    else:
        default_requirements(container.resources)
    for port in container.ports:
        port.protocol = port.protocol or "TCP"
    for variable in container.env:
        source = variable.value_from
        if source is None:
            continue
        if source.field_ref:
            source.field_ref.api_version = source.field_ref.api_version or "v1"
        if source.resource_field_ref:
            source.resource_field_ref.divisor = canonical_amount(source.resource_field_ref.divisor or "0")
    for probe in (container.liveness_probe, container.readiness_probe, container.startup_probe):
        if probe:
            _default_probe(probe)
    lifecycle = container.lifecycle
    if lifecycle:
        _default_handlers((lifecycle.post_start, lifecycle.pre_stop))


def _default_probe(probe: Probe) -> None:
    probe.timeout_seconds = probe.timeout_seconds or 1
    probe.period_seconds = probe.period_seconds or 10
    probe.success_threshold = probe.success_threshold or 1
    probe.failure_threshold = probe.failure_threshold or 3
    if probe.http_get:
        _default_http_get(probe.http_get)
    if probe.grpc and probe.grpc.service is None:
        probe.grpc.service = ""


def _default_handlers(handlers: Iterable[LifecycleHandler | None]) -> None:
    for handler in handlers:
        if handler and handler.http_get:
            _default_http_get(handler.http_get)


def _default_http_get(action: HTTPGetAction) -> None:
    action.path = action.path or "/"
    action.scheme = action.scheme or "HTTP"


def _default_volume(volume: Volume) -> None:
    """A volume without a source is an empty directory; modes of files are 0644."""
    if volume.projected:
        _default_projection(volume.projected)
    elif volume.config_map:
        _default_mode(volume.config_map)
    elif volume.secret:
        _default_mode(volume.secret)
    elif volume.empty_dir:
        if volume.empty_dir.size_limit is not None:
            volume.empty_dir.size_limit = canonical_amount(volume.empty_dir.size_limit)
    elif volume.host_path:
        volume.host_path.type = volume.host_path.type or ""
    elif volume.downward_api:
        _default_mode(volume.downward_api)
        _default_downward_files(volume.downward_api.items)
    elif volume.image:
        reference = volume.image.reference or ""
        volume.image.pull_policy = volume.image.pull_policy or image_pull_policy(reference)
    elif all(getattr(volume, source) is None for source in _SOURCES):
        volume.empty_dir = EmptyDirVolumeSource()
    else:
        _default_storage(volume)


def _default_mode(source: object) -> None:
    if source.default_mode is None:  # type: ignore[attr-defined]
        source.default_mode = FILE_MODE  # type: ignore[attr-defined]


def _default_projection(projected: ProjectedVolumeSource) -> None:
    _default_mode(projected)
    for source in projected.sources:
        if source.service_account_token and source.service_account_token.expiration_seconds is None:
            source.service_account_token.expiration_seconds = TOKEN_LIFETIME_S
        if source.downward_api:
            _default_downward_files(source.downward_api.items)
        if source.pod_certificate and source.pod_certificate.max_expiration_seconds is None:
            source.pod_certificate.max_expiration_seconds = CERTIFICATE_LIFETIME_S


def _default_downward_files(files: Iterable[DownwardAPIVolumeFile]) -> None:
    for file in files:
        if file.field_ref:
            file.field_ref.api_version = file.field_ref.api_version or "v1"
        if file.resource_field_ref:
            file.resource_field_ref.divisor = canonical_amount(file.resource_field_ref.divisor or "0")


def _default_storage(volume: Volume) -> None:
    """Kinds of storage that knarr doesn't mount itself, kept exactly as upstream keeps them."""
    if volume.iscsi:
        volume.iscsi.iscsi_interface = volume.iscsi.iscsi_interface or "default"
    elif volume.rbd:
        volume.rbd.pool = volume.rbd.pool or "rbd"
        volume.rbd.user = volume.rbd.user or "admin"
        volume.rbd.keyring = volume.rbd.keyring or "/etc/ceph/keyring"
    elif volume.azure_disk:
        disk = volume.azure_disk
        disk.caching_mode = disk.caching_mode or "ReadWrite"
        disk.kind = disk.kind or "Shared"
        disk.fs_type = disk.fs_type or "ext4"
        disk.read_only = bool(disk.read_only)
    elif volume.scale_io:
        volume.scale_io.storage_mode = volume.scale_io.storage_mode or "ThinProvisioned"
        volume.scale_io.fs_type = volume.scale_io.fs_type or "xfs"
    elif volume.ephemeral and volume.ephemeral.volume_claim_template:
        template = volume.ephemeral.volume_claim_template
        template.metadata = template.metadata or ObjectMeta()
        template.spec.volume_mode = template.spec.volume_mode or "Filesystem"
        if template.spec.resources is None:
            template.spec.resources = VolumeResourceRequirements()
        default_requirements(template.spec.resources)
