"""Who owns what: a controller finds its objects by selector, and marks them as its own by a controller reference.

An object without a controller that matches the selector is adopted; an owned one that no longer matches is released. A
controller that is being deleted adopts nothing, and looks at the API server itself, not at its cache, before it adopts
(upstream's controller_ref_manager).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from knarr.api.errors import Invalid, NotFound
from knarr.api.meta.owners import controller_of, owner_reference
from knarr.api.selectors import Selector
from knarr.client.client import Client

T = TypeVar("T")


def owner_index(obj: Any) -> tuple[str]:
    """Index of objects by their controller: its uid, or `orphans:<namespace>` without one."""
    reference = controller_of(obj)
    return (reference.uid if reference else orphans(obj.metadata.namespace),)


def orphans(namespace: str) -> str:
    return f"orphans:{namespace}"


async def claim(client: Client, owner: Any, selector: Selector | None, candidates: Iterable[T]) -> list[T]:
    """Those of `candidates` that belong to `owner`, after adopting and releasing.

    What is adopted or released here counts in the next look, when the cache shows it; an adopted one counts at once.
    """
    claimed: list[T] = []
    deleted = owner.metadata.deletion_timestamp is not None
    may_adopt: bool | None = None
    for candidate in candidates:
        obj: Any = candidate
        reference = controller_of(obj)
        matches = selector is not None and selector.matches(obj.metadata.labels)
        if reference is not None:
            if reference.uid != owner.metadata.uid:
                continue
            if matches:
                claimed.append(candidate)
            elif not deleted:
                await _release(client, owner, obj)
            continue
        if deleted or not matches or obj.metadata.deletion_timestamp is not None:
            continue
        if may_adopt is None:
            may_adopt = await _is_alive(client, owner)
        if may_adopt:
            adopted: T | None = await _adopt(client, owner, obj)
            if adopted is not None:
                claimed.append(adopted)
    return claimed


async def _is_alive(client: Client, owner: Any) -> bool:
    try:
        live = await client.get(type(owner), owner.metadata.name, owner.metadata.namespace)
    except NotFound:
        return False
    return live.metadata.uid == owner.metadata.uid and live.metadata.deletion_timestamp is None


async def _adopt(client: Client, owner: Any, obj: Any) -> Any | None:
    patch = {"metadata": {"uid": obj.metadata.uid, "ownerReferences": [owner_reference(owner)]}}
    try:
        return await client.patch(type(obj), obj.metadata.name, patch, obj.metadata.namespace)
    except NotFound:
        return None


async def _release(client: Client, owner: Any, obj: Any) -> None:
    reference = {"$patch": "delete", "uid": owner.metadata.uid}
    patch = {"metadata": {"uid": obj.metadata.uid, "ownerReferences": [reference]}}
    try:
        await client.patch(type(obj), obj.metadata.name, patch, obj.metadata.namespace)
    except NotFound:
        pass  # it is gone
    except Invalid:
        pass  # it has no owner any more, or another object has its name now
