"""metadata.managedFields: one entry for each who wrote, and how a write changes them.

An apply owns what it lists; any other write owns what it changed. Whoever changes or removes a field takes it from the
others; an apply that would do so is a conflict unless it is forced. An object whose entries were taken away is not
tracked any more until somebody applies.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from knarr.api.decode import convert
from knarr.api.errors import Cause, Conflict
from knarr.api.meta.v1 import ManagedFieldsEntry
from knarr.api.resources import Resource
from knarr.api.types import RawJSON, replace
from knarr.apiserver.ownership import fieldsets
from knarr.apiserver.ownership.fieldsets import ITSELF, Set, difference, intersection, union
from knarr.apiserver.ownership.shapes import Fields, shape_of
from knarr.apiserver.ownership.values import Faulty, compared, fields_of, laid_over, pruned
from knarr.clock import utc

APPLY, UPDATE = "Apply", "Update"
FIELDS_TYPE = "FieldsV1"
BEFORE_FIRST_APPLY = "before-first-apply"
ANCIENT = "ancient-changes"
UPDATERS_MAX = 10
"""Entries of updates; the oldest above that become one."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
KUBECTL = "kubectl"
REMEMBERED_MAX = 1024
"""Specs and metadata whose fields are remembered: to tell them anew was a fifth of creating a pod."""
REMEMBERED = ("metadata", "spec")
"""What many objects have alike; other parts seldom come again."""
ANNOTATIONS_MAX = 256 << 10
"""What all annotations of an object may add up to."""

NOT_OWNED = frozenset(
    {"name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion"}
)
"""In the metadata: what the server alone decides, or everybody has to say."""
NOBODYS = frozenset({ITSELF} | {f"f:{name}" for name in NOT_OWNED})
NOT_BY_STATUS = frozenset({"f:labels", "f:ownerReferences"})
"""In the metadata: what a write through the status can't change, and so can't own."""


@dataclass(frozen=True, slots=True)
class Manager:
    """Who writes, and through what."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""
    versions: Mapping[str, Resource] = field(default_factory=dict, compare=False, repr=False)
    """The versions in which the kind is served, by name: others' entries may be of another than this one. Where there
    are none, all are of this one."""

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
        at_s = int(entry.time.timestamp()) if entry.time else 0
        return (manager.operation, at_s, manager.name, manager.api_version, manager.subresource)

    return [entry.written() for entry in sorted(entries.values(), key=order)]


def readable(entries: Sequence[ManagedFieldsEntry]) -> bool:
    """Whether entries that a client sent can be understood; those that can't are taken for none."""
    for each in entries:
        if each.operation not in (APPLY, UPDATE) or not each.api_version or each.fields_type != FIELDS_TYPE:
            return False
        if each.manager and manager_fault(each.manager):
            return False
        try:
            fieldsets.decoded(bytes(each.fields_v1))
        except ValueError:
            return False
    return True


NAME_MAX_BYTES = 128


def manager_fault(name: str) -> str:
    """What is wrong with a manager's name; empty when it is well."""
    if len(name.encode()) > NAME_MAX_BYTES:
        return f"may not be more than {NAME_MAX_BYTES} bytes"
    return "" if name.isprintable() else "should only contain printable characters"


def is_reset(entries: Sequence[ManagedFieldsEntry]) -> bool:
    """[{}]: the client wants tracking to begin anew."""
    return len(entries) == 1 and entries[0] == ManagedFieldsEntry()


def only_time_differs(one: Sequence[ManagedFieldsEntry], other: Sequence[ManagedFieldsEntry]) -> bool:
    """Whether entries say the same but for when; such a change alone is no reason to write an object."""
    return (
        len(one) == len(other)
        and one != other
        and all(a == b or replace(a, time=b.time) == b for a, b in zip(one, other, strict=True))
    )


# Writes that are no apply


