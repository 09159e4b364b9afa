"""The Pod Security Standards: what a pod may not ask for at the levels baseline and restricted, by version.

Each check is a function over a pod's metadata and spec that answers what is wrong, or None. CHECKS lists them with the
versions from which they hold; reasons and details are worded as upstream's pod-security-admission words them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from msgspec import Struct

from knarr.api.core.v1 import Container, EphemeralContainer, PodSpec, SELinuxOptions, Volume
from knarr.api.meta.v1 import ObjectMeta

LATEST = 10_000
"""As a minor version: newer than any."""


class Violation(NamedTuple):
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})" if self.detail else self.reason


Check = Callable[[ObjectMeta, PodSpec], Violation | None]


class Rule(Struct, frozen=True):
    """One check, from a minor version on; a later rule of the same name takes its place."""

    name: str
    level: str
    since: int
    check: Check
    overrides: str = ""
    """The baseline rule that it makes needless at the level restricted."""


@functools.lru_cache(maxsize=256)
def rules(level: str, minor: int) -> tuple[Rule, ...]:
    """Those of a level and version: baseline's first, each sorted by name."""
    newest: dict[str, Rule] = {}
    for rule in CHECKS:
        if rule.since <= minor and level != "privileged" and (rule.level == "baseline" or level == "restricted"):
            newest[rule.name] = rule
    overridden = {rule.overrides for rule in newest.values()}
    kept = [rule for rule in newest.values() if rule.name not in overridden]
    return tuple(sorted(kept, key=lambda rule: (rule.level, rule.name)))


def violations(level: str, minor: int, metadata: ObjectMeta, spec: PodSpec) -> list[Violation]:
    """Everything that a pod does against a level."""
    return [found for rule in rules(level, minor) if (found := rule.check(metadata, spec))]


def _containers(spec: PodSpec) -> Iterable[Container | EphemeralContainer]:
    yield from spec.init_containers
    yield from spec.containers
    yield from spec.ephemeral_containers


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _plural(one: str, many: str, count: int) -> str:
    return one if count == 1 else many


def _named(containers: Sequence[str]) -> str:
    """container "a"; containers "a", "b"."""
    return f"{_plural('container', 'containers', len(containers))} {_quoted(containers)}"


def _setters(pod: bool, containers: Sequence[str]) -> str:
    """Who it is that sets something: pod and container "a"."""
    return " and ".join([*(["pod"] if pod else []), *([_named(containers)] if containers else [])])


def _own(container: Container | EphemeralContainer, field: str) -> Any:
    """A field of a container's securityContext."""
    return getattr(container.security_context, field) if container.security_context else None


def _of_pod(spec: PodSpec, field: str) -> Any:
    return getattr(spec.security_context, field) if spec.security_context else None


def _in_user_namespace(spec: PodSpec) -> bool:
    return spec.host_users is False


APP_ARMOR_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"


