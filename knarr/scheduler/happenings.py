"""What happens in the cluster that may help a pod which fits nowhere (KEP-4247).

Each plugin names what can change its mind (`Aspect.helped_by`), and is asked about each such happening whether it helps
a pod that it refused (`Aspect.hint`).
"""

from __future__ import annotations

from enum import Flag, IntEnum, auto
from typing import Any

from msgspec import Struct

from knarr.api.core.v1 import Node
from knarr.scheduler.cache import NodeInfo


class What(Flag):
    """The ways in which an object can change, as far as plugins care."""

    ADDED = auto()
    CHANGED = auto()
    GONE = auto()
    ALLOCATABLE = auto()
    """Of a node."""
    LABELS = auto()
    TAINTS = auto()
    """And whether it is cordoned."""
    PLACED = auto()
    """A pod has come to a node."""
    LEFT = auto()
    """It has gone from there, or is not expected there any more."""
    SHRUNK = auto()
    """It asks for less."""


class Hint(IntEnum):
    """What to do with a pod that was refused."""

    SKIP = 0
    QUEUE = 1
    """Try it again, after its backoff."""
    AT_ONCE = 2


class Happening(Struct, frozen=True):
    """One of them. Pods are PodInfos, all else is as the API has it."""

    kind: type[Any]
    what: What
    old: Any = None
    new: Any = None
    node: NodeInfo | None = None
    """The node that it is about, if it still is there."""


def difference(old: Any, new: Any) -> What:
    if old is None:
        return What.ADDED
    return What.GONE if new is None else What.CHANGED


def node_difference(old: Node | None, new: Node) -> What:
    if old is None or old.metadata.uid != new.metadata.uid:
        return What.ADDED
    found = What(0)
    if _offered(old) != _offered(new):
        found |= What.ALLOCATABLE
    if old.metadata.labels != new.metadata.labels:
        found |= What.LABELS
    if _kept_off(old) != _kept_off(new):
        found |= What.TAINTS
    return found


def _offered(node: Node) -> tuple[object, ...] | None:
    return (node.status.allocatable, node.status.capacity) if node.status else None


def _kept_off(node: Node) -> tuple[object, ...]:
    return (node.spec.taints, bool(node.spec.unschedulable)) if node.spec else ([], False)
