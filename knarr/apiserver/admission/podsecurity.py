"""PodSecurity: a namespace's labels say which of the Pod Security Standards its pods must keep (KEP-2579).

`pod-security.kubernetes.io/enforce` refuses pods, `warn` warns of pods and of the templates of workloads; each has its
`-version`. Who makes a namespace stricter is told which of its pods would no longer be let in. (`audit` is read and
checked; there is no audit log yet to write it to.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from knarr.api.apps.v1 import DaemonSet, Deployment, ReplicaSet, StatefulSet
from knarr.api.batch.v1 import CronJob, Job
from knarr.api.core.v1 import Namespace, Pod, PodSpec, PodTemplate, PodTemplateSpec, ReplicationController
from knarr.api.decode import decoder
from knarr.api.errors import Cause, Invalid, invalid
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.resources import Resource
from knarr.apiserver.admission import Attributes, Plugin
from knarr.apiserver.admission.index import Index
from knarr.apiserver.admission.pod_security_standards import (
    APP_ARMOR_ANNOTATION,
    LATEST,
    SECCOMP_OF_CONTAINER,
    SECCOMP_OF_POD,
    violations,
)
from knarr.clock import Clock
from knarr.store.contract import Store

PREFIX = "pod-security.kubernetes.io/"
LEVELS = ("privileged", "baseline", "restricted")
WORKLOADS: tuple[type[Any], ...] = (
    PodTemplate,
    ReplicationController,
    ReplicaSet,
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
)
POD_SUBRESOURCES = ("", "ephemeralcontainers", "resize")
PODS_CHECKED_MAX = 3000
"""Of a namespace whose labels change; upstream's bound."""
CHECK_MAX_S = 1.0
"""How long that may take; upstream's bound."""
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]*)")


class Standard(NamedTuple):
    """A level of a version; LATEST is the newest."""

    level: str = "privileged"
    minor: int = LATEST

    def __str__(self) -> str:
        return f"{self.level}:{'latest' if self.minor == LATEST else f'v1.{self.minor}'}"


class Policy(NamedTuple):
    enforce: Standard = Standard()
    warn: Standard = Standard()


LAX = Policy()


class PodSecurity(Plugin):
    def __init__(self, store: Store, clock: Clock, namespaces: Index[Namespace]) -> None:
        self._store = store
        self._clock = clock
        self._namespaces = namespaces

    def concerns(self, resource: Resource, operation: str, subresource: str) -> bool:
        if operation not in ("CREATE", "UPDATE"):
            return False
        if resource.type is Pod:
            return subresource in POD_SUBRESOURCES
        return not subresource and (resource.type is Namespace or resource.type in WORKLOADS)

    async def validate(self, attributes: Attributes) -> None:
        kind = attributes.resource.type
        if kind is Namespace:
            await self._namespace(attributes)
            return
        namespace = await self._namespaces.get("", attributes.namespace)
        policy = policy_of(namespace.metadata.labels)[0] if namespace else LAX
        if policy == LAX:
            return
        if kind is not Pod:
            if template := _template(attributes.obj):
                self._warn(attributes, policy, template.metadata or ObjectMeta(), template.spec or PodSpec())
            return
        pod: Pod = attributes.obj
        if attributes.operation == "UPDATE" and not _matters(pod, attributes.old):
            return
        found = violations(*policy.enforce, pod.metadata, pod.spec or PodSpec())
        if found:
            told = ", ".join(map(str, found))
            raise attributes.refused(f'violates PodSecurity "{policy.enforce}": {told}')
        self._warn(attributes, policy, pod.metadata, pod.spec or PodSpec())

    def _warn(self, attributes: Attributes, policy: Policy, metadata: ObjectMeta, spec: PodSpec) -> None:
        found = violations(*policy.warn, metadata, spec)
        if found:
            told = ", ".join(map(str, found))
            attributes.warnings.append(f'would violate PodSecurity "{policy.warn}": {told}')

    async def _namespace(self, attributes: Attributes) -> None:
        name, labels = attributes.obj.metadata.name, attributes.obj.metadata.labels
        policy, causes = policy_of(labels)
        before, faults_before = policy_of(attributes.old.metadata.labels) if attributes.old else (LAX, [])
        if causes and causes != faults_before:
            raise Invalid.of("", "Namespace", name, causes)
        new, old = policy.enforce, before.enforce
        if attributes.operation == "CREATE" or new == old or new.level == "privileged":
            return
        if new.minor == old.minor and LEVELS.index(new.level) <= LEVELS.index(old.level):
            return
        attributes.warnings += await self._existing(name, new)

    async def _existing(self, namespace: str, standard: Standard) -> list[str]:
        """What of the pods that are there is against a new standard."""
        found = await self._store.range(f"pods/{namespace}/", limit=PODS_CHECKED_MAX)
        until_s = self._clock.monotonic_s() + CHECK_MAX_S
        names: dict[str, list[str]] = {}
        checked = 0
        for record in found.records:
            pod: Pod = decoder(Pod).decode(record.value)
            reasons = [each.reason for each in violations(*standard, pod.metadata, pod.spec or PodSpec())]
            if reasons:
                names.setdefault(", ".join(reasons), []).append(pod.metadata.name or "")
            checked += 1
            if self._clock.monotonic_s() > until_s:
                break
        warnings = []
        there = len(found.records) + found.remaining
        if checked < there:
            about = f"new PodSecurity enforce level only checked against the first {checked} of {there} existing pods"
            warnings.append(about)
        if names:
            about = f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{standard}"'
            warnings.append(about)
        return warnings + sorted(f"{_first_of(pods)}: {reasons}" for reasons, pods in names.items())


