"""What of a pod (or a template of pods) is allowed and yet surely not meant: warnings that go out with the answer.

The texts are upstream's (pkg/api/pod), since people search for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter

from knarr.api.core.v1 import Affinity, Container, ContainerPort, EnvVar, NodeSelectorTerm, PodSpec, PodTemplateSpec
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.quantity import canonical, parse_quantity

OLD_NODE_LABELS = {
    "app.kubernetes.io/created-by": "deprecated since v1.9",
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "node-role.kubernetes.io/master": 'use "node-role.kubernetes.io/control-plane" instead',
    "scheduler.alpha.kubernetes.io/preferAvoidPods": "deprecated since v1.22; use Taints and Tolerations instead",
}
OLD_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
OLD_VOLUMES = {
    "photon_persistent_disk": ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    "git_repo": ("gitRepo", "deprecated in v1.11"),
    "scale_io": ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    "flocker": ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    "storageos": ("storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    "quobyte": ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    "glusterfs": ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    "cephfs": ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    "rbd": ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
}
_old_sources = attrgetter(*OLD_VOLUMES)
_NO_OLD_SOURCES = (None,) * len(OLD_VOLUMES)
POD_SECCOMP = "seccomp.security.alpha.kubernetes.io/pod"
CONTAINER_SECCOMP = "container.seccomp.security.alpha.kubernetes.io/"
CONTAINER_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
SECCOMP = 'non-functional in v1.27+; use the "seccompProfile" field instead'
APPARMOR = 'deprecated since v1.30; use the "appArmorProfile" field instead'
IN_BYTES = ("memory", "ephemeral-storage")
SELECTS_NOTHING = "a null labelSelector results in matching no pod"


def template_warnings(template: PodTemplateSpec | None, path: str) -> Iterable[str]:
    """Of a workload's template, at a path such as spec.template."""
    if template is None or template.spec is None:
        return ()
    return pod_warnings(template.spec, template.metadata or ObjectMeta(), f"{path}.")


def pod_warnings(spec: PodSpec, metadata: ObjectMeta, prefix: str = "") -> Iterator[str]:
    """`prefix` is what paths begin with, of a template."""
    path = f"{prefix}spec"
    if spec.node_selector or spec.affinity or spec.topology_spread_constraints:
        yield from _labels(spec, path)
    if annotations := metadata.annotations:
        for key, text in OLD_ANNOTATIONS.items():
            if key in annotations:
                yield f"{prefix}metadata.annotations[{key}]: {text}"
    yield from _volumes(spec, path)
    if spec.host_aliases:
        yield from _doubles([alias.ip for alias in spec.host_aliases], f"{path}.hostAliases", "ip")
    if secrets := spec.image_pull_secrets:
        yield from _doubles([secret.name or "" for secret in secrets], f"{path}.imagePullSecrets", "name")
        for index, secret in enumerate(secrets):
            if not secret.name:
                yield f'{path}.imagePullSecrets[{index}].name: invalid empty name ""'
    if spec.overhead:
        yield from _fractions(spec.overhead, f"{path}.overhead")
    containers = list(_containers(spec, path))
    if annotations:
        yield from _profiles(spec, annotations, [each for each, _ in containers], prefix)
    for container, place in containers:
        if resources := container.resources:
            if resources.limits:
                yield from _fractions(resources.limits, f"{place}.resources.limits")
            if resources.requests:
                yield from _fractions(resources.requests, f"{place}.resources.requests")
        if len(container.env) > 1:
            yield from _hidden(container.env, f"{place}.env")
    yield from _ports(containers)
    if (spec.termination_grace_period_seconds or 0) < 0:
        yield (
            f"{path}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
        )
    if spec.affinity:
        yield from _empty_selectors(spec.affinity, f"{path}.affinity")


def _containers(spec: PodSpec, path: str) -> Iterator[tuple[Container, str]]:
    for field, listed in (("initContainers", spec.init_containers), ("containers", spec.containers)):
        for index, container in enumerate(listed):
            yield container, f"{path}.{field}[{index}]"


def _labels(spec: PodSpec, path: str) -> Iterator[str]:
    """Labels of nodes that have other names now."""
    for key in spec.node_selector:
        if text := OLD_NODE_LABELS.get(key):
            yield f"{path}.nodeSelector[{key}]: {text}"
    affinity = spec.affinity.node_affinity if spec.affinity else None
    if affinity is not None:
        place = f"{path}.affinity.nodeAffinity"
        if required := affinity.required_during_scheduling_ignored_during_execution:
            for index, term in enumerate(required.node_selector_terms):
                at = f"{place}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{index}]"
                yield from _term(term, at)
        for index, each in enumerate(affinity.preferred_during_scheduling_ignored_during_execution):
            at = f"{place}.preferredDuringSchedulingIgnoredDuringExecution[{index}].preference"
            yield from _term(each.preference, at)
    for index, constraint in enumerate(spec.topology_spread_constraints):
        place = f"{path}.topologySpreadConstraints[{index}]"
        if text := OLD_NODE_LABELS.get(constraint.topology_key):
            yield f"{place}.topologyKey: {constraint.topology_key} is {text}"
        if constraint.label_selector is None:
            yield f"{place}.labelSelector: {SELECTS_NOTHING}"


