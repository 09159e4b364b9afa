"""Who owns what: a controller finds its objects by selector, and marks them as its own by a controller reference.

An object without a controller that matches the selector is adopted; an owned one that no longer matches is released. A
controller that is being deleted adopts nothing, and looks at the API server itself, not at its cache, before it adopts
(upstream's controller_ref_manager).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from knarr.api.errors import Invalid, NotFound
from knarr.api.meta.owners import controller_of, owner_reference, selector_for
from knarr.api.selectors import Selector
from knarr.client.client import Client
from knarr.client.informer import Informer, key_of

T = TypeVar("T")


def owner_index(obj: Any) -> tuple[str]:
    """Index of objects by their controller: its uid, or `orphans:<namespace>` without one."""
    reference = controller_of(obj)
    return (reference.uid if reference else orphans(obj.metadata.namespace),)


def orphans(namespace: str) -> str:
    return f"orphans:{namespace}"


def owner_keys(
    owners: Informer[Any], selector: Callable[[Any], Selector | None] = lambda owner: selector_for(owner.spec.selector)
) -> Callable[[Any], str | list[str] | None]:
    """Which keys a change of an object wakes: its controller's, if that is of the kind of `owners`; without one, those
    of all in its namespace whose `selector` it matches."""

    def keys(obj: Any) -> str | list[str] | None:
        reference, namespace, labels = controller_of(obj), obj.metadata.namespace, obj.metadata.labels
        if reference:
            return f"{namespace}/{reference.name}" if reference.kind == owners.kind.__name__ else None
        if not labels:
            return None
        return [
            key_of(owner)
            for owner in owners.all(namespace)
            if owner.spec and (wanted := selector(owner)) and wanted.matches(labels)
        ]

    return keys


async def claim(
    client: Client,
    owner: Any,
    selector: Selector | None,
    owned: Iterable[T],
    loose: Iterable[T],
    finalizer: str | None = None,
) -> list[T]:
    """Those that belong to `owner` (of `owned`, which name it, and `loose`, which name no controller), after adopting
    and releasing. What is released here is gone at once, what is adopted counts at once. With a `finalizer`, what is
    adopted gets it, and what is released loses it."""
    deleted = owner.metadata.deletion_timestamp is not None
    matches = _matcher(selector)
    claimed: list[T] = []
    for obj in owned:
        if matches(obj):
            claimed.append(obj)
        elif not deleted:
            await _release(client, owner, obj, finalizer)
    if deleted:
        return claimed
    strays: list[Any] = [obj for obj in loose if matches(obj) and not is_going(obj)]
    if strays and await _is_alive(client, owner):
        for stray in strays:
            adopted: T | None = await _adopt(client, owner, stray, finalizer)
            if adopted is not None:
                claimed.append(adopted)
    return claimed


def _matcher(selector: Selector | None) -> Callable[[Any], bool]:
    """Whether an object matches. Objects from a cache share their labels, so that few are looked at."""
    if selector is None:
        return lambda obj: False
    known: dict[int, bool] = {}

    def matches(obj: Any) -> bool:
        labels = obj.metadata.labels
        found = known.get(id(labels))
        if found is None:
            found = known[id(labels)] = selector.matches(labels)
        return found

    return matches


def is_going(obj: Any) -> bool:
    """Somebody has deleted it, and it is not gone yet."""
    return obj.metadata.deletion_timestamp is not None


async def _is_alive(client: Client, owner: Any) -> bool:
    try:
        live = await client.get(type(owner), owner.metadata.name, owner.metadata.namespace)
    except NotFound:
        return False
    return live.metadata.uid == owner.metadata.uid and live.metadata.deletion_timestamp is None


async def _adopt(client: Client, owner: Any, obj: Any, finalizer: str | None) -> Any | None:
    metadata: dict[str, Any] = {"uid": obj.metadata.uid, "ownerReferences": [owner_reference(owner)]}
    patch = {"metadata": metadata | ({"finalizers": [finalizer]} if finalizer else {})}
    try:
        return await client.patch(type(obj), obj.metadata.name, patch, obj.metadata.namespace)
    except NotFound:
        return None


async def _release(client: Client, owner: Any, obj: Any, finalizer: str | None) -> None:
    reference = {"$patch": "delete", "uid": owner.metadata.uid}
    metadata: dict[str, Any] = {"uid": obj.metadata.uid, "ownerReferences": [reference]}
    patch = {"metadata": metadata | ({"$deleteFromPrimitiveList/finalizers": [finalizer]} if finalizer else {})}
    try:
        await client.patch(type(obj), obj.metadata.name, patch, obj.metadata.namespace)
    except NotFound:
        pass  # it is gone
    except Invalid:
        pass  # it has no owner any more, or another object has its name now
