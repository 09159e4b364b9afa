"""Parts of a running pod that change on their own: containers added to look into it, and what its containers may take.

`pods/NAME/ephemeralcontainers` only adds (KEP-277, `kubectl debug`); `pods/NAME/resize` changes CPU and memory of
containers, and of init containers that stay (KEP-1287). All else of such a request is passed over, or refused where
upstream refuses it (ValidatePodEphemeralContainersUpdate, ValidatePodResize).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from knarr.api.core.v1 import Container, Pod, PodSpec, PodStatus, ResourceRequirements
from knarr.api.core.validate_podspec import validate_pod_spec
from knarr.api.errors import Cause, forbidden, invalid
from knarr.api.types import Quantity, replace

RESIZED = ("cpu", "memory")
MIRROR = "kubernetes.io/config.mirror"
"""The annotation of pods that a node runs from a file of its own."""


def keep_all_but(part: str, obj: Pod, old: Pod) -> None:
    """Take only its part from a request; the rest of `obj` becomes that of `old`."""
    spec, before = obj.spec or PodSpec(), old.spec or PodSpec()
    if part == "ephemeralcontainers":
        obj.spec = replace(before, ephemeral_containers=spec.ephemeral_containers)
    elif part == "resize" and _names(spec) == _names(before):
        obj.spec = replace(
            before,
            containers=_resized(spec.containers, before.containers),
            init_containers=_resized(spec.init_containers, before.init_containers),
        )
    obj.status = old.status
    metadata, kept = obj.metadata, old.metadata
    metadata.labels, metadata.annotations = kept.labels, kept.annotations
    metadata.owner_references, metadata.finalizers = kept.owner_references, kept.finalizers
    if obj.spec != before:
        metadata.generation = (kept.generation or 0) + 1


def _names(spec: PodSpec) -> list[list[str]]:
    return [[container.name for container in part] for part in (spec.containers, spec.init_containers)]


def _resized(new: list[Container], old: list[Container]) -> list[Container]:
    return [
        replace(before, resources=container.resources, resize_policy=container.resize_policy)
        for container, before in zip(new, old, strict=True)
    ]


def validate_added_containers(obj: Pod, old: Pod) -> Iterable[Cause]:
    """Those that are there stay as they are."""
    if MIRROR in old.metadata.annotations:
        yield forbidden("", "static pods do not support ephemeral containers")
        return
    yield from validate_pod_spec(obj.spec, "spec")
    path = "spec.ephemeralContainers"
    added = {container.name: container for container in (obj.spec or PodSpec()).ephemeral_containers}
    for container in (old.spec or PodSpec()).ephemeral_containers:
        if container.name not in added:
            yield forbidden(path, f'existing ephemeral containers "{container.name}" may not be removed\n')
        elif added[container.name] != container:
            yield forbidden(path, f'existing ephemeral containers "{container.name}" may not be changed\n')


def validate_resize(obj: Pod, old: Pod, class_before: str, class_after: str) -> Iterable[Cause]:
    """`class_before` and `class_after`: the pod's class of service, which stays."""
    spec, before = obj.spec or PodSpec(), old.spec or PodSpec()
    if MIRROR in old.metadata.annotations:
        yield forbidden("", "static pods cannot be resized")
        return
    if before.os and before.os.name == "windows":
        yield forbidden("", "windows pods cannot be resized")
        return
    yield from validate_pod_spec(spec, "spec")
    if class_before != class_after:
        yield invalid("spec", class_before, "Pod QOS Class may not change as a result of resizing")
    if not _node_resizes(old.status or PodStatus()):
        yield forbidden("spec", "Pod running on node without support for resize")
    moved = list(_validate_order(spec, before))
    if moved:
        yield from moved
        return
    yield from _validate_kept(spec.containers, before.containers, "spec.containers")
    for index, (container, was) in enumerate(zip(spec.init_containers, before.init_containers, strict=True)):
        place = f"spec.initContainers[{index}]"
        if was.restart_policy == "Always":
            yield from _validate_not_removed(container, was, place)
        elif container.resources != was.resources:
            yield forbidden(f"{place}.resources", "resources for non-sidecar init containers are immutable")
    undone = replace(
        spec,
        containers=_undone(spec.containers, before.containers),
        init_containers=_undone(spec.init_containers, before.init_containers),
    )
    if undone != before:
        yield forbidden("spec", "only cpu and memory resources are mutable")


def _node_resizes(status: PodStatus) -> bool:
    """A node that can resize says what each running container was given. Before any runs, it is taken to be one."""
    running = (each for each in status.container_statuses if each.state and each.state.running)
    first = next(running, None)
    return first is None or first.resources is not None


def _validate_order(spec: PodSpec, before: PodSpec) -> Iterable[Cause]:
    for field, new, old in (
        ("containers", spec.containers, before.containers),
        ("initContainers", spec.init_containers, before.init_containers),
    ):
        if len(new) != len(old):
            yield forbidden(f"spec.{field}", f"{field} may not be added or removed on resize")
            continue
        for index, (container, was) in enumerate(zip(new, old, strict=True)):
            if container.name != was.name:
                yield forbidden(f"spec.{field}[{index}].name", f"{field} may not be renamed or reordered on resize")


def _validate_kept(new: list[Container], old: list[Container], path: str) -> Iterable[Cause]:
    for index, (container, was) in enumerate(zip(new, old, strict=True)):
        yield from _validate_not_removed(container, was, f"{path}[{index}]")


def _validate_not_removed(container: Container, was: Container, path: str) -> Iterable[Cause]:
    """Amounts rise and fall; they don't go."""
    now, before = container.resources or ResourceRequirements(), was.resources or ResourceRequirements()
    if not before.requests.keys() <= now.requests.keys():
        yield forbidden(f"{path}.resources.requests", "resource requests cannot be removed")
    if not before.limits.keys() <= now.limits.keys():
        yield forbidden(f"{path}.resources.limits", "resource limits cannot be removed")


def _undone(new: list[Container], old: list[Container]) -> list[Container]:
    """`new` with the CPU and memory of `old`, to see what else differs."""
    return [
        replace(container, resources=_with_amounts(container.resources, was.resources))
        for container, was in zip(new, old, strict=True)
    ]


def _with_amounts(new: ResourceRequirements | None, old: ResourceRequirements | None) -> ResourceRequirements | None:
    if new is None:
        return old
    old = old or ResourceRequirements()
    return replace(new, requests=_amounts(new.requests, old.requests), limits=_amounts(new.limits, old.limits))


def _amounts(new: Mapping[str, Quantity], old: Mapping[str, Quantity]) -> dict[str, Quantity]:
    others = {name: amount for name, amount in new.items() if name not in RESIZED}
    return others | {name: old[name] for name in RESIZED if name in old}