def _term(term: NodeSelectorTerm, path: str) -> Iterator[str]:
    for index, expression in enumerate(term.match_expressions):
        if text := OLD_NODE_LABELS.get(expression.key):
            yield f"{path}.matchExpressions[{index}].key: {expression.key} is {text}"


def _volumes(spec: PodSpec, path: str) -> Iterator[str]:
    for index, volume in enumerate(spec.volumes):
        if _old_sources(volume) == _NO_OLD_SOURCES:
            continue
        for field, (name, text) in OLD_VOLUMES.items():
            if getattr(volume, field) is not None:
                yield f"{path}.volumes[{index}].{name}: {text}"


def _doubles(values: Sequence[str], path: str, field: str) -> Iterator[str]:
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            yield f'{path}[{index}].{field}: duplicate {field} "{value}"'
        seen.add(value)


def _fractions(amounts: Mapping[str, object], path: str) -> Iterator[str]:
    """There are no parts of a byte."""
    for name in IN_BYTES:
        amount = str(amounts.get(name, ""))
        if amount and not amount.isdigit() and parse_quantity(amount) % 1:
            yield f'{path}[{name}]: fractional byte value "{canonical(amount)}" is invalid, must be an integer'


def _profiles(
    spec: PodSpec, annotations: Mapping[str, str], containers: Sequence[Container], prefix: str
) -> Iterator[str]:
    """Security profiles in annotations, where no field says the same."""
    context, place = spec.security_context, f"{prefix}metadata.annotations"
    if POD_SECCOMP in annotations and not (context and context.seccomp_profile):
        yield f"{place}[{POD_SECCOMP}]: {SECCOMP}"
    for container in containers:
        own = container.security_context
        key = CONTAINER_SECCOMP + container.name
        if key in annotations and not (own and own.seccomp_profile):
            yield f"{place}[{key}]: {SECCOMP}"
        key = CONTAINER_APPARMOR + container.name
        named = (context and context.app_armor_profile) or (own and own.app_armor_profile)
        if prefix and key in annotations and not named:
            yield f"{place}[{key}]: {APPARMOR}"


def _hidden(listed: Sequence[EnvVar], path: str) -> Iterator[str]:
    """A variable that is there twice, but for one that goes on from its earlier value."""
    seen: set[str] = set()
    for index, variable in enumerate(listed):
        earlier, value = f"$({variable.name})", variable.value or ""
        if variable.name in seen and (variable.value_from is not None or value == earlier or earlier not in value):
            yield (
                f'{path}[{index}]: hides previous definition of "{variable.name}", '
                "which may be dropped when using apply"
            )
        seen.add(variable.name)


def _ports(containers: Iterable[tuple[Container, str]]) -> Iterator[str]:
    """Ports of all containers of a pod, which share one address."""
    taken: dict[tuple[int, str | None], list[tuple[ContainerPort, str]]] = {}
    for container, place in containers:
        for index, port in enumerate(container.ports):
            at = f"{place}.ports[{index}]"
            if port.host_ip and not port.host_port:
                shown = f"Name:{port.name or ''} HostPort:0 ContainerPort:{port.container_port}"
                yield f"{at}: hostIP set without hostPort: {{{shown} Protocol:{port.protocol} HostIP:{port.host_ip}}}"
            others = taken.setdefault((port.container_port, port.protocol), [])
            for other, where in others:
                if word := _clash(port, other):
                    yield f"{at}: {word} port definition with {where}"
            others.append((port, at))


def _clash(port: ContainerPort, other: ContainerPort) -> str:
    mine, theirs = (port.host_ip or "", port.host_port or 0), (other.host_ip or "", other.host_port or 0)
    if mine == theirs:
        return "duplicate"
    if not mine[1] or not theirs[1]:
        return "overlapping"
    return "dangerously ambiguous" if mine[1] == theirs[1] and bool(mine[0]) != bool(theirs[0]) else ""


def _empty_selectors(affinity: Affinity, path: str) -> Iterator[str]:
    for field, towards in (("podAffinity", affinity.pod_affinity), ("podAntiAffinity", affinity.pod_anti_affinity)):
        if not towards:
            continue
        for index, term in enumerate(towards.required_during_scheduling_ignored_during_execution):
            if term.label_selector is None:
                at = f"{path}.{field}.requiredDuringSchedulingIgnoredDuringExecution[{index}]"
                yield f"{at}.labelSelector: {SELECTS_NOTHING}"
        for index, weighted in enumerate(towards.preferred_during_scheduling_ignored_during_execution):
            if weighted.pod_affinity_term.label_selector is None:
                at = f"{path}.{field}.preferredDuringSchedulingIgnoredDuringExecution[{index}].podAffinityTerm"
                yield f"{at}.labelSelector: {SELECTS_NOTHING}"
