"""Which nodes a DaemonSet's pods belong on, and what to do on each: plain functions over values.

As upstream's pkg/controller/daemon decides it: `place` keeps one pod on each node that fits, `update` replaces pods of
an old template within the bounds of maxUnavailable or maxSurge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct, field

from knarr.api.apps.daemonsets import TEMPLATE_GENERATION
from knarr.api.apps.v1 import DaemonSet, DaemonSetSpec, DaemonSetStatus
from knarr.api.core.node_affinity import matches
from knarr.api.core.pod_state import is_ready, phase
from knarr.api.core.taints import NOT_READY, PRESSURE, UNREACHABLE, UNSCHEDULABLE, tolerates
from knarr.api.core.v1 import (
    Affinity,
    Node,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    NodeSpec,
    Pod,
    PodSpec,
    Toleration,
)
from knarr.api.types import replace
from knarr.controllers.history import REVISION_LABEL
from knarr.controllers.pods import available_in_s, from_template, seconds
from knarr.controllers.rolling import part_of

GENERATION_LABEL = "pod-template-generation"
ALWAYS_TOLERATED = (
    Toleration(key=NOT_READY, operator="Exists", effect="NoExecute"),
    Toleration(key=UNREACHABLE, operator="Exists", effect="NoExecute"),
    Toleration(key=PRESSURE["DiskPressure"], operator="Exists", effect="NoSchedule"),
    Toleration(key=PRESSURE["MemoryPressure"], operator="Exists", effect="NoSchedule"),
    Toleration(key=PRESSURE["PIDPressure"], operator="Exists", effect="NoSchedule"),
    Toleration(key=UNSCHEDULABLE, operator="Exists", effect="NoSchedule"),
)
"""A daemon stays where other pods go from."""
HOST_NETWORK_TOLERATED = Toleration(key=PRESSURE["NetworkUnavailable"], operator="Exists", effect="NoSchedule")


class Step(Struct):
    """Names of nodes that get a pod, and pods that go."""

    create: list[str] = field(default_factory=list)
    delete: list[Pod] = field(default_factory=list)


class View(Struct, frozen=True):
    """What a decision is made from."""

    daemon_set: DaemonSet
    nodes: Sequence[Node]
    pods: Mapping[str, Sequence[Pod]]
    """By the node that each is meant for, the oldest first."""
    revision: str
    """The hash of the present template."""
    now_s: float

    def is_new(self, pod: Pod) -> bool:
        return pod.metadata.labels.get(REVISION_LABEL) == self.revision

    def is_available(self, pod: Pod) -> bool:
        return available_in_s(pod, spec_of(self.daemon_set).min_ready_seconds or 0, self.now_s) == 0


def spec_of(daemon_set: DaemonSet) -> DaemonSetSpec:
    assert daemon_set.spec is not None
    return daemon_set.spec


def make_pod(daemon_set: DaemonSet, revision: str, node: str) -> Pod:
    """The pod of a node as it is to be created: bound to it by its affinity, so that the scheduler still has a say."""
    pod = from_template(spec_of(daemon_set).template, daemon_set)
    generation = daemon_set.metadata.annotations.get(TEMPLATE_GENERATION, "1")
    labels = {**pod.metadata.labels, REVISION_LABEL: revision, GENERATION_LABEL: generation}
    spec = pod.spec or PodSpec()
    affinity = spec.affinity or Affinity()
    field_is_name = NodeSelectorRequirement(key="metadata.name", operator="In", values=[node])
    here = NodeSelector(node_selector_terms=[NodeSelectorTerm(match_fields=[field_is_name])])
    of_node = replace(
        affinity.node_affinity or NodeAffinity(), required_during_scheduling_ignored_during_execution=here
    )
    return replace(
        pod,
        metadata=replace(pod.metadata, labels=labels),
        spec=replace(spec, affinity=replace(affinity, node_affinity=of_node), tolerations=tolerations(spec)),
    )


def tolerations(spec: PodSpec) -> list[Toleration]:
    """The template's and those of every daemon."""
    added = [*ALWAYS_TOLERATED, *([HOST_NETWORK_TOLERATED] if spec.host_network else [])]
    return [*spec.tolerations, *(each for each in added if each not in spec.tolerations)]


def node_of(pod: Pod) -> str:
    """The node that a pod runs on, or is meant for by its affinity."""
    spec = pod.spec or PodSpec()
    if spec.node_name:
        return spec.node_name
    affinity = spec.affinity and spec.affinity.node_affinity
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    for term in required.node_selector_terms if required else ():
        for requirement in term.match_fields:
            if requirement.key == "metadata.name" and requirement.operator == "In" and len(requirement.values) == 1:
                return requirement.values[0]
    return ""


def by_node(pods: Iterable[Pod]) -> dict[str, list[Pod]]:
    """The pods of each node, the oldest first."""
    found: dict[str, list[Pod]] = defaultdict(list)
    for pod in sorted(pods, key=_age):
        found[node_of(pod)].append(pod)
    return dict(found)


def fits(daemon_set: DaemonSet, node: Node) -> tuple[bool, bool]:
    """Whether a pod should start on a node, and whether one that is there may stay."""
    spec = spec_of(daemon_set).template.spec or PodSpec()
    if spec.node_name and spec.node_name != node.metadata.name:
        return False, False
    if not matches(spec, node):
        return False, False
    borne = tolerations(spec)
    unborne = {
        taint.effect
        for taint in (node.spec or NodeSpec()).taints
        if taint.effect in ("NoSchedule", "NoExecute") and not any(tolerates(each, taint) for each in borne)
    }
    return not unborne, "NoExecute" not in unborne


