"""Resizing a running pod in place (KEP-1287, `kubectl patch --subresource resize`): what its containers are granted.

What a pod's spec asks for is granted where the node has it: more than the node has is Infeasible, more than others
leave is Deferred until they leave it. What is granted is then applied: bounds of running containers are changed in
place, or the container is restarted where its resizePolicy says so. The conditions PodResizePending and
PodResizeInProgress tell.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from knarr.api.core.pod_amounts import pod_requests
from knarr.api.core.v1 import Container, ContainerStatus, Pod, PodCondition, PodSpec, ResourceRequirements
from knarr.api.quantity import milli, whole
from knarr.api.types import Quantity, replace
from knarr.node.resources import PodBounds, container_resources, is_sidecar
from knarr.node.runtime import contract
from knarr.node.runtime.contract import ContainerState, Resources, Runtime, Sandbox

PENDING, IN_PROGRESS = "PodResizePending", "PodResizeInProgress"
CONDITIONS = (PENDING, IN_PROGRESS)
AGAIN_S = 10.0
"""A resize that waits for others, or that failed, is tried again after so long."""

Tell = Callable[[str, str, str], None]
"""Records an event: type, reason, message."""


class Resizing:
    """What one pod is granted, and how far it has come."""

    def __init__(
        self,
        before: Mapping[str, ContainerStatus],
        allocatable: Mapping[str, Quantity],
        used_by_others: Callable[[], tuple[int, int]],
        tell: Tell,
    ) -> None:
        """`before`: what the API says of the containers, for those that ran before the agent did.

        `used_by_others`: what the other pods of the node request: thousandths of a core, bytes.
        """
        self._allocatable = allocatable
        self._used_by_others = used_by_others
        self._tell = tell
        self._granted = {name: one.resources for name, one in before.items() if one.resources is not None}
        self.pending: tuple[str, str] | None = None
        """Why what is asked for isn't granted: reason and message."""
        self.error = ""
        """Why what is granted could not be applied."""
        self._in_progress = False

    def granted(self, pod: Pod) -> Pod:
        """The pod as the node takes it: with the amounts that it grants."""
        spec = pod.spec
        assert spec
        asked = {each.name: each.resources or ResourceRequirements() for each in resizable(spec)}
        fresh = {name for name in asked if name not in self._granted}
        changed = {name for name in asked if name not in fresh and not _same(asked[name], self._granted[name])}
        if changed:
            self._decide(pod, asked)
        else:
            self.pending = None
        for name in fresh:
            self._granted[name] = asked[name]
        if not changed or self.pending is None:
            return pod
        return replace(
            pod,
            spec=replace(
                spec,
                containers=[self._with_granted(each) for each in spec.containers],
                init_containers=[self._with_granted(each) for each in spec.init_containers],
            ),
        )

    def _decide(self, pod: Pod, asked: dict[str, ResourceRequirements]) -> None:
        assert pod.spec
        before, self.pending = self.pending, refusal(pod.spec, self._allocatable, *self._used_by_others())
        told = _told(pod, asked)
        if self.pending is None:
            self._granted.update(asked)
            self._in_progress = True
            self._tell("Normal", "ResizeStarted", f"Pod resize started: {json.dumps(told, separators=(',', ':'))}")
        elif self.pending != before:
            reason, message = self.pending
            text = json.dumps(told | {"error": message}, separators=(",", ":"))
            self._tell("Warning", f"Resize{reason}", f"Pod resize {reason}: {text}")

    def _with_granted(self, container: Container) -> Container:
        granted = self._granted.get(container.name)
        return container if granted is None else replace(container, resources=granted)

    def progressed(self, pod: Pod, actual: Mapping[str, Resources]) -> None:
        """`actual`: the bounds of the containers that run. Tells when all is as it was granted."""
        assert pod.spec
        missing = [each for each in resizable(pod.spec) if each.name in actual and _differs(each, actual[each.name])]
        if missing:
            self._in_progress = True
        elif self._in_progress:
            self._in_progress, self.error = False, ""
            asked = {each.name: each.resources or ResourceRequirements() for each in resizable(pod.spec)}
            text = json.dumps(_told(pod, asked), separators=(",", ":"))
            self._tell("Normal", "ResizeCompleted", f"Pod resize completed: {text}")

    def conditions(self) -> list[PodCondition]:
        """Those that hold now."""
        found = []
        if self._in_progress:
            reason = "Error" if self.error else None
            found.append(PodCondition(type=IN_PROGRESS, status="True", reason=reason, message=self.error or None))
        if self.pending is not None:
            reason, message = self.pending
            found.append(PodCondition(type=PENDING, status="True", reason=reason, message=message))
        return found