def created(manager: Manager, resource: Resource, value: bytes, now_s: float) -> list[ManagedFieldsEntry]:
    """The entries of a new object, given as JSON of the manager's version."""
    shape = _shape(manager, resource)
    has_status, subresource = resource.strategy.has_status, manager.subresource
    nobodys = ("apiVersion", "kind", "status") if has_status and not subresource else ("apiVersion", "kind")
    fields: dict[str, msgspec.Raw] = {}
    for name, written in _parts.decode(value).items():
        if name in nobodys:
            continue
        part = bytes(written)
        if name == "metadata":
            metadata = msgspec.json.decode(part)
            part = msgspec.json.encode({key: metadata[key] for key in metadata if key not in NOT_OWNED})
        tell = _told_once if name in REMEMBERED and len(part) <= fieldsets.CACHED_MAX_BYTES else _told
        fields |= tell(shape, name, part, has_status, subresource)
    if not fields:
        return []
    return [Entry(manager, utc(now_s), msgspec.json.encode(fields, order="sorted")).written()]


def encoded(manager: Manager, resource: Resource, obj: Any) -> bytes:
    """An object that is to be kept, as JSON of the version in which the manager speaks."""
    conversion = manager.versions.get(manager.api_version, resource).conversion
    return msgspec.json.encode(conversion.from_kept(obj) if conversion else obj)


_parts = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _told(shape: Fields, name: str, part: bytes, has_status: bool, subresource: str) -> dict[str, msgspec.Raw]:
    """The fields that a part of a new object adds to it and that can be owned, as they are written."""
    added = compared(shape, {}, {name: msgspec.json.decode(part)})[0]
    owned = _ownable(added, has_status, subresource).items()
    return {element: msgspec.Raw(fieldsets.encoded(below)) for element, below in owned}


_told_once = functools.lru_cache(maxsize=REMEMBERED_MAX)(_told)
"""Pods of one template have the same."""


def updated(
    manager: Manager, resource: Resource, old: dict[str, Any], new: dict[str, Any], entries: Entries, now_s: float
) -> bool:
    """Change `entries` for a write that made `new` out of `old`; answers whether it did.

    Both are plain data of the kept version.
    """
    if not entries:
        return False
    changes = Changes(manager, resource, resource.group_version, old, new)
    changed = (changes.in_version(manager.api_version) or ({}, {}))[0]
    took = _take(entries, changes)
    if changed:
        entry = entries.setdefault(manager.key, Entry(manager, None))
        entry.put(union(entry.set(), changed))
        entry.time = utc(now_s)
    if took or changed:
        _cap(entries)
    return bool(took or changed)


class Changes:
    """What a write changed and removed, told in the version in which each manager speaks; without what it can't own."""

    def __init__(
        self, manager: Manager, resource: Resource, version: str, old: dict[str, Any], new: dict[str, Any]
    ) -> None:
        self._manager = manager
        self._resource = resource
        self._version = version
        self._old, self._new = old, new
        self._found: dict[str, tuple[Set, Set] | None] = {}

    def in_version(self, version: str) -> tuple[Set, Set] | None:
        """(changed, removed); None for a version that is not served any more."""
        if not self._manager.versions:
            version = self._version
        if version not in self._found:
            self._found[version] = self._compared(version)
        return self._found[version]

    def _compared(self, version: str) -> tuple[Set, Set] | None:
        resource, versions = self._resource, self._manager.versions
        old, new = self._old, self._new
        if version != self._version:
            if version not in versions:
                return None
            old, new = (in_version(data, versions[self._version], versions[version]) for data in (old, new))
            resource = versions[version]
        elif versions:
            resource = versions[version]
        if old == new:
            return {}, {}
        subresource = self._manager.subresource
        changed, removed = compared(shape_of(resource.type), old, new)
        return _owned(changed, self._resource, subresource), _owned(removed, self._resource, subresource)


def in_version(data: dict[str, Any], told: Resource, wanted: Resource) -> dict[str, Any]:
    """Plain data of one version of a kind, in another."""
    if told is wanted or not data:
        return data
    obj = convert(told.type, data, validation="Ignore")[0]
    if told.conversion:
        obj = told.conversion.to_kept(obj)
    if wanted.conversion:
        obj = wanted.conversion.from_kept(obj)
    made: dict[str, Any] = msgspec.to_builtins(obj)
    return made


