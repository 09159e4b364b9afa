"""The door: every request to the API goes through `APIServer.handle`, and answers leave through it.

    authenticate → authorize → decode → default → admit (mutating) → validate → admit (validating) → store → encode

It knows nothing of HTTP connections: the TLS listener (`listener.py`) and the components of this process
(`InProcessTransport`) hand in the same `Request` and get the same `Answer`.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml

from knarr.api.authentication.v1 import TokenRequest, TokenRequestStatus
from knarr.api.autoscaling.v1 import Scale
from knarr.api.core.v1 import Binding, Pod, Service, ServiceAccount
from knarr.api.decode import convert, decode, decoder, plain_json, plain_yaml
from knarr.api.errors import (
    APIError,
    BadRequest,
    Cause,
    Conflict,
    Expired,
    InternalError,
    Invalid,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    UnsupportedMediaType,
    invalid,
    not_supported,
)
from knarr.api.meta import v1 as meta
from knarr.api.resources import Registry, Resource
from knarr.apiserver import discovery, forms, openapi, pods, protobuf, scale
from knarr.apiserver.addresses import ServiceAddresses
from knarr.apiserver.admission import Admission
from knarr.apiserver.admission.namespaces import NamespaceLifecycle
from knarr.apiserver.admission.priority import Priority
from knarr.apiserver.admission.serviceaccounts import ServiceAccountAdmission
from knarr.apiserver.admission.tolerations import DefaultTolerationSeconds
from knarr.apiserver.authenticate import Tokens, authenticate
from knarr.apiserver.authorize import authorize
from knarr.apiserver.forms import Form
from knarr.apiserver.objects import MODIFIED, DeleteOptions, Objects, Stored
from knarr.apiserver.patch import json_patch, merge_patch, strategic_merge_patch
from knarr.apiserver.requests import ResourcePath, flag, number, resource_path, revision_of
from knarr.apiserver.selection import Selection
from knarr.apiserver.watch import FUTURE_WAIT_S, Watcher, WatchOptions, too_large
from knarr.client.client import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH
from knarr.client.nodes import NodeBackend
from knarr.client.transport import Answer, Request, User
from knarr.clock import Clock, utc
from knarr.store.contract import Compacted, FutureRevision, Mismatch, Store

log = logging.getLogger(__name__)

BODY_MAX_BYTES = 3 << 20
"""Of a request, as upstream."""
COLLISIONS_MAX = 20
"""A Service begins again this often when another takes the address meant for it."""
TOKEN_LIFETIME_MIN_S, TOKEN_LIFETIME_MAX_S = 600, 1 << 32
PAGE_WITHOUT_LIMIT = 0

JSON_HEADERS = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What an API server has to be told."""

    address: str = "127.0.0.1:6443"
    """Where it can be reached, for discovery."""
    service_cidr: str = "10.96.0.0/16"
    node_ports: tuple[int, int] = (30000, 32767)


@dataclass(slots=True)
class _Call:
    """A request to a resource, taken apart."""

    request: Request
    user: User
    resource: Resource
    path: ResourcePath

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query