def place(view: View, may_replace: Callable[[str, Pod], bool]) -> Step:
    """One pod on each node that fits, none elsewhere. `may_replace`: whether a failed pod of a node may go now."""
    step = Step()
    names = set()
    for node in view.nodes:
        name = node.metadata.name or ""
        names.add(name)
        start, stay = fits(view.daemon_set, node)
        there = view.pods.get(name, ())
        if start and not there:
            step.create.append(name)
        elif stay:
            ended = [pod for pod in _staying(there) if phase(pod) in ("Failed", "Succeeded")]
            step.delete += (pod for pod in ended if phase(pod) == "Succeeded" or may_replace(name, pod))
            running = [pod for pod in _staying(there) if pod not in ended]
            step.delete += _superfluous(view, running) if surges(view.daemon_set) else running[1:]
        else:
            step.delete += _staying(there)
    for name, pods in view.pods.items():
        if name not in names:
            step.delete += (pod for pod in _staying(pods) if pod.spec and not pod.spec.node_name)
    return step


def update(view: View) -> Step:
    """The next step of a rolling update."""
    unavailable_max, surge_max = bounds(view)
    return _surge(view, surge_max) if surge_max else _replace(view, unavailable_max)


def bounds(view: View) -> tuple[int, int]:
    """How many nodes may be without a pod, and how many may have two."""
    desired = sum(fits(view.daemon_set, node)[0] for node in view.nodes)
    strategy = spec_of(view.daemon_set).update_strategy
    rolling = strategy.rolling_update if strategy else None
    surge = part_of(rolling.max_surge, desired, up=True) if rolling else 0
    unavailable = part_of(1 if rolling is None else rolling.max_unavailable, desired, up=True)
    return (1, 0) if not surge and not unavailable else (unavailable, surge)


def surges(daemon_set: DaemonSet) -> bool:
    strategy = spec_of(daemon_set).update_strategy
    return bool(
        strategy
        and strategy.type == "RollingUpdate"
        and strategy.rolling_update
        and strategy.rolling_update.max_surge not in (None, 0, "0%")
    )


def _replace(view: View, unavailable_max: int) -> Step:
    """Old pods go, and the nodes left without one get a new one."""
    unavailable, candidates, step = 0, [], Step()
    for pods in view.pods.values():
        new, old, clear = _pair(view, pods)
        if not clear or (new is None and old is None):
            unavailable += 1  # a look to come puts it right
        elif new is not None:
            unavailable += not view.is_available(new)
        elif old is not None and not view.is_available(old):
            unavailable += 1
            step.delete.append(old)  # nothing is lost with it
        elif old is not None:
            candidates.append(old)
    step.delete += candidates[: max(0, unavailable_max - unavailable)]
    return step


def _surge(view: View, surge_max: int) -> Step:
    """New pods come beside old ones, which go when the new ones are available."""
    surging, candidates, step = 0, [], Step()
    for name, pods in view.pods.items():
        new, old, clear = _pair(view, pods)
        if not clear:
            surging += 1
        elif old is None:
            continue  # done, or a look to come puts it right
        elif new is None and not view.is_available(old):
            step.create.append(name)
        elif new is None:
            candidates.append(name)
        elif not is_ready(old) or view.is_available(new):
            step.delete.append(old)
        else:
            surging += 1
    step.create += candidates[: max(0, surge_max - surging)]
    return step


def _pair(view: View, pods: Iterable[Pod]) -> tuple[Pod | None, Pod | None, bool]:
    """The new and the old pod of a node; and whether there is no more than one of each."""
    new = [pod for pod in _staying(pods) if view.is_new(pod)]
    old = [pod for pod in _staying(pods) if not view.is_new(pod)]
    if len(new) > 1 or len(old) > 1:
        return None, None, False
    return next(iter(new), None), next(iter(old), None), True


def _superfluous(view: View, running: Sequence[Pod]) -> list[Pod]:
    """With surge, a node may have one new and one old pod, the old one only while it is needed."""
    new = [pod for pod in running if view.is_new(pod)]
    old = [pod for pod in running if not view.is_new(pod)]
    needless = new[1:] + old[1:]
    if new and old and (not is_ready(old[0]) or view.is_available(new[0])):
        needless.append(old[0])
    return needless


def status_of(view: View, collisions: int) -> DaemonSetStatus:
    """The status that these nodes and pods make."""
    desired = scheduled = misscheduled = ready = available = updated = 0
    for node in view.nodes:
        pods = view.pods.get(node.metadata.name or "", ())
        if not fits(view.daemon_set, node)[0]:
            misscheduled += bool(pods)
            continue
        desired += 1
        if pods:
            scheduled += 1
            ready += is_ready(pods[0])
            available += is_ready(pods[0]) and view.is_available(pods[0])
            updated += view.is_new(pods[0])
    old = view.daemon_set.status
    return DaemonSetStatus(
        current_number_scheduled=scheduled,
        desired_number_scheduled=desired,
        number_misscheduled=misscheduled,
        number_ready=ready,
        number_available=available or None,
        number_unavailable=desired - available or None,
        updated_number_scheduled=updated or None,
        observed_generation=view.daemon_set.metadata.generation,
        collision_count=collisions or None,
        conditions=old.conditions if old else [],
    )


def _staying(pods: Iterable[Pod]) -> list[Pod]:
    return [pod for pod in pods if pod.metadata.deletion_timestamp is None]


def _age(pod: Pod) -> tuple[float, str]:
    created = pod.metadata.creation_timestamp
    return (seconds(created) if created else 0.0, pod.metadata.name or "")
