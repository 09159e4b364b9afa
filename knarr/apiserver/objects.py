"""Reading and writing objects of any kind: the middle of the pipeline, between the request and the store.

A write is: default → prepare (strategy) → admit (mutating) → validate → admit (validating) → one commit. An update
that meets a newer object begins again from it, unless the client named the version it wants to change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from types import NoneType
from typing import Any, get_args

import msgspec

from knarr.api.decode import decoder
from knarr.api.errors import (
    AlreadyExists,
    BadRequest,
    Cause,
    Conflict,
    Invalid,
    NotFound,
    ServiceUnavailable,
    invalid,
)
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.metadata import validate_metadata, validate_metadata_update
from knarr.api.resources import Resource, Strategy
from knarr.api.types import replace
from knarr.apiserver.admission import Admission, Attributes, Commit
from knarr.apiserver.calls import Call
from knarr.apiserver.ownership import managers as ownership
from knarr.apiserver.ownership.managers import Manager
from knarr.client.transport import User
from knarr.clock import Clock, utc
from knarr.store.contract import Mismatch, Record, Store, StoreFailure, Write, stamp

RETRIES_MAX = 100
"""An update without a resourceVersion begins again this often when others write the same object."""
GENERATE_NAME_TRIES = 8
NAME_CHARACTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Of generated names: no vowels, so no words (upstream's util/rand)."""
GENERATED_BASE_MAX = 58
"""Characters of a generateName that are kept, so that 5 more make at most 63."""

MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"

Companions = Callable[[Any, Any], Awaitable[Sequence[Write]]]
"""companions(new, old): writes that must be in one commit with the object's (a Service's addresses)."""


class Stored(msgspec.Struct):
    """An object as it went out: its bytes, and what the client should be warned of."""

    value: bytes
    created: bool = False
    warnings: list[str] = msgspec.field(default_factory=list)


class DeleteOptions(msgspec.Struct, frozen=True):
    """metav1.DeleteOptions, read."""

    grace_period_s: int | None = None
    propagation_policy: str = ""
    uid: str | None = None
    resource_version: str | None = None
    dry_run: bool = False


