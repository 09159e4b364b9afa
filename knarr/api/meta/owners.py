"""Owner references: who manages an object, and what a controller's selector selects."""

from __future__ import annotations

from typing import Any

from knarr.api.meta.v1 import LabelSelector, OwnerReference
from knarr.api.selectors import Selector, selector_of


def controller_of(obj: Any) -> OwnerReference | None:
    """The owner that manages `obj`, if one does."""
    for reference in obj.metadata.owner_references:
        if reference.controller:
            return reference  # type: ignore[no-any-return]
    return None


def owner_reference(owner: Any) -> OwnerReference:
    """The reference by which `owner` controls another object."""
    return OwnerReference(
        api_version=owner.api_version,
        kind=owner.kind,
        name=owner.metadata.name,
        uid=owner.metadata.uid,
        controller=True,
        block_owner_deletion=True,
    )


def selects_everything(selector: LabelSelector) -> bool:
    return not selector.match_labels and not selector.match_expressions


def selector_for(selector: LabelSelector | None) -> Selector | None:
    """The selector, or None when it selects nothing (or can't be understood: validation keeps such out)."""
    try:
        return selector_of(selector)
    except ValueError:
        return None
