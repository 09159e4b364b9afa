"""metadata.managedFields: one entry for each who wrote, and how a write changes them.

An apply owns what it lists; any other write owns what it changed. Whoever changes or removes a field takes it from the
others; an apply that would do so is a conflict unless it is forced.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from knarr.api.errors import Cause, Conflict, Invalid, invalid
from knarr.api.meta.v1 import ManagedFieldsEntry
from knarr.api.resources import Resource
from knarr.api.types import RawJSON
from knarr.apiserver.ownership import fieldsets
from knarr.apiserver.ownership.fieldsets import Set, difference, intersection, union, without
from knarr.apiserver.ownership.shapes import Fields, shape_of
from knarr.apiserver.ownership.values import Faulty, compared, created_fields, fields_of, merged, pruned
from knarr.clock import utc

APPLY, UPDATE = "Apply", "Update"
FIELDS_TYPE = "FieldsV1"
BEFORE_FIRST_APPLY = "before-first-apply"
ANCIENT = "ancient-changes"
UPDATERS_MAX = 10
"""Entries of updates; the oldest above that become one."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
KUBECTL = "kubectl"

NOBODYS = (
    ("f:apiVersion",),
    ("f:kind",),
    *(
        ("f:metadata", f"f:{name}")
        for name in (
            *("name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields"),
            "resourceVersion",
        )
    ),
)
"""What the server alone decides, or everybody has to say."""
RESET_BY_MAIN = (("f:status",),)
RESET_BY_STATUS = (("f:spec",), ("f:metadata", "f:labels"), ("f:metadata", "f:ownerReferences"))
"""What a write through the object, or through its status, can't change, and so can't own."""


@dataclass(frozen=True, slots=True)
class Manager:
    """Who writes, and through what."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """An applier is the same in all versions."""
        return (self.name, self.operation, "" if self.operation == APPLY else self.api_version, self.subresource)


@dataclass(slots=True)
class Entry:
    """One entry; its set is read when it is needed."""

    manager: Manager
    time: Any
    raw: bytes = b""
    """As it is written; empty when it changed since."""
    fields: Set = field(default_factory=dict)
    read: bool = True

    def set(self) -> Set:
        if not self.read:
            try:
                self.fields = fieldsets.decoded(self.raw)
            except ValueError:
                self.fields = {}
            self.read = True
        return self.fields

    def put(self, fields: Set) -> None:
        self.fields, self.read, self.raw = fields, True, b""

    def written(self) -> ManagedFieldsEntry:
        manager = self.manager
        return ManagedFieldsEntry(
            manager=manager.name or None,
            operation=manager.operation,
            api_version=manager.api_version,
            time=self.time,
            fields_type=FIELDS_TYPE,
            fields_v1=RawJSON(self.raw or fieldsets.encoded(self.fields)),
            subresource=manager.subresource or None,
        )


Entries = dict[tuple[str, str, str, str], Entry]


def read(entries: Sequence[ManagedFieldsEntry]) -> Entries:
    found: Entries = {}
    for each in entries:
        manager = Manager(each.manager or "", each.operation or "", each.api_version or "", each.subresource or "")
        found[manager.key] = Entry(manager, each.time, bytes(each.fields_v1), read=False)
    return found


def written(entries: Entries) -> list[ManagedFieldsEntry]:
    """In upstream's order."""

    def order(entry: Entry) -> tuple[Any, ...]:
        manager = entry.manager
        at_s = entry.time.timestamp() if entry.time else 0.0
        return (manager.operation, at_s, manager.name, manager.api_version, manager.subresource)

    return [entry.written() for entry in sorted(entries.values(), key=order)]