class Objects:
    """Objects of all kinds in a store."""

    def __init__(self, store: Store, clock: Clock, admission: Admission) -> None:
        self.store = store
        self._clock = clock
        self.admission = admission
        self.companions: dict[type[Any], Companions] = {}

    async def record(self, resource: Resource, namespace: str, name: str) -> Record:
        """Raises NotFound."""
        record = await self.store.get(key_of(resource, namespace, name))
        if record is None:
            raise NotFound.of(resource.group, resource.plural, name)
        return record

    async def get(self, resource: Resource, namespace: str, name: str) -> Any:
        """The object, decoded. Raises NotFound."""
        return decoder(resource.type).decode((await self.record(resource, namespace, name)).value)

    async def create(
        self,
        resource: Resource,
        namespace: str,
        obj: Any,
        user: User,
        *,
        manager: Manager | None = None,
        dry_run: bool = False,
    ) -> Stored:
        """`obj` is this call's to change; `manager` will own what it sets, but for an apply, which says so itself.

        Raises AlreadyExists, Invalid, Forbidden, BadRequest.
        """
        metadata = obj.metadata
        if metadata.resource_version:
            raise BadRequest("resourceVersion should not be set on objects to be created")
        self._own_namespace(resource, namespace, metadata)
        strategy = resource.strategy
        strategy.default(obj)
        metadata.uid = _random_uid(self._clock.random.getrandbits(128))
        metadata.creation_timestamp = utc(self._clock.time_s())
        metadata.deletion_timestamp = metadata.deletion_grace_period_seconds = None
        metadata.generation = 1 if strategy.has_generation else None
        metadata.self_link = None
        if strategy.has_status and not strategy.status_at_creation:
            obj.status = _empty_status(obj)
        generated = not metadata.name and bool(metadata.generate_name)
        if generated:
            metadata.name = self._generate_name(metadata.generate_name)
        strategy.prepare_for_create(obj)
        if manager:
            metadata.managed_fields = []
            value = ownership.encoded(manager, resource, obj)
            metadata.managed_fields = ownership.created(manager, resource, value, self._clock.time_s())
        attributes = Attributes("CREATE", resource, namespace, obj, None, user, dry_run=dry_run)
        await self.admission.mutate(attributes)
        _refuse(
            resource,
            metadata.name or "",
            (*validate_metadata(metadata, resource), *strategy.validate(obj), *strategy.validate_create(obj)),
        )
        await self.admission.validate(attributes)
        warnings = [*strategy.warnings(obj, None), *attributes.warnings]
        for _ in range(GENERATE_NAME_TRIES if generated else 1):
            try:
                return Stored(await self._commit(resource, obj, None, 0, dry_run, attributes.commit), True, warnings)
            except Mismatch as mismatch:
                if mismatch.key != key_of(resource, namespace, metadata.name):
                    raise
            if generated:
                taken = metadata.name
                metadata.name = self._generate_name(metadata.generate_name)
                strategy.renamed(obj, taken)
        refused = AlreadyExists.of(resource.group, resource.plural, metadata.name)
        if generated:
            refused.message += ", the server was not able to generate a unique name for the object"
            refused.retry_after_s = 1
        raise refused

    async def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Callable[[Any, bytes], Any],
        user: User,
        *,
        manager: Manager | None = None,
        subresource: str = "",
        dry_run: bool = False,
        repeated: bool = False,
    ) -> Stored:
        """Replace an object by `change(old, its bytes)`, which must answer a new object that shares nothing with `old`.

        `manager` will own what changes, but for an apply, which says itself who owns what.
        `repeated`: the change is made anew from what is there (a patch), so it needs no version even of a kind whose
        updates must name one.

        Raises NotFound, Conflict, Invalid, Forbidden. `change` is called again when somebody else was quicker.
        """
        for _ in range(RETRIES_MAX):
            record = await self.record(resource, namespace, name)
            old = decoder(resource.type).decode(record.value)
            obj = change(old, record.value)
            pinned = self._check_version(resource, obj, old, record, repeated)
            try:
                return await self._replace(resource, namespace, obj, old, record, user, manager, subresource, dry_run)
            except Mismatch:
                if pinned:
                    break
        raise Conflict.of(resource.group, resource.plural, name, MODIFIED)

    async def transform(
        self, resource: Resource, namespace: str, name: str, change: Callable[[Any], Any], *, dry_run: bool = False
    ) -> bytes:
        """Replace an object by `change(old)` as it is: for what the server itself knows to be right (a binding)."""
        for _ in range(RETRIES_MAX):
            record = await self.record(resource, namespace, name)
            old = decoder(resource.type).decode(record.value)
            try:
                return await self._commit(resource, change(old), old, record.revision, dry_run)
            except Mismatch:
                continue
        raise Conflict.of(resource.group, resource.plural, name, MODIFIED)

    async def delete(
        self, resource: Resource, namespace: str, name: str, options: DeleteOptions, user: User
    ) -> tuple[bytes, bool]:
        """Answers the object's last form, and whether it is gone. Raises NotFound, Conflict."""
        for _ in range(RETRIES_MAX):
            record = await self.record(resource, namespace, name)
            old = decoder(resource.type).decode(record.value)
            self._check_preconditions(resource, old, record, options)
            await self.admission.admit(
                Attributes("DELETE", resource, namespace, None, old, user, dry_run=options.dry_run, name=name)
            )
            obj = self._marked_for_deletion(resource, old, options)
            try:
                if obj is None:
                    return await self._erase(resource, old, record, options.dry_run), True
                if _unstamped(obj) == _unstamped(old):
                    return record.value, False
                return await self._commit(resource, obj, old, record.revision, options.dry_run), False
            except Mismatch:
                if options.resource_version:
                    break
        raise Conflict.of(resource.group, resource.plural, name, MODIFIED)

    async def admit(self, operation: str, call: Call, obj: Any = None) -> None:
        """Ask the plugins about what is no write of an object: a CONNECT, a binding. They may change `obj`."""
        path = call.path
        await self.admission.admit(
            Attributes(operation, call.kept, path.namespace, obj, None, call.user, path.subresource, name=path.name)
        )

    async def _replace(
        self,
        resource: Resource,
        namespace: str,
        obj: Any,
        old: Any,
        record: Record,
        user: User,
        manager: Manager | None,
        subresource: str,
        dry_run: bool,
    ) -> Stored:
        strategy, metadata = resource.strategy, obj.metadata
        self._own_namespace(resource, namespace, metadata)
        _keep_what_is_ours(metadata, old.metadata)
        strategy.default(obj)
        obj, causes = _changed_part(strategy, subresource, obj, old)
        if manager:
            self._track(resource, obj, old, record, manager)
        attributes = Attributes("UPDATE", resource, namespace, obj, old, user, subresource, dry_run)
        await self.admission.mutate(attributes)
        if subresource in ("", "finalize"):
            causes = (*strategy.validate(obj), *strategy.validate_update(obj, old))
        _refuse(
            resource,
            metadata.name,
            (*validate_metadata(metadata, resource), *validate_metadata_update(metadata, old.metadata), *causes),
        )
        await self.admission.validate(attributes)
        # A status is written by programs, which nobody advises.
        warnings = [*(() if subresource else strategy.warnings(obj, old)), *attributes.warnings]
        if finished(resource, obj):
            return Stored(await self._erase(resource, obj, record, dry_run), False, warnings)
        value = _to_be_stored(obj, old, record)
        if value is None:
            return Stored(record.value, False, warnings)
        value = await self._commit(resource, obj, old, record.revision, dry_run, attributes.commit, value)
        return Stored(value, False, warnings)

    def _track(self, resource: Resource, obj: Any, old: Any, record: Record, manager: Manager) -> None:
        """Let `manager` own what changes. A client may also change managedFields itself, or have them begin anew."""
        sent, metadata, before = obj.metadata.managed_fields, obj.metadata, old.metadata.managed_fields
        known = before
        if sent and sent != before and not manager.subresource:
            known = [] if ownership.is_reset(sent) else sent if ownership.readable(sent) else before
        metadata.managed_fields = []
        if not known:
            return
        data, old_data = _plain(obj), msgspec.json.decode(record.value)
        old_data["metadata"].pop("managedFields", None)
        entries = ownership.read(known)
        changed = ownership.updated(manager, resource, old_data, data, entries, self._clock.time_s())
        metadata.managed_fields = ownership.written(entries) if changed or known is not before else before

    def _own_namespace(self, resource: Resource, namespace: str, metadata: Any) -> None:
        if not resource.namespaced:
            return
        if metadata.namespace and metadata.namespace != namespace:
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        metadata.namespace = namespace

    def _check_version(self, resource: Resource, obj: Any, old: Any, record: Record, repeated: bool) -> bool:
        """Whether the client named the version that it changes. Raises Conflict when that is no longer there."""
        metadata = obj.metadata
        name = old.metadata.name
        if metadata.uid and metadata.uid != old.metadata.uid:
            detail = f"Precondition failed: UID in precondition: {metadata.uid}, UID in object meta: {old.metadata.uid}"
            raise Conflict.of(resource.group, resource.plural, name, detail)
        if not metadata.resource_version:
            if not repeated and not resource.strategy.allow_unconditional_update:
                cause = invalid("metadata.resourceVersion", 0, "must be specified for an update")
                raise Invalid.of(resource.group, resource.kind, name, [cause])
            return False
        if metadata.resource_version != str(record.revision):
            raise Conflict.of(resource.group, resource.plural, name, MODIFIED)
        return True

    def _check_preconditions(self, resource: Resource, old: Any, record: Record, options: DeleteOptions) -> None:
        revision = str(record.revision)
        for what, wanted, there, guess in (
            ("UID", options.uid, old.metadata.uid, "The object might have been deleted and then recreated"),
            ("ResourceVersion", options.resource_version, revision, "The object might have been modified"),
        ):
            if wanted and wanted != there:
                detail = f"the {what} in the precondition ({wanted}) does not match the {what} in record ({there}). "
                raise Conflict.of(resource.group, resource.kind, old.metadata.name, detail + guess)

    def _marked_for_deletion(self, resource: Resource, old: Any, options: DeleteOptions) -> Any | None:
        """The object as it waits for its end; None when it can go at once."""
        metadata = replace(old.metadata, finalizers=_finalizers(old.metadata.finalizers, options.propagation_policy))
        grace_s = resource.strategy.graceful_period_s(old, options.grace_period_s)
        now_s = self._clock.time_s()
        if grace_s:
            before = metadata.deletion_grace_period_seconds
            if metadata.deletion_timestamp and before is not None and grace_s >= before:
                return replace(old, metadata=metadata)
            metadata.deletion_timestamp = utc(now_s) + timedelta(seconds=grace_s)
            metadata.deletion_grace_period_seconds = grace_s
        else:
            obj = replace(old, metadata=metadata)
            if not pending_finalizers(obj):
                return None
            if not metadata.deletion_timestamp or metadata.deletion_grace_period_seconds:
                metadata.deletion_timestamp = metadata.deletion_timestamp or utc(now_s)
                metadata.deletion_grace_period_seconds = 0
        if not old.metadata.deletion_timestamp and resource.strategy.has_generation:
            metadata.generation = (metadata.generation or 0) + 1
        obj = replace(old, metadata=metadata)
        if resource.kind == "Namespace":
            obj.status = replace(old.status, phase="Terminating")
        return obj

    async def _commit(
        self,
        resource: Resource,
        obj: Any,
        old: Any,
        expect: int,
        dry_run: bool,
        commit: Commit | None = None,
        value: bytes = b"",
    ) -> bytes:
        """`value`: the object's bytes, where they are at hand."""
        metadata = obj.metadata
        value = value or _unstamped(obj)
        key = key_of(resource, metadata.namespace or "", metadata.name)
        companions = self.companions.get(resource.type)
        more = await companions(obj, old) if companions else ()
        if dry_run:
            if expect == 0 and await self.store.get(key):
                raise Mismatch(key, None)
            return stamp(value, expect) if expect else value
        return stamp(value, await self._write(Write(key, value, expect), *more, commit=commit))

    async def _erase(self, resource: Resource, obj: Any, record: Record, dry_run: bool) -> bytes:
        """Remove for good; answers the object as of its deletion."""
        companions = self.companions.get(resource.type)
        more = await companions(None, obj) if companions else ()
        if dry_run:
            return record.value
        revision = await self._write(Write(record.key, None, record.revision), *more)
        return stamp(_unstamped(obj), revision)

    async def _write(self, *writes: Write, commit: Commit | None = None) -> int:
        try:
            return await (commit(writes) if commit else self.store.commit(*writes))
        except Mismatch:
            raise
        except StoreFailure as failure:
            raise ServiceUnavailable(f"the store could not write: {failure}") from failure

    def _generate_name(self, base: str) -> str:
        chance = self._clock.random
        return base[:GENERATED_BASE_MAX] + "".join(chance.choice(NAME_CHARACTERS) for _ in range(5))


