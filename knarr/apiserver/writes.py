"""Writing: create, replace, patch, delete, and deleting many at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from knarr.api.decode import convert, decoder
from knarr.api.errors import BadRequest, Cause, Conflict, Invalid, NotFound
from knarr.apiserver import answers, bodies, forms
from knarr.apiserver.action import Action
from knarr.apiserver.authorize import Authorizer
from knarr.apiserver.calls import Call
from knarr.apiserver.objects import MODIFIED, Objects, Stored
from knarr.apiserver.ownership.managers import APPLY, Entries, Manager, applied, read, written
from knarr.apiserver.ownership.values import Faulty
from knarr.apiserver.reads import Reads
from knarr.apiserver.requests import flag
from knarr.apiserver.selection import Selection
from knarr.client.client import APPLY_PATCH
from knarr.client.transport import Answer
from knarr.clock import Clock
from knarr.store.contract import Mismatch, Store

COLLISIONS_MAX = 20
"""A Service begins again this often when another takes the address meant for it."""


GONE = "the object was named by its version, and there is none"


class Writes:
    """The handlers of POST, PUT, PATCH and DELETE."""

    def __init__(self, store: Store, objects: Objects, reads: Reads, clock: Clock, authorizer: Authorizer) -> None:
        self._store = store
        self._objects = objects
        self._reads = reads
        self._clock = clock
        self._authorizer = authorizer

    async def create(self, call: Call) -> Answer:
        """Raises AlreadyExists, Invalid, Forbidden, BadRequest."""
        if call.path.name:
            raise answers.method_not_allowed()
        dry_run = call.dry_run
        for _ in range(COLLISIONS_MAX):
            read, warnings = bodies.object_of(call, call.resource.type)
            obj = _to_kept(call, read)
            try:
                stored = await self._objects.create(
                    call.kept, call.path.namespace, obj, call.user, manager=call.manager(), dry_run=dry_run
                )
            except Mismatch:
                continue  # Another Service took the address: choose again, or say that it is taken.
            return self._shown(call, stored, warnings)
        raise Conflict("the addresses of the Service were taken by others at the same time; try again")

    async def update(self, call: Call) -> Answer:
        """Replace an object. Raises NotFound, Conflict, Invalid, Forbidden, BadRequest."""
        path = call.path
        read, warnings = bodies.object_of(call, call.resource.type)
        name = read.metadata.name
        if not name:
            read.metadata.name = path.name
        elif name != path.name:
            raise BadRequest(f"the name of the object ({name}) does not match the name on the URL ({path.name})")
        body = msgspec.json.encode(read)
        decode = decoder(call.resource.type).decode
        try:
            stored = await self.change(call, lambda old, value: _to_kept(call, decode(body), old), call.manager())
        except NotFound:
            if not call.resource.strategy.allow_create_on_update or path.subresource:
                raise
            await self._may_create(call)
            stored = await self._objects.create(
                call.kept,
                path.namespace,
                _to_kept(call, read),
                call.user,
                manager=call.manager(),
                dry_run=call.dry_run,
            )
        return self._shown(call, stored, warnings)

    async def patch(self, call: Call) -> Answer:
        """Change a part of an object. Raises NotFound, Conflict, Invalid, Forbidden, BadRequest."""
        if bodies.media_type(call) == APPLY_PATCH:
            return await self.apply(call)
        if "force" in call.query:
            cause = Cause("FieldValueForbidden", "force", "Forbidden: may not be specified for non-apply patch")
            raise Invalid.of("meta.k8s.io", "PatchOptions", "", [cause])
        resource = call.resource
        warnings: list[str] = []
        patch = bodies.patch_of(call, resource.type)

        def change(old: Any, value: bytes) -> Any:
            obj, found = patch(msgspec.json.decode(call.presented(value)))
            warnings[:] = found
            if (name := obj.metadata.name) != call.path.name:
                raise BadRequest(
                    f"the name of the object ({name}) does not match the name on the URL ({call.path.name})"
                )
            if obj.metadata.resource_version == old.metadata.resource_version and not _names_version(call.request.body):
                obj.metadata.resource_version = None
            return _to_kept(call, obj, old)

        return self._shown(call, await self.change(call, change, call.manager(), repeated=True), warnings)

    async def apply(self, call: Call) -> Answer:
        """Server-side apply. Raises Conflict when others own what would change, and what `patch` raises."""
        resource, path = call.resource, call.path
        config, warnings = bodies.applied_of(call)
        metadata = config["metadata"]
        manager, force = call.manager(APPLY), flag(call.query, "force")
        revision = metadata.get("resourceVersion")

        def result_on(live: dict[str, Any], entries: Entries, old: Any = None) -> Any:
            try:
                made = applied(manager, call.kept, live, config, entries, force=force, now_s=self._clock.time_s())
            except Faulty as fault:
                name = f"{path.namespace}/{path.name}; {resource.group_version}, Kind={resource.kind}"
                raise BadRequest(f"failed to create typed patch object ({name}): {fault}") from None
            try:
                obj = decoder(resource.type).decode(msgspec.json.encode(made.data))
            except (msgspec.DecodeError, ValueError):
                obj, _ = convert(resource.type, made.data, validation="Ignore")
            obj.metadata.managed_fields = written(made.entries)
            obj.metadata.resource_version = revision
            return _to_kept(call, obj, old)

        def change(old: Any, value: bytes) -> Any:
            live = msgspec.json.decode(call.presented(value))
            live["metadata"].pop("managedFields", None)
            return result_on(live, read(old.metadata.managed_fields), old)

        try:
            stored = await self.change(call, change, None, repeated=True)
        except NotFound:
            if path.subresource:
                raise
            await self._may_create(call)
            if not metadata.get("name"):
                raise BadRequest(
                    f"the name of the object ({path.name} based on URL) was undeterminable: name must be provided"
                ) from None
            if uid := metadata.get("uid"):
                gone = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                raise Conflict.of(resource.group, resource.plural, path.name, gone) from None
            if revision:
                raise Conflict.of(resource.group, resource.plural, path.name, GONE) from None
            made = result_on({}, {})
            stored = await self._objects.create(call.kept, path.namespace, made, call.user, dry_run=call.dry_run)
        return self._shown(call, stored, warnings)

    async def _may_create(self, call: Call) -> None:
        """Whoever may update or patch may not yet create what isn't there. Raises Forbidden."""
        path = call.path
        action = Action("create", path.group, path.version, path.plural, "", path.namespace, path.name)
        await self._authorizer.authorize(call.user, action)

    async def change(
        self, call: Call, change: Callable[[Any, bytes], Any], manager: Manager | None, *, repeated: bool = False
    ) -> Stored:
        """Update an object by a function, again when the addresses that it chose were taken meanwhile."""
        path = call.path
        for _ in range(COLLISIONS_MAX):
            try:
                return await self._objects.update(
                    call.kept,
                    path.namespace,
                    path.name,
                    change,
                    call.user,
                    manager=manager,
                    subresource=path.subresource,
                    dry_run=call.dry_run,
                    repeated=repeated,
                )
            except Mismatch:
                continue
        raise Conflict.of(call.resource.group, call.resource.plural, path.name, MODIFIED)

    async def delete(self, call: Call) -> Answer:
        """Answers the object while it waits for its end, a Status when it is gone. Raises NotFound, Conflict."""
        path, resource = call.path, call.resource
        options = bodies.delete_options_of(call)
        value, gone = await self._objects.delete(call.kept, path.namespace, path.name, options, call.user)
        if not gone or resource.strategy.returns_deleted:
            return answers.shown(call, value, self._clock)
        metadata = msgspec.json.decode(value)["metadata"]
        details = {"name": path.name, "group": resource.group, "kind": resource.plural, "uid": metadata["uid"]}
        return answers.success(call.request, details={key: text for key, text in details.items() if text})

    async def delete_collection(self, call: Call) -> Answer:
        """Delete all that is selected; answers the list of it."""
        selection = Selection.of(call.resource, call.kept, call.path.namespace, "", call.query)
        options = bodies.delete_options_of(call)
        found = await self._store.range(selection.prefix)
        records = [record for record in found.records if selection.holds(record.value)]
        for record in records:
            _, namespace, name = record.key.split("/", 2)
            try:
                await self._objects.delete(call.kept, namespace, name, options, call.user)
            except NotFound:
                continue
        metadata = {"resourceVersion": str(self._store.revision)}
        return self._reads.listed(call, [record.value for record in records], metadata, forms.Accepted())

    def _shown(self, call: Call, stored: Stored, warnings: list[str]) -> Answer:
        return answers.shown(
            call, stored.value, self._clock, 201 if stored.created else 200, warnings + stored.warnings
        )


def _to_kept(call: Call, obj: Any, old: Any = None) -> Any:
    """The object as it is to be kept. A version that is converted is defaulted and checked by its own rules first.

    `old`: what is kept now, of an update."""
    resource, conversion = call.resource, call.resource.conversion
    if conversion is None:
        return obj
    strategy = resource.strategy
    strategy.default(obj)
    if call.resource.namespaced:
        obj.metadata.namespace = obj.metadata.namespace or call.path.namespace
    faults = strategy.validate_create(obj) if old is None else strategy.validate_update(obj, conversion.from_kept(old))
    if causes := list(faults):
        raise Invalid.of(call.kept.group, call.kept.kind, obj.metadata.name or "", causes)
    return conversion.to_kept(obj)


def _names_version(patch: bytes) -> bool:
    """Whether a patch itself says which version it changes."""
    return b"resourceVersion" in patch