def check(entries: Sequence[ManagedFieldsEntry], resource: Resource, name: str) -> None:
    """Raises Invalid for entries of a client that nobody could read."""
    causes: list[Cause] = []
    for index, each in enumerate(entries):
        path = f"metadata.managedFields[{index}]"
        if each == ManagedFieldsEntry():
            continue
        if each.operation not in (APPLY, UPDATE):
            causes.append(invalid(f"{path}.operation", each.operation or "", "must be `Apply` or `Update`"))
        if (each.fields_type or "") not in ("", FIELDS_TYPE):
            causes.append(invalid(f"{path}.fieldsType", each.fields_type, "must be `FieldsV1`"))
        if each.manager and (fault := manager_fault(each.manager)):
            causes.append(invalid(f"{path}.manager", each.manager, fault))
    if causes:
        raise Invalid.of(resource.group, resource.kind, name, causes)


NAME_MAX_BYTES = 128


def manager_fault(name: str) -> str:
    """What is wrong with a manager's name; empty when it is well."""
    if len(name.encode()) > NAME_MAX_BYTES:
        return f"may not be more than {NAME_MAX_BYTES} bytes"
    return "" if name.isprintable() else "should only contain printable characters"


def is_reset(entries: Sequence[ManagedFieldsEntry]) -> bool:
    """[{}]: the client wants tracking to begin anew."""
    return len(entries) == 1 and entries[0] == ManagedFieldsEntry()


# Writes that are no apply


def created(manager: Manager, resource: Resource, data: dict[str, Any], now_s: float) -> list[ManagedFieldsEntry]:
    """The entries of a new object, given as plain data."""
    try:
        fields = _owned(created_fields(shape_of(resource.type), data), resource, manager.subresource)
    except Faulty:
        return []  # Items that can't be told apart: validation refuses them, or nobody can own them.
    return [Entry(manager, utc(now_s), fields=fields).written()] if fields else []


def updated(
    manager: Manager, resource: Resource, old: dict[str, Any], new: dict[str, Any], entries: Entries, now_s: float
) -> bool:
    """Change `entries` for a write that made `new` out of `old`; answers whether it did."""
    changed, removed = compared(shape_of(resource.type), old, new)
    own = _owned(changed, resource, manager.subresource)
    if not changed and not removed:
        return False
    took = union(changed, removed)
    for key, entry in list(entries.items()):
        if not intersection(entry.set(), took):
            continue
        left = difference(entry.set(), took)
        if left or (key == manager.key and own):
            entry.put(left)
        else:
            del entries[key]
    if own:
        _give(entries, manager, own, now_s)
    _cap(entries)
    return True


def _give(entries: Entries, manager: Manager, fields: Set, now_s: float) -> None:
    entry = entries.get(manager.key)
    if entry is None:
        entries[manager.key] = Entry(manager, utc(now_s), fields=fields)
        return
    entry.put(union(entry.set(), fields))
    entry.time = utc(now_s)


def _owned(fields: Set, resource: Resource, subresource: str) -> Set:
    fields = without(dict(fields), *NOBODYS)
    if subresource == "status":
        return without(fields, *RESET_BY_STATUS)
    return without(fields, *RESET_BY_MAIN) if resource.strategy.has_status and not subresource else fields


def _cap(entries: Entries) -> None:
    """Make the oldest updates one, where there are too many."""
    updates = [entry for entry in entries.values() if entry.manager.operation == UPDATE]
    over = len(updates) - UPDATERS_MAX
    if over <= 0:
        return
    updates.sort(key=lambda entry: (entry.time.timestamp() if entry.time else 0.0, entry.manager.name))
    for entry in updates[: over + 1]:
        if entry.manager.name == ANCIENT:
            continue
        del entries[entry.manager.key]
        ancient = Manager(ANCIENT, UPDATE, entry.manager.api_version, entry.manager.subresource)
        into = entries.setdefault(ancient.key, Entry(ancient, entry.time))
        into.put(union(into.set(), entry.set()))
        into.time = entry.time


# Apply


@dataclass(slots=True)
class Applied:
    """What an apply makes of an object."""

    data: dict[str, Any]
    entries: Entries