def _random_uid(chance: int) -> str:
    """A random UUID (RFC 9562, version 4) of 128 bits of chance."""
    digits = f"{chance & ~_VERSION_AND_VARIANT | _VERSION_4:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


_VERSION_AND_VARIANT = 0xF << 76 | 0b11 << 62
_VERSION_4 = 4 << 76 | 0b10 << 62


def key_of(resource: Resource, namespace: str, name: str) -> str:
    return f"{resource.qualified}/{namespace if resource.namespaced else ''}/{name}"


def pending_finalizers(obj: Any) -> bool:
    """Whether somebody still has to act before the object may go."""
    spec = getattr(obj, "spec", None)
    return bool(obj.metadata.finalizers) or (obj.kind == "Namespace" and bool(spec and spec.finalizers))


def finished(resource: Resource, obj: Any) -> bool:
    """Whether an update took away the last reason for a deleted object to stay."""
    metadata = obj.metadata
    if not metadata.deletion_timestamp or pending_finalizers(obj):
        return False
    return not metadata.deletion_grace_period_seconds


def _finalizers(finalizers: list[str], policy: str) -> list[str]:
    """With those that a propagation policy asks for (metav1.DeletionPropagation)."""
    if not policy:
        return list(finalizers)
    kept = [name for name in finalizers if name not in ("orphan", "foregroundDeletion")]
    return kept + {"Orphan": ["orphan"], "Foreground": ["foregroundDeletion"]}.get(policy, [])


