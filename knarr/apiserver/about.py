"""What a server says of itself: discovery, OpenAPI, and who issues its tokens.

Clients ask for it before anything else, and keep it: what is long carries an ETag, and is answered with 304 when the
client's copy is still good. Documents of OpenAPI v3 are asked for under a name with a hash, and may be kept for ever
(KEP-2896, KEP-3352).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import msgspec

from knarr.api.errors import NotAcceptable
from knarr.api.resources import Registry, Resource
from knarr.apiserver import answers, discovery, forms, openapi_protobuf
from knarr.apiserver.aggregator import Aggregator, Remote
from knarr.apiserver.openapi import Documents
from knarr.client.transport import Answer, Request
from knarr.clock import Clock

KEPT_S = 365 * 24 * 3600
"""How long a document under its hash may be kept; as upstream."""
JSON = "application/json"
KEYS = "/openid/v1/jwks"
OPENAPI_V2 = {JSON: JSON, "application/*": JSON, "*/*": JSON} | dict.fromkeys(
    openapi_protobuf.MEDIA_TYPES, openapi_protobuf.MEDIA_TYPE
)
OPENAPI_V3 = {JSON: JSON, "application/*": JSON, "*/*": JSON}
"""What is asked for, and what is answered."""


class About:
    """Of one API server."""

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        address: str,
        aggregator: Aggregator,
        issuer_document: Callable[[str], dict[str, Any] | None],
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._address = address
        self._aggregator = aggregator
        self._issuer_document = issuer_document
        self._documents = Documents(registry)
        self._making = asyncio.Lock()
        self._aggregated: dict[tuple[bool, str], tuple[tuple[Resource, ...], int, bytes, str]] = {}

    async def answer(self, request: Request) -> Answer:
        """The answer to a request that is about no object."""
        if request.method not in ("GET", "HEAD"):
            raise answers.method_not_allowed()
        parts = request.path.strip("/").split("/")
        match parts:
            case ["api"] | ["apis"] if version := self._accepted(request).aggregated_discovery:
                return self._discovered(request, await self._aggregator.remotes(), parts == ["api"], version)
            case ["openapi", "v2"]:
                return await self._openapi(request, "", OPENAPI_V2)
            case ["openapi", "v3", *rest] if rest:
                return await self._openapi_v3(request, "/".join(rest))
        found = self._found(request, await self._aggregator.remotes(), parts)
        if found is None:
            raise answers.not_served()
        answer = answers.encoded(msgspec.json.encode(found), request)
        if request.path.rstrip("/") == KEYS:
            answer.headers["content-type"] = "application/jwk-set+json"
        return answer

    def _found(self, request: Request, remotes: list[Remote], parts: list[str]) -> dict[str, Any] | None:
        match parts:
            case ["api"]:
                return discovery.core_versions(self._address)
            case ["api", version]:
                return discovery.resources(self._registry, "", version)
            case ["apis"]:
                return discovery.groups(self._registry, remotes)
            case ["apis", group]:
                return discovery.group(self._registry, remotes, group)
            case ["apis", group, version]:
                return discovery.resources(self._registry, group, version)
            case ["openapi", "v3"]:
                return self._documents.index(
                    {f"apis/{each.group}/{each.version}": each.openapi_url for each in remotes}
                )
            case [""]:
                return {"paths": discovery.paths(self._registry, remotes)}
        return self._issuer_document(request.path.rstrip("/"))

    @staticmethod
    def _accepted(request: Request) -> forms.Accepted:
        return forms.accepted(request.headers.get("accept", ""))

    def _discovered(self, request: Request, remotes: list[Remote], core: bool, version: str) -> Answer:
        """Aggregated discovery."""
        now, state = tuple(self._registry), self._aggregator.state
        held = self._aggregated.get((core, version))
        if held is None or held[:2] != (now, state):
            body = msgspec.json.encode(discovery.aggregated(self._registry, remotes, core=core, version=version))
            held = self._aggregated[core, version] = now, state, body, hashlib.sha512(body).hexdigest().upper()
        _, _, body, digest = held
        headers = {"cache-control": "public", "etag": f'"{digest}"', "vary": "Accept"}
        if known(request, digest):
            return Answer(304, headers)
        return answers.pretty(
            Answer(200, headers | {"content-type": discovery.AGGREGATED.format(version)}, body), request
        )

    async def _openapi_v3(self, request: Request, place: str) -> Answer:
        if not self._documents.has(place):
            raise answers.not_served()
        asked = request.query.get("hash", "")
        if asked and asked != self._documents.digest(place):
            return Answer(301, {"location": self._documents.url(place)})
        answer = await self._openapi(request, place, OPENAPI_V3)
        if asked:
            answer.headers["cache-control"] = "public, immutable"
            answer.headers["expires"] = formatdate(self._clock.time_s() + KEPT_S, usegmt=True)
        return answer

    async def _openapi(self, request: Request, place: str, media_types: dict[str, str]) -> Answer:
        """A document of OpenAPI, by its bytes."""
        media_type = chosen(request.headers.get("accept", ""), media_types)
        digest = self._documents.digest(place)
        headers = {"etag": f'"{digest}"', "vary": "Accept, Accept-Encoding"}
        if known(request, digest):
            return Answer(304, headers)
        headers["content-type"] = media_type
        compressed = forms.takes_gzip(request.headers.get("accept-encoding", ""))
        if compressed:
            headers["content-encoding"] = "gzip"
        form = place, media_type, compressed
        body = self._documents.ready(form)
        if body is None:
            async with self._making:  # It takes a while: in a thread, so that others are served meanwhile.
                body = await asyncio.to_thread(self._documents.made, form)
        return Answer(200, headers, body)


def chosen(accept: str, media_types: dict[str, str]) -> str:
    """The media type to answer with: the first that is asked for and can be had. Raises NotAcceptable."""
    for clause in forms.clauses(accept or "*/*"):
        if found := media_types.get(clause.media):
            return found
    offered = ", ".join(sorted(set(media_types.values())))
    raise NotAcceptable(f"only the following media types are accepted: {offered}")


def known(request: Request, digest: str) -> bool:
    """Whether the client has what is asked for already (RFC 9110 §13.1.2)."""
    tags = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    return "*" in tags or f'"{digest}"' in tags