def _first_of(pods: list[str]) -> str:
    first, others = min(pods), len(pods) - 1
    if not others:
        return first
    return f"{first} (and {others} other {'pod' if others == 1 else 'pods'})"


def policy_of(labels: Mapping[str, str]) -> tuple[Policy, list[Cause]]:
    """What labels ask for, and what can't be read in them. Unreadable is strict for enforce, lax for the others."""
    if not any(key.startswith(PREFIX) for key in labels):
        return LAX, []
    causes: list[Cause] = []
    found: dict[str, Standard] = {}
    for mode in ("enforce", "audit", "warn"):
        level = labels.get(PREFIX + mode)
        if level is not None and level not in LEVELS:
            place = f"metadata.labels[{PREFIX}{mode}]"
            causes.append(invalid(place, level, f"must be one of {', '.join(LEVELS)}"))
            level = "restricted" if mode == "enforce" else "privileged"
        version = labels.get(f"{PREFIX}{mode}-version")
        minor = LATEST
        if version is not None and version != "latest":
            if match := _VERSION.fullmatch(version):
                minor = min(int(match[1]), LATEST - 1)
            else:
                place = f"metadata.labels[{PREFIX}{mode}-version]"
                causes.append(invalid(place, version, 'must be "latest" or "v1.x"'))
        found[mode] = Standard(level or "privileged", minor)
    enforce, warn = found["enforce"], found["warn"]
    if PREFIX + "warn" not in labels and labels.get(PREFIX + "enforce") in LEVELS and enforce.level != "privileged":
        # Who enforces a level is warned of it too: of workloads, whose pods would be refused later and elsewhere.
        warn = Standard(enforce.level, warn.minor if f"{PREFIX}warn-version" in labels else enforce.minor)
    return Policy(enforce, warn), causes


def _template(obj: Any) -> PodTemplateSpec | None:
    """The pods that a workload makes."""
    if isinstance(obj, PodTemplate):
        return obj.template
    spec = obj.spec
    if isinstance(obj, CronJob):
        spec = spec.job_template.spec if spec else None
    return spec.template if spec else None


def _matters(pod: Pod, old: Pod) -> bool:
    """Whether an update changes what a standard looks at: images of containers, new containers, profiles."""
    new, before = pod.spec or PodSpec(), old.spec or PodSpec()
    for name in ("containers", "init_containers", "ephemeral_containers"):
        mine, theirs = getattr(new, name), getattr(before, name)
        if [each.image for each in mine] != [each.image for each in theirs]:
            return True
    return _profiles(pod) != _profiles(old)


def _profiles(pod: Pod) -> dict[str, str]:
    prefixes = (APP_ARMOR_ANNOTATION, SECCOMP_OF_CONTAINER, SECCOMP_OF_POD)
    return {key: value for key, value in pod.metadata.annotations.items() if key.startswith(prefixes)}