def _keep_what_is_ours(metadata: ObjectMeta, old: ObjectMeta) -> None:
    """What no update changes, whatever the client sent."""
    metadata.creation_timestamp = old.creation_timestamp
    metadata.deletion_timestamp = old.deletion_timestamp
    metadata.deletion_grace_period_seconds = old.deletion_grace_period_seconds
    metadata.generation = old.generation
    metadata.generate_name = old.generate_name
    metadata.uid = metadata.uid or old.uid
    metadata.self_link = None


def _changed_part(strategy: Strategy[Any], subresource: str, obj: Any, old: Any) -> tuple[Any, Iterable[Cause]]:
    """The object with no more changed than a subresource may, and what is wrong with that part of it."""
    match subresource:
        case "status":
            obj.metadata.owner_references = old.metadata.owner_references
            obj = replace(old, metadata=obj.metadata, status=obj.status or _empty_status(obj))
            strategy.prepare_for_status_update(obj, old)
            return obj, strategy.validate_status_update(obj, old)
        case "finalize":
            # The only way to take a finalizer out of the spec of a namespace, and nothing else can be changed by it.
            return replace(old, metadata=obj.metadata, spec=obj.spec), ()
        case "":
            if strategy.has_status:
                obj.status = old.status
            strategy.prepare_for_update(obj, old)
            if strategy.has_generation and _desired(obj) != _desired(old):
                obj.metadata.generation = (old.metadata.generation or 0) + 1
            return obj, ()
    strategy.prepare_for_part_update(subresource, obj, old)
    return obj, strategy.validate_part_update(subresource, obj, old)