async def change_bounds(
    runtime: Runtime, sandbox: Sandbox, container_id: str, wanted: Resources, of_pod: PodBounds
) -> None:
    """Apply what is granted to one container. Raises RuntimeFailure.

    The pod's own bounds make room before its containers grow, and shrink after them.
    """
    has = sandbox.config
    await runtime.bound_sandbox(
        sandbox.id,
        cpu_shares=of_pod.cpu_shares,
        cpu_quota_us=_larger(of_pod.cpu_quota_us, has.cpu_quota_us),
        memory_limit_bytes=_larger(of_pod.memory_limit_bytes, has.memory_limit_bytes),
    )
    await runtime.update_container(container_id, wanted)
    await runtime.bound_sandbox(
        sandbox.id,
        cpu_shares=of_pod.cpu_shares,
        cpu_quota_us=of_pod.cpu_quota_us,
        memory_limit_bytes=of_pod.memory_limit_bytes,
    )


def resizable(spec: PodSpec) -> Iterable[Container]:
    """Containers whose amounts may change while they run."""
    return (*(each for each in spec.init_containers if is_sidecar(each)), *spec.containers)


def refusal(spec: PodSpec, allocatable: Mapping[str, Quantity], cpu: int, memory: int) -> tuple[str, str] | None:
    """Why the node can't grant what a pod requests: reason and message. `cpu`, `memory`: what others have of it."""
    requests = pod_requests(spec)
    amounts = (
        ("memory", whole(requests.get("memory", 0)), memory, whole(allocatable.get("memory", 0))),
        ("cpu", milli(requests.get("cpu", 0)), cpu, milli(allocatable.get("cpu", 0))),
    )
    for name, wanted, _, capacity in amounts:
        if wanted > capacity:
            return "Infeasible", f"Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {capacity}"
    for name, wanted, used, capacity in reversed(amounts):
        if wanted + used > capacity:
            detail = f"{name}, requested: {wanted}, used: {used}, capacity: {capacity}"
            return "Deferred", f"Node didn't have enough resource: {detail}"
    return None


def sizes_by_restart(spec: PodSpec, container: Container, run: contract.Container) -> bool:
    """Whether a container that runs is to be restarted for the bounds that it is granted."""
    sizes = any(container.name == each.name for each in resizable(spec))
    return sizes and run.state is ContainerState.RUNNING and needs_restart(container, run.resources)


def needs_restart(container: Container, actual: Resources) -> bool:
    """Whether the change of its bounds is one that its resizePolicy wants a restart for."""
    wanted = container_resources(container)
    changed = set()
    if (wanted.cpu_shares, wanted.cpu_quota_us) != (actual.cpu_shares, actual.cpu_quota_us):
        changed.add("cpu")
    if wanted.memory_limit_bytes != actual.memory_limit_bytes:
        changed.add("memory")
    return any(
        each.resource_name in changed and each.restart_policy == "RestartContainer" for each in container.resize_policy
    )


def _larger(one: int | None, other: int | None) -> int | None:
    """Of two bounds, of which None is none at all."""
    return None if one is None or other is None else max(one, other)


def _differs(container: Container, actual: Resources) -> bool:
    return container_resources(container) != actual


def _same(one: ResourceRequirements, other: ResourceRequirements) -> bool:
    """By their values: 1000m is 1."""
    return all(
        {name: milli(amount) for name, amount in getattr(one, what).items() if name in ("cpu", "memory")}
        == {name: milli(amount) for name, amount in getattr(other, what).items() if name in ("cpu", "memory")}
        for what in ("requests", "limits")
    )


def _told(pod: Pod, asked: Mapping[str, ResourceRequirements]) -> dict[str, Any]:
    """What events say of a resize."""
    containers = [{"name": name, "resources": msgspec.to_builtins(each)} for name, each in asked.items()]
    return {"containers": containers, "generation": pod.metadata.generation}
