"""TokenRequest: POST to serviceaccounts/<name>/token answers a new token (KEP-1205); `kubectl create token`.

It may be bound to a pod of the account, to a Secret or to a node. A pod's token tells the node that the pod is on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from knarr.api.authentication.v1 import BoundObjectReference, TokenRequest, TokenRequestSpec, TokenRequestStatus
from knarr.api.core.v1 import Node, Pod, Secret, ServiceAccount
from knarr.api.errors import BadRequest, Conflict, InternalError, Invalid, NotFound, invalid
from knarr.api.resources import Registry
from knarr.apiserver import answers, bodies
from knarr.apiserver.admission import Attributes
from knarr.apiserver.calls import Call
from knarr.apiserver.objects import Objects
from knarr.apiserver.service_tokens import Reference, Tokens
from knarr.client.transport import Answer
from knarr.clock import Clock, utc

LIFETIME_MIN_S, LIFETIME_MAX_S = 600, 1 << 32
LIFETIME_S = 3600
"""When the request doesn't say."""
KINDS: dict[str, type[Any]] = {"Pod": Pod, "Secret": Secret, "Node": Node}


class TokenRequests:
    """Answers them."""

    def __init__(
        self,
        registry: Registry,
        objects: Objects,
        clock: Clock,
        tokens: Tokens | None,
        restrict: Callable[[Attributes], Awaitable[None]],
    ) -> None:
        """`restrict` refuses what a node may not ask for."""
        self._registry = registry
        self._objects = objects
        self._clock = clock
        self._tokens = tokens
        self._restrict = restrict

    async def answer(self, call: Call) -> Answer:
        """Raises BadRequest, Invalid, NotFound, Conflict."""
        if call.request.method != "POST":
            raise answers.method_not_allowed()
        if self._tokens is None:
            raise InternalError("this API server has no key to sign tokens with")
        namespace, name = call.path.namespace, call.path.name
        wanted, _ = bodies.object_of(call, TokenRequest)
        _check_names(wanted, namespace, name)
        about = Attributes("CREATE", call.resource, namespace, wanted, None, call.user, "token", name=name)
        await self._restrict(about)
        account: ServiceAccount = await self._objects.get(call.resource, namespace, name)
        spec = wanted.spec = wanted.spec or TokenRequestSpec()
        lifetime_s = LIFETIME_S if spec.expiration_seconds is None else spec.expiration_seconds
        _check_lifetime(lifetime_s)
        bound = await self._bound(namespace, name, spec.bound_object_ref) if spec.bound_object_ref else {}
        wanted.metadata.name, wanted.metadata.namespace = name, namespace
        wanted.metadata.creation_timestamp = utc(self._clock.time_s())
        spec.audiences = spec.audiences or list(self._tokens.audiences)
        spec.expiration_seconds = lifetime_s
        if not call.dry_run:
            token, expires_s = self._tokens.issue(account, bound, spec.audiences, lifetime_s)
            wanted.status = TokenRequestStatus(token=token, expiration_timestamp=utc(expires_s))
        return answers.encoded(msgspec.json.encode(wanted), call.request, status=201)

    async def _bound(self, namespace: str, account: str, to: BoundObjectReference) -> dict[str, Reference]:
        kind = KINDS.get(to.kind or "") if to.api_version in (None, "", "v1") else None
        if kind is None:
            raise BadRequest(f"cannot bind token to object of type {_kind(to)}")
        found = await self._objects.get(self._registry.of(kind), "" if kind is Node else namespace, to.name or "")
        if to.uid and to.uid != found.metadata.uid:
            detail = f"the UID in the bound object reference ({to.uid}) does not match the UID in record. "
            detail += "The object might have been deleted and then recreated"
            raise Conflict.of("", to.kind or "", to.name or "", detail)
        bound = {(to.kind or "").lower(): Reference(found.metadata.name, found.metadata.uid)}
        if isinstance(found, Pod):
            spec = found.spec
            if spec is None or spec.service_account_name != account:
                detail = "to pod running with different serviceaccount name."
                raise BadRequest(f'cannot bind token for serviceaccount "{account}" {detail}')
            if spec.node_name:
                bound["node"] = Reference(spec.node_name, await self._node_uid(spec.node_name))
        return bound

    async def _node_uid(self, name: str) -> str:
        """Empty when there is no such node (any more)."""
        try:
            node: Node = await self._objects.get(self._registry.of(Node), "", name)
        except NotFound:
            return ""
        return node.metadata.uid or ""


def _check_names(wanted: TokenRequest, namespace: str, name: str) -> None:
    if wanted.metadata.name not in (None, "", name):
        raise BadRequest(f"the name of the object ({wanted.metadata.name}) does not match the name on the URL ({name})")
    if wanted.metadata.namespace not in (None, "", namespace):
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")


def _check_lifetime(lifetime_s: int) -> None:
    if lifetime_s < LIFETIME_MIN_S:
        detail = "may not specify a duration less than 10 minutes"
    elif lifetime_s > LIFETIME_MAX_S:
        detail = "may not specify a duration larger than 2^32 seconds"
    else:
        return
    cause = invalid("spec.expirationSeconds", lifetime_s, detail)
    raise Invalid.of("authentication.k8s.io", "TokenRequest", "", [cause])


def _kind(to: BoundObjectReference) -> str:
    """As Go prints a GroupVersionKind."""
    group, _, version = (to.api_version or "").rpartition("/")
    return f"{group}/{version}, Kind={to.kind or ''}"