class APIServer:
    """One API server over a store."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        clock: Clock,
        settings: Settings = Settings(),
        *,
        tokens: Tokens | None = None,
        nodes: NodeBackend | None = None,
    ) -> None:
        self.store = store
        self.registry = registry
        self.settings = settings
        self.nodes = nodes
        self.tokens = tokens
        self._clock = clock
        addresses = ServiceAddresses(store, clock, settings.service_cidr, settings.node_ports)
        self.objects = Objects(
            store,
            clock,
            Admission(
                [
                    NamespaceLifecycle(store),
                    ServiceAccountAdmission(store, clock),
                    DefaultTolerationSeconds(),
                    Priority(),
                    addresses,
                ]
            ),
        )
        self.objects.companions[Service] = addresses.companions
        self.ready = False
        """Told by /readyz; whoever assembles the process sets it."""

    async def handle(self, request: Request) -> Answer:
        """The answer to a request; never raises."""
        try:
            return await self._answer(request)
        except APIError as error:
            return failure(error)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return failure(InternalError(f"Internal error occurred in {request.method} {request.path}; see the log"))

    async def _answer(self, request: Request) -> Answer:
        path = resource_path(request.path)
        if path is None and (answer := self._health(request)):
            return answer
        user = request.user or await authenticate(request.headers, None, self.tokens)
        authorize(user, request.method, request.path)
        if path is None:
            return self._about(request)
        resource = self.registry.by_plural(path.group, path.version, path.plural)
        if resource is None or (path.namespace and not resource.namespaced):
            raise _not_served()
        if len(request.body) > BODY_MAX_BYTES:
            raise TooLarge(f"Request entity too large: limit is {BODY_MAX_BYTES}")
        call = _Call(request, user, resource, path)
        if path.subresource:
            return await self._subresource(call)
        if path.name:
            return await self._one(call)
        return await self._collection(call)

    def _health(self, request: Request) -> Answer | None:
        """/healthz and its like, and /version: open to all, as upstream."""
        match request.path.rstrip("/"):
            case "/healthz" | "/livez" | "/readyz" as path:
                checks = {"ping": True, "log": True, "store": True}
                if path == "/readyz":
                    checks["started"] = self.ready
                well = all(checks.values())
                lines = [
                    f"[{'+' if good else '-'}]{name} {'ok' if good else 'failed'}" for name, good in checks.items()
                ]
                verdict = f"{path[1:]} check {'passed' if well else 'failed'}"
                text = "\n".join([*lines, verdict, ""]) if flag(request.query, "verbose") or not well else "ok"
                return Answer(200 if well else 500, {"content-type": "text/plain; charset=utf-8"}, text.encode())
            case "/version":
                return _json(discovery.version(), request)
        return None

    def _about(self, request: Request) -> Answer:
        """Discovery and OpenAPI."""
        if request.method not in ("GET", "HEAD"):
            raise _method_not_allowed()
        parts = request.path.strip("/").split("/")
        found: dict[str, Any] | None = None
        match parts:
            case ["api"] | ["apis"] if forms.accepted(request.headers.get("accept", "")).aggregated_discovery:
                answer = _json(discovery.aggregated(self.registry, core=parts == ["api"]), request)
                answer.headers["content-type"] = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
                return answer
            case ["api"]:
                found = discovery.core_versions(self.settings.address)
            case ["api", version]:
                found = discovery.resources(self.registry, "", version)
            case ["apis"]:
                found = discovery.groups(self.registry)
            case ["apis", group]:
                found = discovery.group(self.registry, group)
            case ["apis", group, version]:
                found = discovery.resources(self.registry, group, version)
            case ["openapi", "v2"]:
                found = openapi.swagger(self.registry)
            case ["openapi", "v3"]:
                found = openapi.index(self.registry)
            case ["openapi", "v3", *place]:
                found = openapi.document(self.registry, "/".join(place))
            case [""]:
                found = {
                    "paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz"]
                }
        if found is None:
            raise _not_served()
        return _json(found, request)

    async def _collection(self, call: _Call) -> Answer:
        match call.request.method:
            case "GET" | "HEAD":
                if flag(call.query, "watch"):
                    return await self._watch(call)
                return await self._list(call)
            case "POST":
                return await self._create(call)
            case "DELETE" if "deletecollection" in call.resource.verbs:
                return await self._delete_collection(call)
        raise _method_not_allowed()

    async def _one(self, call: _Call) -> Answer:
        path = call.path
        match call.request.method:
            case "GET" | "HEAD":
                if flag(call.query, "watch"):
                    return await self._watch(call)
                await self._reach(revision_of(call.query))
                record = await self.objects.record(call.resource, path.namespace, path.name)
                return self._shown(call, record.value)
            case "PUT":
                return await self._update(call)
            case "PATCH":
                return await self._patch(call)
            case "DELETE":
                return await self._delete(call)
        raise _method_not_allowed()

    async def _subresource(self, call: _Call) -> Answer:
        name, method = call.path.subresource, call.request.method
        if name not in call.resource.subresources or call.path.rest:
            raise _not_served()
        if name in ("status", "finalize"):
            return await self._one(call) if method in ("GET", "PUT", "PATCH") else _refuse_method()
        if name == "scale":
            return await self._scale(call)
        if name == "token" and method == "POST":
            return await self._token(call)
        if call.resource.type is Pod:
            return await self._pod_subresource(call, name, method)
        raise _method_not_allowed()

    async def _pod_subresource(self, call: _Call, name: str, method: str) -> Answer:
        path = call.path
        if name == "binding" and method == "POST":
            return await self._bind(call)
        pod = await self.objects.get(call.resource, path.namespace, path.name)
        if name == "log" and method == "GET":
            return await pods.log(pod, call.request, pods.need(self.nodes), self._clock)
        if name in ("exec", "attach") and method in ("GET", "POST"):
            return pods.remote_command(pod, name, call.request, pods.need(self.nodes))
        if name == "portforward" and method in ("GET", "POST"):
            return pods.port_forward(pod, call.request, pods.need(self.nodes))
        raise _method_not_allowed()

    # Reads

    async def _list(self, call: _Call) -> Answer:
        resource, query = call.resource, call.query
        selection = Selection.of(resource, call.path.namespace, "", query)
        limit = max(number(query, "limit") or 0, PAGE_WITHOUT_LIMIT)
        revision, after, token = await self._list_from(query)
        accepted = forms.accepted(call.request.headers.get("accept", ""))
        try:
            found = await self.store.range(
                selection.prefix, revision=revision, after=after, limit=limit if selection.everything else 0
            )
        except Compacted as gone:
            what = "The provided continue parameter" if token else "The resourceVersion for the provided list"
            raise Expired(f"{what} is too old: {gone}") from None
        except FutureRevision as early:
            raise too_large(revision, early.current) from None
        records, more, remaining = list(found.records), found.more, found.remaining
        if not selection.everything:
            records = [record for record in records if selection.holds(record.value)]
            if limit and len(records) > limit:
                records, more, remaining = records[:limit], True, 0
        metadata: dict[str, Any] = {"resourceVersion": str(found.revision)}
        if more:
            metadata["continue"] = _continue_token(found.revision, records[-1].key)
            if remaining:
                metadata["remainingItemCount"] = remaining
        values = [record.value for record in records]
        return self._listed(call, values, metadata, accepted)

    async def _list_from(self, query: Mapping[str, str]) -> tuple[int, str, bool]:
        """Revision (0: now), key to go on after, and whether a continue token said so."""
        revision = revision_of(query)
        match = query.get("resourceVersionMatch", "")
        if token := query.get("continue"):
            if revision:
                raise BadRequest("specifying resource version is not allowed when using continue")
            return (*_read_continue_token(token), True)
        if match and revision is None:
            cause = Cause(
                "FieldValueForbidden",
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            )
            raise Invalid.of("meta.k8s.io", "ListOptions", "", [cause])
        if match not in ("", "Exact", "NotOlderThan"):
            cause = not_supported("resourceVersionMatch", match, ("Exact", "NotOlderThan"))
            raise Invalid.of("meta.k8s.io", "ListOptions", "", [cause])
        if match == "Exact" and revision == 0:
            cause = Cause(
                "FieldValueForbidden",
                "resourceVersionMatch",
                'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
            )
            raise Invalid.of("meta.k8s.io", "ListOptions", "", [cause])
        await self._reach(revision)
        return (revision or 0) if match == "Exact" else 0, "", False

    async def _reach(self, revision: int | None) -> None:
        """Wait a little for a revision that a client has seen elsewhere. Raises Timeout."""
        if revision and revision > self.store.revision and not await self.store.wait_for(revision, FUTURE_WAIT_S):
            raise too_large(revision, self.store.revision)

    def _listed(self, call: _Call, values: list[bytes], metadata: dict[str, Any], accepted: forms.Accepted) -> Answer:
        resource = call.resource
        if accepted.form is Form.TABLE:
            include = call.query.get("includeObject", "Metadata")
            body = forms.table(resource, values, self._clock.time_s(), include, metadata)
            return _pretty(Answer(200, dict(JSON_HEADERS), body), call.request)
        if accepted.form is Form.METADATA:
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
            items = [forms.metadata_only(value) for value in values]
        else:
            head = {"kind": f"{resource.kind}List", "apiVersion": resource.group_version, "metadata": metadata}
            start = len(_type_prefix(resource))
            items = [b"{" + value[start:] for value in values] if len(values) < 2 else []
            if not items and values:
                # The usual long list: its bytes are copied twice and no more.
                parts = [value[start:] for value in values]
                parts[0] = msgspec.json.encode(head)[:-1] + b',"items":[{' + parts[0]
                parts[-1] += b"]}"
                return self._encoded(b",{".join(parts), call, accepted)
        body = msgspec.json.encode(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"
        return self._encoded(body, call, accepted)

    async def _watch(self, call: _Call) -> Answer:
        query = call.query
        accepted = forms.accepted(call.request.headers.get("accept", ""))
        selection = Selection.of(call.resource, call.path.namespace, call.path.name, query)
        options = WatchOptions.of(query, self._clock)
        include = query.get("includeObject", "Metadata")
        watcher = Watcher(self.store, self._clock, selection, options, accepted.form, include)
        return Answer(200, dict(JSON_HEADERS), stream=await watcher.stream())

    # Writes

    async def _create(self, call: _Call) -> Answer:
        if "create" not in call.resource.verbs or call.path.name:
            raise _method_not_allowed()
        dry_run = _dry_run(call.query)
        for _ in range(COLLISIONS_MAX):
            obj, warnings = self._body(call, call.resource.type)
            try:
                stored = await self.objects.create(call.resource, call.path.namespace, obj, call.user, dry_run=dry_run)
            except Mismatch:
                continue  # Another Service took the address: choose again, or say that it is taken.
            return self._shown(call, stored.value, 201, warnings + stored.warnings)
        raise Conflict("the addresses of the Service were taken by others at the same time; try again")

    async def _update(self, call: _Call) -> Answer:
        resource, path = call.resource, call.path
        obj, warnings = self._body(call, resource.type)
        name = obj.metadata.name
        if not name:
            obj.metadata.name = path.name
        elif name != path.name:
            raise BadRequest(f"the name of the object ({name}) does not match the name on the URL ({path.name})")
        body = msgspec.json.encode(obj)

        def change(old: Any, value: bytes) -> Any:
            return decoder(resource.type).decode(body)

        try:
            stored = await self._change(call, change)
        except NotFound:
            if not resource.strategy.allow_create_on_update or path.subresource:
                raise
            stored = await self.objects.create(resource, path.namespace, obj, call.user, dry_run=_dry_run(call.query))
        return self._shown(call, stored.value, 201 if stored.created else 200, warnings + stored.warnings)

    async def _patch(self, call: _Call) -> Answer:
        resource = call.resource
        warnings: list[str] = []
        validation = _validation(call.query)
        apply = self._patcher(call, resource.type)

        def change(old: Any, value: bytes) -> Any:
            patched = apply(msgspec.json.decode(value))
            if not isinstance(patched, dict):
                raise BadRequest("the patched object is no object")
            try:
                obj, found = convert(resource.type, patched, validation=validation)
            except BadRequest as error:
                # What a patch makes of an object is the object's fault: 422, where a body would be a 400.
                cause = Cause("FieldValueInvalid", "patch", f"Invalid value: {error.message}")
                raise Invalid.of(resource.group, resource.kind, call.path.name, [cause]) from None
            warnings[:] = found
            if obj.metadata.name != old.metadata.name:
                cause = invalid("metadata.name", obj.metadata.name, "field is immutable")
                raise Invalid.of(resource.group, resource.kind, call.path.name, [cause])
            if obj.metadata.resource_version == old.metadata.resource_version and not _names_version(call.request.body):
                obj.metadata.resource_version = None
            return obj

        stored = await self._change(call, change)
        return self._shown(call, stored.value, 200, warnings + stored.warnings)

    async def _change(self, call: _Call, change: Callable[[Any, bytes], Any]) -> Stored:
        path = call.path
        for _ in range(COLLISIONS_MAX):
            try:
                return await self.objects.update(
                    call.resource,
                    path.namespace,
                    path.name,
                    change,
                    call.user,
                    subresource=path.subresource,
                    dry_run=_dry_run(call.query),
                )
            except Mismatch:
                continue
        raise Conflict.of(call.resource.group, call.resource.plural, path.name, MODIFIED)

    def _patcher(self, call: _Call, kind: type[Any]) -> Callable[[Any], Any]:
        """The function that applies the body of a PATCH to plain data."""
        body = call.request.body
        media = call.request.headers.get("content-type", "").partition(";")[0].strip()
        if media == JSON_PATCH:
            return lambda data: json_patch(data, body)
        if media == MERGE_PATCH:
            patch = plain_json(body)
            return lambda data: merge_patch(data, patch)
        if media == STRATEGIC_MERGE_PATCH:
            patch = plain_json(body)
            return lambda data: strategic_merge_patch(kind, data, patch)
        offered = f"{JSON_PATCH}, {MERGE_PATCH}, {STRATEGIC_MERGE_PATCH}"
        raise UnsupportedMediaType(
            f"the body of the request was in an unknown format - accepted media types include: {offered}"
        )

    async def _delete(self, call: _Call) -> Answer:
        path, resource = call.path, call.resource
        options = self._delete_options(call)
        value, gone = await self.objects.delete(resource, path.namespace, path.name, options, call.user)
        if not gone or resource.strategy.returns_deleted:
            return self._shown(call, value)
        metadata = msgspec.json.decode(value)["metadata"]
        details = {"name": path.name, "group": resource.group, "kind": resource.plural, "uid": metadata["uid"]}
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        details = {key: text for key, text in details.items() if text}
        return _json(status | {"details": details}, call.request)

    async def _delete_collection(self, call: _Call) -> Answer:
        resource = call.resource
        selection = Selection.of(resource, call.path.namespace, "", call.query)
        options = self._delete_options(call)
        found = await self.store.range(selection.prefix)
        records = [record for record in found.records if selection.holds(record.value)]
        for record in records:
            _, namespace, name = record.key.split("/", 2)
            try:
                await self.objects.delete(resource, namespace, name, options, call.user)
            except NotFound:
                continue
        metadata = {"resourceVersion": str(self.store.revision)}
        return self._listed(call, [record.value for record in records], metadata, forms.Accepted())

    def _delete_options(self, call: _Call) -> DeleteOptions:
        """From the body, or from the query. Raises BadRequest, Invalid."""
        data: dict[str, Any] = {}
        if call.request.body:
            media = call.request.headers.get("content-type", "")
            if protobuf.MEDIA_TYPE in media:
                data = protobuf.plain_protobuf(meta.DeleteOptions, call.request.body)
            else:
                data = plain_yaml(call.request.body) if "yaml" in media else plain_json(call.request.body)
            if not isinstance(data, dict) or data.get("kind", "DeleteOptions") not in (
                "DeleteOptions",
                call.resource.kind,
            ):
                raise BadRequest("the body of a DELETE must be DeleteOptions")
        asked, _ = convert(meta.DeleteOptions, data, validation="Ignore")
        grace_s = asked.grace_period_seconds
        if grace_s is None:
            grace_s = number(call.query, "gracePeriodSeconds")
        if grace_s is not None and grace_s < 0:
            raise BadRequest("gracePeriodSeconds must be a whole number, 0 or greater")
        policy = asked.propagation_policy or call.query.get("propagationPolicy") or ""
        if policy not in ("", "Background", "Foreground", "Orphan"):
            cause = not_supported("propagationPolicy", policy, ("Background", "Foreground", "Orphan"))
            raise Invalid.of("meta.k8s.io", "DeleteOptions", "", [cause])
        if asked.orphan_dependents is not None and not policy:
            policy = "Orphan" if asked.orphan_dependents else "Background"
        preconditions = asked.preconditions or meta.Preconditions()
        return DeleteOptions(
            grace_period_s=grace_s,
            propagation_policy=policy,
            uid=preconditions.uid,
            resource_version=preconditions.resource_version,
            dry_run=_dry_run(call.query) or asked.dry_run == ["All"],
        )

    # Subresources that are generic

    async def _scale(self, call: _Call) -> Answer:
        resource, path = call.resource, call.path
        if call.request.method == "GET":
            record = await self.objects.record(resource, path.namespace, path.name)
            return self._encoded(scale.encoded(record.value, resource.type), call)
        if call.request.method == "PUT":
            wanted, _ = self._body(call, Scale)

            def change(old: Any, value: bytes) -> Any:
                return scale.with_scale(old, wanted)
        elif call.request.method == "PATCH":
            apply = self._patcher(call, Scale)

            def change(old: Any, value: bytes) -> Any:
                data = apply(msgspec.json.decode(msgspec.json.encode(scale.scale_of(old))))
                return scale.with_scale(old, convert(Scale, data)[0])
        else:
            raise _method_not_allowed()
        main = ResourcePath(path.group, path.version, path.plural, path.namespace, path.name, "")
        stored = await self._change(_Call(call.request, call.user, resource, main), change)
        return self._encoded(scale.encoded(stored.value, resource.type), call)

    async def _bind(self, call: _Call) -> Answer:
        binding, _ = self._body(call, Binding)
        if not binding.target.name or binding.target.kind not in (None, "", "Node"):
            cause = invalid("target.name", binding.target.name, "must be the name of a Node")
            raise Invalid.of("", "Binding", call.path.name, [cause])
        now_s = self._clock.time_s()
        await self.objects.transform(
            call.resource,
            call.path.namespace,
            call.path.name,
            lambda pod: pods.bound(pod, binding, now_s),
            dry_run=_dry_run(call.query),
        )
        return _json(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, call.request, 201
        )

    async def _token(self, call: _Call) -> Answer:
        if self.tokens is None:
            raise InternalError("this API server has no key to sign tokens with")
        path = call.path
        wanted, _ = self._body(call, TokenRequest)
        account: ServiceAccount = await self.objects.get(call.resource, path.namespace, path.name)
        spec = wanted.spec
        lifetime_s = spec.expiration_seconds if spec.expiration_seconds is not None else 3600
        if not TOKEN_LIFETIME_MIN_S <= lifetime_s <= TOKEN_LIFETIME_MAX_S:
            detail = "may not specify a duration less than 10 minutes"
            if lifetime_s > TOKEN_LIFETIME_MAX_S:
                detail = "may not specify a duration larger than 2^32 seconds"
            cause = invalid("spec.expirationSeconds", lifetime_s, detail)
            raise Invalid.of("authentication.k8s.io", "TokenRequest", "", [cause])
        pod = None
        if (bound := spec.bound_object_ref) and bound.kind == "Pod":
            resource = self.registry.of(Pod)
            pod = await self.objects.get(resource, path.namespace, bound.name or "")
            if bound.uid and bound.uid != pod.metadata.uid:
                detail = f"the UID in the bound object reference ({bound.uid}) does not match the UID in record. "
                raise Conflict.of(
                    "", "pods", bound.name or "", detail + "The object might have been deleted and then recreated"
                )
        token, expires_s = self.tokens.issue(account, pod, spec.audiences, lifetime_s)
        wanted.metadata.name, wanted.metadata.namespace = path.name, path.namespace
        wanted.metadata.creation_timestamp = utc(self._clock.time_s())
        wanted.spec.audiences = wanted.spec.audiences or list(self.tokens.audiences)
        wanted.spec.expiration_seconds = lifetime_s
        wanted.status = TokenRequestStatus(token=token, expiration_timestamp=utc(expires_s))
        return self._encoded(msgspec.json.encode(wanted), call, status=201)

    # Bodies

    def _body(self, call: _Call, kind: type[Any]) -> tuple[Any, list[str]]:
        """The object in the body, of a kind. Raises BadRequest, UnsupportedMediaType."""
        media = call.request.headers.get("content-type", "application/json").partition(";")[0].strip()
        validation = _validation(call.query)
        if media in ("application/json", "application/yaml", ""):
            obj, warnings = decode(
                kind, call.request.body, yaml_body=media == "application/yaml", validation=validation
            )
        elif media == protobuf.MEDIA_TYPE:
            obj, warnings = convert(kind, protobuf.plain_protobuf(kind, call.request.body), validation=validation)
        else:
            raise UnsupportedMediaType(
                "the body of the request was in an unknown format - accepted media types include: "
                f"application/json, application/yaml, {protobuf.MEDIA_TYPE}"
            )
        zero = kind()
        if (obj.api_version, obj.kind) != (zero.api_version, zero.kind):
            raise BadRequest(
                f"the API version in the data ({obj.api_version}, Kind={obj.kind}) does not match the expected "
                f"API version ({zero.api_version}, Kind={zero.kind})"
            )
        return obj, warnings

    def _shown(self, call: _Call, value: bytes, status: int = 200, warnings: list[str] | None = None) -> Answer:
        accepted = forms.accepted(call.request.headers.get("accept", ""))
        if accepted.form is not Form.OBJECT:
            include = call.query.get("includeObject", "Metadata")
            value = forms.shown(call.resource, value, accepted.form, self._clock.time_s(), include)
        answer = self._encoded(value, call, accepted, status)
        if warnings:
            answer.warnings = warnings
        return answer

    def _encoded(
        self,
        body: bytes,
        call: _Call,
        accepted: forms.Accepted = forms.Accepted(),
        status: int = 200,
    ) -> Answer:
        if accepted.yaml:
            text = yaml.safe_dump(msgspec.json.decode(body), sort_keys=False)
            return Answer(status, {"content-type": "application/yaml"}, text.encode())
        return _pretty(Answer(status, dict(JSON_HEADERS), body), call.request)


def failure(error: APIError) -> Answer:
    """The answer that an error is."""
    answer = Answer(error.code, dict(JSON_HEADERS), msgspec.json.encode(error.status()))
    if error.retry_after_s is not None:
        answer.headers["retry-after"] = str(error.retry_after_s)
    return answer


def _json(data: Any, request: Request, status: int = 200) -> Answer:
    return _pretty(Answer(status, dict(JSON_HEADERS), msgspec.json.encode(data)), request)


def _pretty(answer: Answer, request: Request) -> Answer:
    if flag(request.query, "pretty"):
        answer.body = msgspec.json.format(answer.body, indent=2)
    return answer


def _type_prefix(resource: Resource) -> bytes:
    """How the bytes of every stored object of a resource begin; left out of items of a list, as upstream does."""
    return b'{"apiVersion":"%b","kind":"%b",' % (resource.group_version.encode(), resource.kind.encode())


def _validation(query: Mapping[str, str]) -> str:
    value = query.get("fieldValidation") or "Warn"
    if value not in ("Ignore", "Warn", "Strict"):
        cause = not_supported("fieldValidation", value, ("Ignore", "Strict", "Warn"))
        raise Invalid.of("meta.k8s.io", "CreateOptions", "", [cause])
    return value


def _dry_run(query: Mapping[str, str]) -> bool:
    value = query.get("dryRun", "")
    if value not in ("", "All"):
        raise Invalid.of("meta.k8s.io", "CreateOptions", "", [not_supported("dryRun", value, ("All",))])
    return value == "All"


def _names_version(patch: bytes) -> bool:
    """Whether a patch itself says which version it changes."""
    return b"resourceVersion" in patch


def _continue_token(revision: int, key: str) -> str:
    data = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": revision, "start": key})
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _read_continue_token(token: str) -> tuple[int, str]:
    try:
        data = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if data["v"] == "meta.k8s.io/v1" and isinstance(data["rv"], int) and isinstance(data["start"], str):
            return data["rv"], data["start"]
    except (ValueError, KeyError, TypeError, msgspec.DecodeError):
        pass
    raise BadRequest("continue key is not valid")


def _not_served() -> NotFound:
    return NotFound(
        "the server could not find the requested resource",
        causes=[Cause("UnexpectedServerResponse", "", "404 page not found")],
    )


def _method_not_allowed() -> MethodNotAllowed:
    return MethodNotAllowed("the server does not allow this method on the requested resource")


def _refuse_method() -> Answer:
    raise _method_not_allowed()


class InProcessTransport:
    """A Transport to an API server in this process (see knarr.client.transport)."""

    def __init__(self, server: APIServer) -> None:
        self._server = server

    async def send(self, request: Request) -> Answer:
        return await self._server.handle(request)

    async def close(self) -> None:
        """Nothing is held."""