def applied(
    manager: Manager,
    resource: Resource,
    live: dict[str, Any],
    config: dict[str, Any],
    entries: Entries,
    *,
    force: bool,
    now_s: float,
) -> Applied:
    """`live` with `config` applied, and who owns what then. Raises Conflict; Faulty for data out of shape.

    `live` is {} for an object that isn't there yet. `entries` is not changed.
    """
    shape = shape_of(resource.type)
    ours = Manager(manager.name, APPLY, manager.api_version, manager.subresource)
    entries = {key: Entry(each.manager, each.time, each.raw, each.set()) for key, each in entries.items()}
    if live and not entries:
        before = Manager(BEFORE_FIRST_APPLY, UPDATE, manager.api_version)
        entries |= read(created(before, resource, live, now_s))
    last = entries[ours.key].set() if ours.key in entries else {}
    wanted = _owned(fields_of(shape, config), resource, manager.subresource)
    result = merged(shape, live, config)
    others = {key: entry for key, entry in entries.items() if key != ours.key}
    if last:
        kept = wanted
        for entry in others.values():
            kept = union(kept, entry.set())
        result = pruned(shape, result, last, kept)
    changed, removed = compared(shape, live, result)
    allowed = _owned_by_last_applied(shape, live) if manager.name == KUBECTL else {}
    _settle(others, changed, removed, allowed, force=force)
    now = utc(now_s)
    if wanted:
        before_entry = entries.get(ours.key)
        same = before_entry is not None and before_entry.set() == wanted and not changed and not removed
        others[ours.key] = Entry(ours, before_entry.time if same and before_entry else now, fields=wanted)
    if manager.name == KUBECTL and LAST_APPLIED in annotations_of(live):
        # Whoever applies on the client's side again must find what was applied last.
        text = msgspec.json.encode(config).decode() + "\n"
        metadata = result["metadata"]
        result = result | {"metadata": metadata | {"annotations": annotations_of(result) | {LAST_APPLIED: text}}}
    return Applied(result, others)


def annotations_of(data: dict[str, Any]) -> dict[str, str]:
    return (data.get("metadata") or {}).get("annotations") or {}


def _owned_by_last_applied(shape: Fields, live: dict[str, Any]) -> Set:
    """What a `kubectl apply` of the client's side set last, and what is still as it set it."""
    try:
        last = msgspec.json.decode(annotations_of(live).get(LAST_APPLIED, "{}"))
        fields = fields_of(shape, last)
        changed, removed = compared(shape, last, live)
    except (msgspec.DecodeError, Faulty, AttributeError, TypeError):
        return {}
    return difference(fields, union(changed, removed))


def _settle(others: Entries, changed: Set, removed: Set, allowed: Set, *, force: bool) -> None:
    """Take what changed from the others, or raise Conflict. What is `allowed` may be taken without force."""
    disputed = difference(changed, allowed)
    conflicts = {key: both for key, entry in others.items() if (both := intersection(entry.set(), disputed))}
    if conflicts and not force:
        raise conflict([(others[key].manager, fields) for key, fields in conflicts.items()])
    took = union(changed, removed)
    for key, entry in list(others.items()):
        if not intersection(entry.set(), took):
            continue
        left = difference(entry.set(), took)
        if left:
            entry.put(left)
        else:
            del others[key]


def conflict(found: Iterable[tuple[Manager, Set]]) -> Conflict:
    """The error that says who owns what an apply would change."""
    conflicts = [(_shown(manager), path) for manager, fields in found for path in fieldsets.paths(fields)]
    if len(conflicts) == 1:
        who, path = conflicts[0]
        message = f"Apply failed with 1 conflict: conflict with {who}: {path}"
    else:
        lines = []
        for who in sorted({who for who, _ in conflicts}):
            lines.append(f"conflicts with {who}:")
            lines += [f"- {path}" for name, path in conflicts if name == who]
        message = f"Apply failed with {len(conflicts)} conflicts: " + "\n".join(lines)
    causes = [Cause("FieldManagerConflict", path, f"conflict with {who}") for who, path in conflicts]
    return Conflict(message, causes=causes)


def _shown(manager: Manager) -> str:
    name = f'"{manager.name}"'
    if manager.subresource:
        name += f' with subresource "{manager.subresource}"'
    return f"{name} using {manager.api_version}" if manager.operation == UPDATE else name
