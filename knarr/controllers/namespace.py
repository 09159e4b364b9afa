"""Namespaces: a namespace that is being deleted is emptied, and then let go.

Pods go first and everything else when no pod is left (KEP-5080), so that nothing that a running pod needs is taken away
from it. What others serve (APIServices) goes too; as long as one of them does not say what that is, a namespace stays.
What still holds it up is told in its conditions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import DecodeError, Struct, field

from knarr.api.core.v1 import Namespace, NamespaceCondition, NamespaceSpec, NamespaceStatus, Pod
from knarr.api.errors import APIError, NotFound
from knarr.api.resources import Resource
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.clock import utc

FINALIZER = "kubernetes"
CHECK_AGAIN_S = 5.0
"""Content other than pods that finalizers hold back is looked at so often; pods wake the loop when they go."""

FINE = (
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    (
        "NamespaceFinalizersRemaining",
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    ),
)
"""The conditions, in upstream's order, as they are when nothing holds the deletion up."""


class Remains(Struct):
    """What is left in a namespace, and what went wrong."""

    counts: dict[str, int] = field(default_factory=dict)
    """Objects left, by resource as upstream writes it (`pods.`)."""
    finalizers: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    undiscovered: list[str] = field(default_factory=list)
    """Versions of groups (custom.metrics.k8s.io/v1beta2) of which nobody says what they serve."""

    @property
    def nothing(self) -> bool:
        return not self.counts and not self.errors and not self.undiscovered


class Namespaces(Controller):
    """Deletion of v1 Namespaces."""

    name = "namespace-controller"
    min_interval_s = 0.05

    def watch(self) -> None:
        self.namespaces = self.informer(Namespace)
        self.pods = self.informer(Pod)
        self.on(self.namespaces, key_of)
        self.on_change(self.pods, self._key_of_gone_pod)

    async def reconcile(self, key: str) -> float | None:
        namespace = self.namespaces.get(key)
        if namespace is None or namespace.metadata.deletion_timestamp is None:
            return None
        if FINALIZER not in (namespace.spec.finalizers if namespace.spec else ()):
            return None
        if namespace.status is None or namespace.status.phase != "Terminating":
            status = replace(namespace.status or NamespaceStatus(), phase="Terminating")
            namespace = await self.client.update_status(replace(namespace, status=status))
        remains = await self._empty(key)
        namespace = await self._report(namespace, remains)
        if not remains.nothing:
            return CHECK_AGAIN_S
        await self._finalize(namespace)
        return None

    async def _empty(self, name: str) -> Remains:
        """Delete all content: the pods first, and the rest when they are gone."""
        remains = Remains()
        kinds = [r for r in self.client.registry if r.namespaced and {"delete", "list"} <= set(r.verbs)]
        for resource in sorted(kinds, key=lambda resource: resource.type is not Pod):
            await self._delete_all(resource, name, remains)
            if resource.type is Pod and not remains.nothing:
                break
        elsewhere = await self._elsewhere(remains)
        if not remains.counts.get("pods."):
            for (group, plural), path in elsewhere.items():
                await self._delete_elsewhere(f"{plural}.{group}", path.format(name), remains)
        return remains

    async def _elsewhere(self, remains: Remains) -> dict[tuple[str, str], str]:
        """What others serve that is in namespaces, in its preferred version: group and plural → path of a list."""
        found: dict[tuple[str, str], str] = {}
        own = {each.group_version for each in self.client.registry}
        try:
            groups = (await self.client.get_plain("/apis"))["groups"]
        except APIError as error:
            remains.errors.append(f"/apis: {error}")
            return found
        for version in (each["groupVersion"] for group in groups for each in group["versions"]):
            if version in own:
                continue
            try:
                plurals = _emptied(await self.client.get_plain(f"/apis/{version}"))
            except (APIError, DecodeError, AttributeError, KeyError, TypeError):
                remains.undiscovered.append(version)
                continue
            for plural in plurals:
                found.setdefault((version.partition("/")[0], plural), f"/apis/{version}/namespaces/{{}}/{plural}")
        return found

    async def _delete_elsewhere(self, kind: str, path: str, remains: Remains) -> None:
        try:
            found = (await self.client.get_plain(path)).get("items") or ()
            if found:
                await self.client.delete_plain(path)
                found = (await self.client.get_plain(path)).get("items") or ()
            finalizers = [name for each in found for name in each["metadata"].get("finalizers") or ()]
        except (APIError, DecodeError, AttributeError, KeyError, TypeError) as error:
            remains.errors.append(f"{kind}: {error}")
            return
        if found:
            remains.counts[kind] = len(found)
            remains.finalizers.update(finalizers)

    async def _delete_all(self, resource: Resource, name: str, remains: Remains) -> None:
        try:
            found = (await self.client.list(resource.type, name)).items
            if found:
                await self.client.delete_collection(resource.type, name)
                found = (await self.client.list(resource.type, name)).items
        except APIError as error:
            remains.errors.append(f"{resource.qualified}: {error}")
            return
        if found:
            remains.counts[f"{resource.plural}.{resource.group}"] = len(found)
            remains.finalizers.update(finalizer for obj in found for finalizer in obj.metadata.finalizers)

    async def _report(self, namespace: Namespace, remains: Remains) -> Namespace:
        before = namespace.status or NamespaceStatus()
        status = replace(before, conditions=conditions_of(before.conditions, remains, self.clock.time_s()))
        if status == before:
            return namespace
        return await self.client.update_status(replace(namespace, status=status))

    async def _finalize(self, namespace: Namespace) -> None:
        finalizers = [name for name in (namespace.spec or NamespaceSpec()).finalizers if name != FINALIZER]
        released = replace(namespace, spec=NamespaceSpec(finalizers=finalizers))
        try:
            await self.client.update(released, subresource="finalize")
        except NotFound:
            pass

    def _key_of_gone_pod(self, old: Pod | None, new: Pod | None) -> str | None:
        if new is not None or old is None:
            return None
        name = old.metadata.namespace or ""
        namespace = self.namespaces.get(name)
        return name if namespace and namespace.metadata.deletion_timestamp else None


