"""Subresources that do something of their own: (type of the object, name) → the handler that answers it.

A subresource that is a part of the object (status, finalize, approval, resize, …) has no handler here: it is an
ordinary read or write of the object, and its kind's strategy says which part may change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from knarr.api.autoscaling.v1 import Scale
from knarr.api.core.v1 import Binding, Pod
from knarr.api.decode import convert
from knarr.api.errors import BadRequest, Invalid, invalid
from knarr.api.resources import Registry
from knarr.apiserver import answers, bodies, pods, scale
from knarr.apiserver.calls import Call
from knarr.apiserver.objects import Objects
from knarr.apiserver.ownership.managers import APPLY, applied, read, written
from knarr.apiserver.port_forward import port_forward
from knarr.apiserver.requests import ResourcePath, flag
from knarr.apiserver.writes import Writes
from knarr.client.client import APPLY_PATCH
from knarr.client.nodes import NodeBackend
from knarr.client.transport import Answer
from knarr.clock import Clock

Handler = Callable[[Call], Awaitable[Answer]]


class Subresources:
    """Finds the handler of a subresource."""

    def __init__(
        self,
        registry: Registry,
        objects: Objects,
        writes: Writes,
        clock: Clock,
        nodes: Callable[[], NodeBackend | None],
    ) -> None:
        self._registry = registry
        self._objects = objects
        self._writes = writes
        self._clock = clock
        self._nodes = nodes
        self.handlers: dict[tuple[type[Any], str], Handler] = {
            (Binding, ""): self._bind_named,
            (Pod, "binding"): self._bind,
            (Pod, "log"): self._log,
            (Pod, "exec"): self._remote_command,
            (Pod, "attach"): self._remote_command,
            (Pod, "portforward"): self._port_forward,
        }
        """More may be added before the server starts."""

    def handler(self, kind: type[Any], name: str) -> Handler | None:
        """None: the subresource is a part of the object."""
        return self._scale if name == "scale" else self.handlers.get((kind, name))

    async def _scale(self, call: Call) -> Answer:
        resource, path = call.resource, call.path
        if call.request.method == "GET":
            record = await self._objects.record(resource, path.namespace, path.name)
            shown = replace(call, resource=scale.SHOWN, kept=scale.SHOWN)
            return answers.shown(shown, scale.encoded(record.value, resource.type), self._clock)
        if call.request.method == "PUT":
            wanted, _ = bodies.object_of(call, Scale)

            def change(old: Any, value: bytes) -> Any:
                return scale.with_scale(old, wanted)
        elif call.request.method == "PATCH" and bodies.media_type(call) == APPLY_PATCH:
            return await self._apply_scale(call)
        elif call.request.method == "PATCH":
            patch = bodies.patch_of(call, Scale)

            def change(old: Any, value: bytes) -> Any:
                return scale.with_scale(old, patch(msgspec.json.decode(msgspec.json.encode(scale.scale_of(old))))[0])
        else:
            raise answers.method_not_allowed()
        main = ResourcePath(path.group, path.version, path.plural, path.namespace, path.name, "")
        stored = await self._writes.change(replace(call, path=main), change, call.manager(subresource="scale"))
        return answers.encoded(scale.encoded(stored.value, resource.type), call.request)

    async def _apply_scale(self, call: Call) -> Answer:
        """Who applies a Scale owns the replicas of the object itself."""
        wanted, warnings = bodies.applied_of(call, scale.SCALE_VERSION, Scale)
        replicas = (wanted.get("spec") or {}).get("replicas")
        config = {"spec": {"replicas": replicas}} if replicas is not None else {}
        force, manager, now_s = flag(call.query, "force"), call.manager(APPLY), self._clock.time_s()

        def change(old: Any, value: bytes) -> Any:
            live, entries = msgspec.json.decode(value), read(old.metadata.managed_fields)
            live["metadata"].pop("managedFields", None)
            made = applied(
                manager, call.kept, live, config, entries, force=force, now_s=now_s, using=scale.SCALE_VERSION
            )
            shown = msgspec.to_builtins(scale.scale_of(old))
            shown["spec"] = {"replicas": made.data["spec"].get("replicas")}
            shown["metadata"] = {"resourceVersion": wanted["metadata"].get("resourceVersion")}
            changed = scale.with_scale(old, convert(Scale, shown, validation="Ignore")[0])
            changed.metadata.managed_fields = written(made.entries)
            return changed

        main = replace(call, path=replace(call.path, subresource=""))
        stored = await self._writes.change(main, change, None, repeated=True)
        answer = answers.encoded(scale.encoded(stored.value, call.resource.type), call.request)
        answer.warnings = warnings + stored.warnings
        return answer

    async def _bind(self, call: Call) -> Answer:
        _only(call, "POST")
        binding, _ = bodies.object_of(call, Binding)
        if not binding.target.name or binding.target.kind not in (None, "", "Node"):
            cause = invalid("target.name", binding.target.name, "must be the name of a Node")
            raise Invalid.of("", "Binding", call.path.name, [cause])
        await self._objects.admit("CREATE", call, binding)
        now_s = self._clock.time_s()
        await self._objects.transform(
            call.resource,
            call.path.namespace,
            call.path.name,
            lambda pod: pods.bound(pod, binding, now_s),
            dry_run=call.dry_run,
        )
        return answers.success(call.request, 201, code=201)

    async def _bind_named(self, call: Call) -> Answer:
        """A POST of the resource `bindings`, older than the subresource: the body names the pod."""
        binding, _ = bodies.object_of(call, Binding)
        if not (name := binding.metadata.name):
            raise BadRequest("name is required")
        pod = self._registry.of(Pod)
        path = ResourcePath("", "v1", pod.plural, call.path.namespace, name, "binding")
        return await self._bind(replace(call, resource=pod, kept=pod, path=path))

    async def _log(self, call: Call) -> Answer:
        _only(call, "GET")
        return await pods.log(await self._pod(call), call.request, pods.need(self._nodes()), self._clock)

    async def _remote_command(self, call: Call) -> Answer:
        _only(call, "GET", "POST")
        return pods.remote_command(await self._pod(call), call.path.subresource, call.request, pods.need(self._nodes()))

    async def _port_forward(self, call: Call) -> Answer:
        _only(call, "GET", "POST")
        return port_forward(await self._pod(call), call.request, pods.need(self._nodes()))

    async def _pod(self, call: Call) -> Pod:
        pod: Pod = await self._objects.get(call.kept, call.path.namespace, call.path.name)
        return pod


def _only(call: Call, *methods: str) -> None:
    if call.request.method not in methods:
        raise answers.method_not_allowed()