def _shape(manager: Manager, resource: Resource) -> Fields:
    return shape_of(manager.versions.get(manager.api_version, resource).type)


def _take(entries: Entries, changes: Changes) -> bool:
    """Take from all entries what changed or went; answers whether there was anything to take."""
    took = False
    for key, entry in list(entries.items()):
        found = changes.in_version(entry.manager.api_version)
        if found is None:
            del entries[key]
            took = True
            continue
        lost = union(*found)
        if not lost or not intersection(entry.set(), lost):
            continue
        took = True
        if left := difference(entry.set(), lost):
            entry.put(left)
        else:
            del entries[key]
    return took


def _owned(fields: Set, resource: Resource, subresource: str) -> Set:
    """What of a set can be owned at all, by a write through the object or through a subresource of it."""
    return _ownable(fields, resource.strategy.has_status, subresource)


def _ownable(fields: Set, has_status: bool, subresource: str) -> Set:
    if not fields:
        return fields
    kept = {
        element: node for element, node in fields.items() if element not in ("f:apiVersion", "f:kind", "f:metadata")
    }
    metadata = fields.get("f:metadata", {})
    nobodys = NOBODYS | NOT_BY_STATUS if subresource == "status" else NOBODYS
    if metadata and (theirs := {element: node for element, node in metadata.items() if element not in nobodys}):
        kept["f:metadata"] = theirs
    if subresource == "status":
        kept.pop("f:spec", None)
    elif not subresource and has_status:
        kept.pop("f:status", None)
    return kept


def _cap(entries: Entries) -> None:
    """Make the oldest updates of a version one, where there are too many."""
    updates = [entry for entry in entries.values() if entry.manager.operation == UPDATE]
    over = len(updates) - UPDATERS_MAX
    if over <= 0:
        return

    def age(entry: Entry) -> tuple[Any, ...]:
        manager = entry.manager
        at_s = int(entry.time.timestamp()) if entry.time else 0
        return (at_s, manager.name, manager.api_version, manager.subresource)

    first_of: dict[str, Entry] = {}
    for entry in sorted(updates, key=age):
        first = first_of.setdefault(entry.manager.api_version, entry)
        if first is entry:
            continue
        if over <= 0:
            return
        over -= 1
        ancient = Manager(ANCIENT, UPDATE, entry.manager.api_version)
        del entries[entry.manager.key]
        entries.pop(first.manager.key, None)
        into = entries.setdefault(ancient.key, Entry(ancient, first.time, fields=first.set()))
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
    using: str = "",
) -> Applied:
    """`live` with `config` applied, and who owns what then; both are of the manager's version.

    `live` is {} for an object that isn't there yet. `entries` may be changed. `using` is the version that a conflict
    names instead of the manager's own. Raises Conflict; Faulty for data out of shape.
    """
    shape = _shape(manager, resource)
    if live and not entries:
        before = Manager(BEFORE_FIRST_APPLY, UPDATE, manager.api_version, "", manager.versions)
        entries = read(created(before, resource, msgspec.json.encode(live), now_s))
    ours = Manager(manager.name, APPLY, manager.api_version, manager.subresource)
    fields, result = laid_over(shape, live, config)
    wanted = _owned(fields, resource, manager.subresource)
    last = entries.pop(ours.key, None)
    if last is not None and last.set() != wanted:
        result = _pruned(manager, resource, result, last, wanted, entries)
    if live and result != live:
        changes = Changes(manager, resource, manager.api_version, live, result)
        if not force:
            _refuse_conflicts(manager, shape, live, entries, changes, using)
        _take(entries, changes)
    if wanted:
        time = utc(now_s) if result != live else last.time if last else None
        same = last is not None and last.set() == wanted and last.manager.api_version == ours.api_version
        raw = last.raw if last is not None and same else b""
        entries[ours.key] = Entry(ours, time, raw, wanted)
    if manager.name == KUBECTL and annotations_of(result).get(LAST_APPLIED):
        # Whoever applies on the client's side again must find what was applied last.
        metadata = result["metadata"]
        result = result | {
            "metadata": metadata | {"annotations": annotations_of(result) | {LAST_APPLIED: _last_applied(config)}}
        }
    return Applied(result, entries)