def _to_be_stored(obj: Any, old: Any, record: Record) -> bytes | None:
    """The bytes to be stored; None when nothing changes: that somebody owns the same fields anew is no change."""
    metadata = obj.metadata
    if ownership.only_time_differs(metadata.managed_fields, old.metadata.managed_fields):
        tracked, metadata.managed_fields = metadata.managed_fields, old.metadata.managed_fields
        if stamp(_unstamped(obj), record.revision) != record.value:
            metadata.managed_fields = tracked
    value = _unstamped(obj)
    return None if stamp(value, record.revision) == record.value else value


_status_types: dict[type[Any], type[Any] | None] = {}


def _empty_status(obj: Any) -> Any:
    """What a kind's status is before anybody wrote one: upstream shows it, be it empty."""
    kind = type(obj)
    if kind not in _status_types:
        found = next((field.type for field in msgspec.structs.fields(kind) if field.name == "status"), None)
        _status_types[kind] = next((each for each in get_args(found) if each is not NoneType), found)
    empty = _status_types[kind]
    return empty() if empty is not None else None


def _desired(obj: Any) -> list[Any]:
    """All that a user declares: everything but metadata and status."""
    return [getattr(obj, name) for name in type(obj).__struct_fields__ if name not in ("metadata", "status")]


def _plain(obj: Any) -> dict[str, Any]:
    """The object as JSON data."""
    data: dict[str, Any] = msgspec.to_builtins(obj)
    return data


def _unstamped(obj: Any) -> bytes:
    """The object's bytes without its resourceVersion, as the store keeps them."""
    version = obj.metadata.resource_version
    obj.metadata.resource_version = None
    value = msgspec.json.encode(obj)
    obj.metadata.resource_version = version
    return value


def _refuse(resource: Resource, name: str, causes: Sequence[Cause]) -> None:
    if causes:
        raise Invalid.of(resource.group, resource.kind, name, causes)