def _emptied(told: dict[str, Any]) -> list[str]:
    """Of an APIResourceList, the plurals of what is in namespaces and can be deleted."""
    return [
        each["name"]
        for each in told.get("resources") or ()
        if each.get("namespaced") and "/" not in each["name"] and {"delete", "list"} <= set(each["verbs"])
    ]


def conditions_of(before: Sequence[NamespaceCondition], remains: Remains, now_s: float) -> list[NamespaceCondition]:
    """What holds the deletion up, or that nothing does."""
    trouble: dict[str, tuple[str, str]] = {}
    if failing := sorted(remains.undiscovered):
        each = ", ".join(f"{version}: stale GroupVersion discovery: {version}" for version in failing)
        message = (
            f"Discovery failed for some groups, {len(failing)} failing: "
            f"unable to retrieve the complete list of server APIs: {each}"
        )
        trouble["NamespaceDeletionDiscoveryFailure"] = ("DiscoveryFailed", message)
    if remains.errors:
        message = f"Failed to delete all resource types, {len(remains.errors)} remaining: {_list(remains.errors)}"
        trouble["NamespaceDeletionContentFailure"] = ("ContentDeletionFailed", message)
    if remains.counts:
        left = _list(f"{kind} has {count} resource instances" for kind, count in remains.counts.items())
        message = f"Some resources are remaining: {left}"
        trouble["NamespaceContentRemaining"] = ("SomeResourcesRemain", message)
    if remains.finalizers:
        left = _list(f"{name} in {count} resource instances" for name, count in remains.finalizers.items())
        message = f"Some content in the namespace has finalizers remaining: {left}"
        trouble["NamespaceFinalizersRemaining"] = ("SomeFinalizersRemain", message)

    conditions = list(before)
    for type_, reason, message in FINE:
        status = "False"
        if type_ in trouble:
            status, (reason, message) = "True", trouble[type_]
        condition = NamespaceCondition(
            type=type_, status=status, reason=reason, message=message, last_transition_time=utc(now_s)
        )
        _put(conditions, condition)
    return conditions


def _put(conditions: list[NamespaceCondition], condition: NamespaceCondition) -> None:
    for place, old in enumerate(conditions):
        if old.type == condition.type:
            if (old.status, old.reason, old.message) != (condition.status, condition.reason, condition.message):
                conditions[place] = condition
            return
    conditions.append(condition)


def _list(texts: Iterable[str]) -> str:
    return ", ".join(sorted(texts))