def _pruned(
    manager: Manager, resource: Resource, result: dict[str, Any], last: Entry, wanted: Set, others: Entries
) -> dict[str, Any]:
    """Without what the applier owned, and nobody owns now: itself neither."""
    kept = {manager.api_version: wanted}
    for entry in others.values():
        version = entry.manager.api_version if manager.versions else manager.api_version
        kept[version] = union(kept.get(version, {}), entry.set())
    told = last.manager.api_version if manager.versions else manager.api_version
    versions = manager.versions or {manager.api_version: resource}
    if told not in versions:
        return result
    if set(kept) == {told}:
        return pruned(_shape(manager, resource), result, last.set(), kept[told])  # type: ignore[no-any-return]
    # Somebody speaks of the same fields in another version: what is gone must be gone in all of them.
    then, now = versions[told], versions[manager.api_version]
    whole = in_version(result, now, then)
    left = pruned(shape_of(then.type), whole, last.set(), kept.pop(told, {}))
    for version, fields in kept.items():
        if version in versions:
            other = versions[version]
            shape = shape_of(other.type)
            before, after = in_version(whole, then, other), in_version(left, then, other)
            had, has = fields_of(shape, before), fields_of(shape, after)
            left = in_version(pruned(shape, before, difference(had, has), union(has, fields)), other, then)
    shape = shape_of(then.type)
    had, has = fields_of(shape, whole), fields_of(shape, left)
    return in_version(pruned(shape, whole, intersection(difference(had, has), last.set()), has), then, now)


def annotations_of(data: dict[str, Any]) -> dict[str, str]:
    return (data.get("metadata") or {}).get("annotations") or {}


def _last_applied(config: dict[str, Any]) -> str:
    """The annotation that `kubectl apply` of the client's side keeps; empty when it would be too large."""
    metadata = config.get("metadata") or {}
    if "annotations" in metadata:
        rest = {name: text for name, text in annotations_of(config).items() if name != LAST_APPLIED}
        config = config | {"metadata": metadata | {"annotations": rest}}
    text = msgspec.json.encode(config, order="sorted").decode() + "\n"
    return text if len(text) + sum(len(k) + len(v) for k, v in annotations_of(config).items()) < ANNOTATIONS_MAX else ""


def _owned_by_last_applied(shape: Fields, live: dict[str, Any], api_version: str) -> Set:
    """What a `kubectl apply` of the client's side set last, and what is still as it set it."""
    try:
        last = msgspec.json.decode(annotations_of(live).get(LAST_APPLIED, ""))
        if last["apiVersion"] != api_version:
            return {}
        fields = fields_of(shape, last)
        changed, removed = compared(shape, last, live)
    except (msgspec.DecodeError, Faulty, AttributeError, KeyError, TypeError, RecursionError):
        return {}
    return difference(fields, union(changed, removed))


def _refuse_conflicts(
    manager: Manager, shape: Fields, live: dict[str, Any], others: Entries, changes: Changes, using: str
) -> None:
    """Raises Conflict when others own what changes."""
    found: list[tuple[Manager, Set]] = []
    for entry in others.values():
        changed = (changes.in_version(entry.manager.api_version) or ({}, {}))[0]
        if changed and (both := intersection(entry.set(), changed)):
            found.append((entry.manager, both))
    if found and manager.name == KUBECTL and LAST_APPLIED in annotations_of(live):
        allowed = _owned_by_last_applied(shape, live, manager.api_version)
        found = [(other, left) for other, both in found if (left := difference(both, allowed))]
    if found:
        raise conflict(found, using)


def conflict(found: Iterable[tuple[Manager, Set]], using: str = "") -> Conflict:
    """The error that says who owns what an apply would change."""
    conflicts = [(_shown(manager, using), path) for manager, fields in found for path in fieldsets.paths(fields)]
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


def _shown(manager: Manager, using: str) -> str:
    name = f'"{manager.name}"'
    if manager.subresource:
        name += f' with subresource "{manager.subresource}"'
    return f"{name} using {using or manager.api_version}" if manager.operation == UPDATE else name
