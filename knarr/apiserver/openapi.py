"""OpenAPI of what is served, made from the types: /openapi/v3 (by group and version) and /openapi/v2.

kubectl reads it for `explain`, to learn which fields exist, and whether the server validates fields itself. A document
is made when it is first asked for and kept as bytes, in each form that was asked for, until other kinds are served. Its
name in the index carries a hash: what is under that name never changes, and clients may keep it for ever (KEP-2896).
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from knarr import KUBERNETES_VERSION, __version__
from knarr.api import descriptions
from knarr.api.resources import Registry, Resource
from knarr.apiserver import openapi_discovery, openapi_operations, openapi_parameters, openapi_protobuf, openapi_v3
from knarr.apiserver.openapi_schemas import Schemas

ABOUT_SERVER = {
    "version": openapi_discovery.about_server,
    ".well-known/openid-configuration": lambda schemas: openapi_discovery.issuer(),
    "openid/v1/jwks": lambda schemas: openapi_discovery.issuer_keys(),
}
"""Documents of version 3 about no group."""
SECURITY = {
    "BearerToken": {
        "description": "A bearer token in the header Authorization.",
        "in": "header",
        "name": "authorization",
        "type": "apiKey",
    }
}
SECURED: list[dict[str, list[str]]] = [{"BearerToken": []}]
Form = tuple[str, str, bool]
"""What is kept: the place ("" for version 2), the media type, and whether it is compressed."""


class Documents:
    """The documents of a server, as bytes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._of: tuple[Resource, ...] = ()
        self._kept: dict[Form, bytes] = {}
        self._digests: dict[str, str] = {}

    def index(self, others: Mapping[str, str]) -> dict[str, Any]:
        """/openapi/v3: where each document is; of `others` those who serve them say so themselves, or have none."""
        urls = {place: self.url(place) for place in places(self._registry) if place not in others}
        urls |= {place: url for place, url in others.items() if url}
        return {"paths": {place: {"serverRelativeURL": urls[place]} for place in sorted(urls)}}

    def url(self, place: str) -> str:
        """Where a document of version 3 is, with its hash."""
        return f"/openapi/v3/{place}?hash={self.digest(place)}"

    def digest(self, place: str) -> str:
        """Tells one state of a document from another. It follows from the program and the kinds, so that whoever only
        wants to know whether his copy is good still doesn't make us write the document."""
        self._follow()
        if place not in self._digests:
            kinds = [f"{each.qualified}/{each.version}" for each in self._registry if not place or belongs(each, place)]
            told = " ".join([fingerprint(), place, *kinds])
            self._digests[place] = hashlib.sha512(told.encode()).hexdigest().upper()
        return self._digests[place]

    def has(self, place: str) -> bool:
        """Whether version 3 has such a document."""
        return place in places(self._registry)

    def ready(self, form: Form) -> bytes | None:
        """A document that has been made already."""
        self._follow()
        return self._kept.get(form)

    def made(self, form: Form) -> bytes:
        """A document, made now if need be: that may take a while, and may be done in a thread."""
        place, media_type, compressed = form
        held = self._follow()
        if form not in held:
            if compressed:
                held[form] = gzip.compress(self.made((place, media_type, False)), 5)
            elif media_type == openapi_protobuf.MEDIA_TYPE:
                held[form] = openapi_protobuf.encoded(swagger(self._registry))
            else:
                told = document(self._registry, place) if place else swagger(self._registry)
                held[form] = msgspec.json.encode(told)
        return held[form]

    def _follow(self) -> dict[Form, bytes]:
        """What is kept of the kinds that are served now."""
        now = tuple(self._registry)
        if len(now) != len(self._of) or any(one is not other for one, other in zip(now, self._of, strict=True)):
            self._of, self._kept, self._digests = now, {}, {}
        return self._kept


@cache
def fingerprint() -> str:
    """Of all that documents are made of: the types, their texts, and the program that writes them."""
    api = descriptions.FOLDER
    sources = [*api.glob("*/v*.py"), *api.glob("*/*.txt"), *Path(__file__).parent.glob("openapi*.py")]
    digest = hashlib.sha256(__version__.encode())
    for path in sorted(sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def belongs(resource: Resource, place: str) -> bool:
    """Whether a document of version 3 is about a resource."""
    return place in ("apis", f"apis/{resource.group}", place_of(resource))


def place_of(resource: Resource) -> str:
    return f"apis/{resource.group}/{resource.version}" if resource.group else f"api/{resource.version}"


def places(registry: Registry) -> list[str]:
    """The documents of version 3."""
    groups = {f"apis/{resource.group}" for resource in registry if resource.group}
    return sorted({"api", "apis", *ABOUT_SERVER, *groups, *map(place_of, registry)})


def document(registry: Registry, place: str) -> dict[str, Any]:
    """The OpenAPI v3 document of a place: `api/v1`, `apis/apps`, `version`, …"""
    schemas = Schemas(v3=True)
    told: dict[str, Any] = {}
    for path in _tellers(registry, place):
        told |= path(schemas)
    return {
        "components": {"schemas": dict(sorted(schemas.found.items())), "securitySchemes": SECURITY},
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "openapi": "3.0.0",
        "paths": openapi_v3.paths(dict(sorted(told.items()))),
        "security": SECURED,
    }


def swagger(registry: Registry) -> dict[str, Any]:
    """/openapi/v2, of everything."""
    schemas = Schemas(v3=False)
    told: dict[str, Any] = {}
    for place in places(registry):
        for path in _tellers(registry, place):
            told |= path(schemas)
    told = dict(sorted(told.items()))
    return {
        "definitions": dict(sorted(schemas.found.items())),
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "parameters": openapi_parameters.shared(told),
        "paths": told,
        "security": SECURED,
        "securityDefinitions": SECURITY,
        "swagger": "2.0",
    }


def _tellers(registry: Registry, place: str) -> list[Callable[[Schemas], dict[str, Any]]]:
    """What tells the paths of a place."""
    if place in ABOUT_SERVER:
        return [ABOUT_SERVER[place]]
    if place == "api":
        return [openapi_discovery.versions]
    if place == "apis":
        return [openapi_discovery.groups]
    if place.startswith("apis/") and place.count("/") == 1:
        return [lambda schemas: openapi_discovery.group(place.removeprefix("apis/"), schemas)]
    resources = [resource for resource in registry if place_of(resource) == place]
    group, version = resources[0].group, resources[0].version
    return [
        lambda schemas: openapi_discovery.resources(group, version, schemas),
        *(lambda schemas, each=each: openapi_operations.paths(each, schemas) for each in resources),
    ]