def _app_armor(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    def bad(profile: Any) -> bool:
        return profile is not None and profile.type not in ("RuntimeDefault", "Localhost")

    profile = _of_pod(spec, "app_armor_profile")
    containers = [each for each in _containers(spec) if bad(_own(each, "app_armor_profile"))]
    values = {_own(each, "app_armor_profile").type for each in containers}
    if bad(profile):
        values.add(profile.type)
    listed = sorted(values)
    setters = [each for each in [_setters(bad(profile), [each.name for each in containers])] if each]
    annotations = sorted(
        f'{key}="{value}"'
        for key, value in metadata.annotations.items()
        if key.startswith(APP_ARMOR_ANNOTATION) and value not in ("", "runtime/default")
        if not value.startswith("localhost/")
    )
    if annotations:
        setters.append(_plural("annotation", "annotations", len(annotations)))
        listed += annotations
    if not setters:
        return None
    reason = _plural("forbidden AppArmor profile", "forbidden AppArmor profiles", len(listed))
    return Violation(reason, f"{' and '.join(setters)} must not set AppArmor profile type to {_quoted(listed)}")


DEFAULT_CAPABILITIES = frozenset(
    (
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    )
)


def _adding(spec: PodSpec, allowed: frozenset[str]) -> str:
    """Who adds capabilities beyond those allowed."""
    names, added = [], set()
    for container in _containers(spec):
        capabilities = _own(container, "capabilities")
        if capabilities and (more := set(capabilities.add) - allowed):
            names.append(container.name)
            added |= more
    if not names:
        return ""
    return f"{_named(names)} must not include {_quoted(sorted(added))} in securityContext.capabilities.add"


def _capabilities_baseline(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    detail = _adding(spec, DEFAULT_CAPABILITIES)
    return Violation("non-default capabilities", detail) if detail else None


def _host_namespaces(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    asked = {"hostNetwork": spec.host_network, "hostPID": spec.host_pid, "hostIPC": spec.host_ipc}
    shared = [f"{name}=true" for name, wanted in asked.items() if wanted]
    return Violation("host namespaces", ", ".join(shared)) if shared else None


def _host_path_volumes(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    names = [volume.name for volume in spec.volumes if volume.host_path]
    if not names:
        return None
    return Violation("hostPath volumes", f"{_plural('volume', 'volumes', len(names))} {_quoted(names)}")


def _host_ports(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    names: list[str] = []
    ports: set[str] = set()
    for container in _containers(spec):
        if taken := {str(port.host_port) for port in container.ports if port.host_port}:
            names.append(container.name)
            ports |= taken
    if not names:
        return None
    use = f"{_plural('uses', 'use', len(names))} {_plural('hostPort', 'hostPorts', len(ports))}"
    return Violation("hostPort", f"{_named(names)} {use} {', '.join(sorted(ports))}")


def _host_probes(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    names: set[str] = set()
    hosts: set[str] = set()
    for container in _containers(spec):
        handlers: list[Any] = [container.liveness_probe, container.readiness_probe, container.startup_probe]
        if container.lifecycle:
            handlers += [container.lifecycle.post_start, container.lifecycle.pre_stop]
        for handler in handlers:
            for action in (handler.http_get, handler.tcp_socket) if handler else ():
                if action and action.host:
                    names.add(container.name)
                    hosts.add(action.host)
    if not names:
        return None
    use = _plural("uses", "use", len(names))
    what = _plural("probe or lifecycle host", "probe or lifecycle hosts", len(hosts))
    return Violation("probe or lifecycle host", f"{_named(sorted(names))} {use} {what} {_quoted(sorted(hosts))}")


def _privileged(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    names = [each.name for each in _containers(spec) if _own(each, "privileged")]
    return Violation("privileged", f"{_named(names)} must not set securityContext.privileged=true") if names else None


def _proc_mount(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    bad = [each for each in _containers(spec) if _own(each, "proc_mount") not in (None, "Default")]
    if not bad:
        return None
    values = sorted({_own(each, "proc_mount") for each in bad})
    names = _named([each.name for each in bad])
    return Violation("procMount", f"{names} must not set securityContext.procMount to {_quoted(values)}")


def _proc_mount_unless_user_namespace(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    return None if _in_user_namespace(spec) else _proc_mount(metadata, spec)


SE_LINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t")


def _se_linux(types: Sequence[str]) -> Check:
    def bad(options: SELinuxOptions | None) -> bool:
        return bool(options and ((options.type or "") not in types or options.user or options.role))

    def check(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
        of_pod = _of_pod(spec, "se_linux_options")
        names = [each.name for each in _containers(spec) if bad(_own(each, "se_linux_options"))]
        if not names and not bad(of_pod):
            return None
        found = [each for each in (of_pod, *(_own(one, "se_linux_options") for one in _containers(spec))) if each]
        wrong = sorted({each.type or "" for each in found} - set(types))
        data = [f"{_plural('type', 'types', len(wrong))} {_quoted(wrong)}"] if wrong else []
        if any(each.user for each in found):
            data.append("user may not be set")
        if any(each.role for each in found):
            data.append("role may not be set")
        setters = _setters(bad(of_pod), names)
        detail = f"{setters} set forbidden securityContext.seLinuxOptions: {'; '.join(data)}"
        return Violation("seLinuxOptions", detail)

    return check


SECCOMP_OF_POD = "seccomp.security.alpha.kubernetes.io/pod"
SECCOMP_OF_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"
SECCOMP_TYPES = ("RuntimeDefault", "Localhost")


def _seccomp_annotations(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    """Before there was a field."""
    keys = [SECCOMP_OF_POD, *(SECCOMP_OF_CONTAINER + each.name for each in _containers(spec))]
    bad = sorted(
        {
            f'{key}="{value}"'
            for key in keys
            if (value := metadata.annotations.get(key)) is not None
            if value not in ("runtime/default", "docker/default") and not value.startswith("localhost/")
        }
    )
    if not bad:
        return None
    return Violation("seccompProfile", f"forbidden {_plural('annotation', 'annotations', len(bad))} {', '.join(bad)}")


def _seccomp_baseline(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    of_pod = _of_pod(spec, "seccomp_profile")
    pod_bad = of_pod is not None and of_pod.type not in SECCOMP_TYPES
    profiles = {each.name: profile for each in _containers(spec) if (profile := _own(each, "seccomp_profile"))}
    names = [name for name, profile in profiles.items() if profile.type not in SECCOMP_TYPES]
    if not names and not pod_bad:
        return None
    values = {profiles[name].type for name in names} | ({of_pod.type} if pod_bad else set())
    detail = f"{_setters(pod_bad, names)} must not set securityContext.seccompProfile.type to {_quoted(sorted(values))}"
    return Violation("seccompProfile", detail)


SYSCTLS = (
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
)
SYSCTLS_27 = (*SYSCTLS, "net.ipv4.ip_local_reserved_ports")
SYSCTLS_29 = (
    *SYSCTLS_27,
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
)
SYSCTLS_32 = (*SYSCTLS_29, "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem")


def _sysctls(allowed: Sequence[str]) -> Check:
    def check(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
        bad = [each.name for each in _of_pod(spec, "sysctls") or () if each.name not in allowed]
        return Violation("forbidden sysctls", ", ".join(bad)) if bad else None

    return check


def _host_process(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    def asks(options: Any) -> bool:
        return bool(options and options.host_process)

    names = [each.name for each in _containers(spec) if asks(_own(each, "windows_options"))]
    of_pod = asks(_of_pod(spec, "windows_options"))
    if not names and not of_pod:
        return None
    setters = _setters(of_pod, names)
    return Violation("hostProcess", f"{setters} must not set securityContext.windowsOptions.hostProcess=true")


def _escalation(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    names = [each.name for each in _containers(spec) if _own(each, "allow_privilege_escalation") is not False]
    if not names:
        return None
    detail = f"{_named(names)} must set securityContext.allowPrivilegeEscalation=false"
    return Violation("allowPrivilegeEscalation != false", detail)


def _capabilities_restricted(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    details = []
    keeping = [
        each.name for each in _containers(spec) if not (found := _own(each, "capabilities")) or "ALL" not in found.drop
    ]
    if keeping:
        details.append(f'{_named(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    if adding := _adding(spec, frozenset(("NET_BIND_SERVICE",))):
        details.append(adding)
    return Violation("unrestricted capabilities", "; ".join(details)) if details else None


ALLOWED_VOLUMES = (
    "config_map",
    "csi",
    "downward_api",
    "empty_dir",
    "ephemeral",
    "image",
    "persistent_volume_claim",
    "projected",
    "secret",
)


def _source(volume: Volume) -> str:
    """The JSON name of where a volume comes from."""
    for field, name in zip(volume.__struct_fields__, volume.__struct_encode_fields__, strict=True):
        if field != "name" and getattr(volume, field) is not None:
            return name
    return "unknown"


def _restricted_volumes(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    bad = [
        volume for volume in spec.volumes if not any(getattr(volume, field) is not None for field in ALLOWED_VOLUMES)
    ]
    if not bad:
        return None
    kinds = sorted({_source(volume) for volume in bad})
    volumes = f"{_plural('volume', 'volumes', len(bad))} {_quoted(volume.name for volume in bad)}"
    use = f"{_plural('uses', 'use', len(bad))} restricted volume {_plural('type', 'types', len(kinds))}"
    return Violation("restricted volume types", f"{volumes} {use} {_quoted(kinds)}")


def _run_as_non_root(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    reason = "runAsNonRoot != true"
    of_pod = _of_pod(spec, "run_as_non_root")
    wanted = {each.name: _own(each, "run_as_non_root") for each in _containers(spec)}
    against = [name for name, value in wanted.items() if value is False]
    if against or of_pod is False:
        setters = _setters(of_pod is False, against)
        return Violation(reason, f"{setters} must not set securityContext.runAsNonRoot=false")
    silent = [name for name, value in wanted.items() if value is None] if not of_pod else []
    if silent:
        return Violation(reason, f"pod or {_named(silent)} must set securityContext.runAsNonRoot=true")
    return None


def _run_as_user(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    of_pod = _of_pod(spec, "run_as_user") == 0
    names = [each.name for each in _containers(spec) if _own(each, "run_as_user") == 0]
    if not names and not of_pod:
        return None
    return Violation("runAsUser=0", f"{_setters(of_pod, names)} must not set runAsUser=0")


def _seccomp_restricted(metadata: ObjectMeta, spec: PodSpec) -> Violation | None:
    if explicit := _seccomp_baseline(metadata, spec):
        return explicit
    if _of_pod(spec, "seccomp_profile"):
        return None
    silent = [each.name for each in _containers(spec) if not _own(each, "seccomp_profile")]
    if not silent:
        return None
    wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return Violation("seccompProfile", f"pod or {_named(silent)} {wanted}")


def _unless_windows(check: Check) -> Check:
    """What Windows does not have can't be asked for there."""
    return lambda metadata, spec: None if spec.os and spec.os.name == "windows" else check(metadata, spec)


def _unless_user_namespace(check: Check) -> Check:
    """KEP-127: root in a user namespace of its own is nobody on the host."""
    return lambda metadata, spec: None if _in_user_namespace(spec) else check(metadata, spec)


BASELINE, RESTRICTED = "baseline", "restricted"

CHECKS = (
    Rule("appArmorProfile", BASELINE, 0, _app_armor),
    Rule("capabilities_baseline", BASELINE, 0, _capabilities_baseline),
    Rule("hostNamespaces", BASELINE, 0, _host_namespaces),
    Rule("hostPathVolumes", BASELINE, 0, _host_path_volumes),
    Rule("hostPorts", BASELINE, 0, _host_ports),
    Rule("hostProbesAndHostLifecycle", BASELINE, 34, _host_probes),
    Rule("privileged", BASELINE, 0, _privileged),
    Rule("procMount", BASELINE, 0, _proc_mount),
    Rule("procMount", BASELINE, 35, _proc_mount_unless_user_namespace),
    Rule("seLinuxOptions", BASELINE, 0, _se_linux(SE_LINUX_TYPES)),
    Rule("seLinuxOptions", BASELINE, 31, _se_linux((*SE_LINUX_TYPES, "container_engine_t"))),
    Rule("seccompProfile_baseline", BASELINE, 0, _seccomp_annotations),
    Rule("seccompProfile_baseline", BASELINE, 19, _seccomp_baseline),
    Rule("sysctls", BASELINE, 0, _sysctls(SYSCTLS)),
    Rule("sysctls", BASELINE, 27, _sysctls(SYSCTLS_27)),
    Rule("sysctls", BASELINE, 29, _sysctls(SYSCTLS_29)),
    Rule("sysctls", BASELINE, 32, _sysctls(SYSCTLS_32)),
    Rule("windowsHostProcess", BASELINE, 0, _host_process),
    Rule("allowPrivilegeEscalation", RESTRICTED, 8, _escalation),
    Rule("allowPrivilegeEscalation", RESTRICTED, 25, _unless_windows(_escalation)),
    Rule("capabilities_restricted", RESTRICTED, 22, _capabilities_restricted, "capabilities_baseline"),
    Rule("capabilities_restricted", RESTRICTED, 25, _unless_windows(_capabilities_restricted), "capabilities_baseline"),
    Rule("procMount_restricted", RESTRICTED, 35, _proc_mount, "procMount"),
    Rule("restrictedVolumes", RESTRICTED, 0, _restricted_volumes, "hostPathVolumes"),
    Rule("runAsNonRoot", RESTRICTED, 0, _run_as_non_root),
    Rule("runAsNonRoot", RESTRICTED, 35, _unless_user_namespace(_run_as_non_root)),
    Rule("runAsUser", RESTRICTED, 23, _run_as_user),
    Rule("runAsUser", RESTRICTED, 35, _unless_user_namespace(_run_as_user)),
    Rule("seccompProfile_restricted", RESTRICTED, 19, _seccomp_restricted, "seccompProfile_baseline"),
    Rule("seccompProfile_restricted", RESTRICTED, 25, _unless_windows(_seccomp_restricted), "seccompProfile_baseline"),
)
