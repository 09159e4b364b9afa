"""The operations of OpenAPI that are about the server itself: what it serves, its version, who issues its tokens."""

from __future__ import annotations

from typing import Any

from knarr.api.meta.v1 import APIGroup, APIGroupList, APIResourceList, APIVersions
from knarr.api.meta.version import Info
from knarr.apiserver.openapi_operations import FORMS, UNAUTHORIZED, group_words, item
from knarr.apiserver.openapi_schemas import Schemas

JSON = ["application/json"]


def versions(schemas: Schemas) -> dict[str, Any]:
    """/api/"""
    schema = schemas.reference(APIVersions, _gvk("APIVersions"))
    return _get("/api/", "getCoreAPIVersions", "core", "Tells the versions of the core group.", schema)


def groups(schemas: Schemas) -> dict[str, Any]:
    """/apis/"""
    schema = schemas.reference(APIGroupList, _gvk("APIGroupList"))
    return _get("/apis/", "getAPIVersions", "apis", "Tells the groups that are served.", schema)


def group(name: str, schemas: Schemas) -> dict[str, Any]:
    """/apis/<group>/"""
    words, tag = group_words(name)
    schema = schemas.reference(APIGroup, _gvk("APIGroup"))
    return _get(f"/apis/{name}/", f"get{words}APIGroup", tag, "Tells the versions of this group.", schema)


def resources(name: str, version: str, schemas: Schemas) -> dict[str, Any]:
    """/api/v1/ and /apis/<group>/<version>/"""
    words, tag = group_words(name)
    path = f"/apis/{name}/{version}/" if name else f"/api/{version}/"
    identity = f"get{words}{version[:1].upper()}{version[1:]}APIResources"
    schema = schemas.reference(APIResourceList, _gvk("APIResourceList"))
    return _get(path, identity, f"{tag}_{version}", "Tells the resources of this version.", schema)


def about_server(schemas: Schemas) -> dict[str, Any]:
    """/version/"""
    return _get(
        "/version/",
        "getCodeVersion",
        "version",
        "Tells the version of the server.",
        schemas.reference(Info),
        JSON,
        JSON,
    )


def issuer() -> dict[str, Any]:
    """/.well-known/openid-configuration/"""
    return _get(
        "/.well-known/openid-configuration/",
        "getServiceAccountIssuerOpenIDConfiguration",
        "WellKnown",
        "Tells who issues the tokens of service accounts, as OpenID Connect Discovery has it.",
        {"type": "string"},
        [],
        JSON,
    )


def issuer_keys() -> dict[str, Any]:
    """/openid/v1/jwks/"""
    return _get(
        "/openid/v1/jwks/",
        "getServiceAccountIssuerOpenIDKeyset",
        "openid",
        "Tells the public keys by which tokens of service accounts can be checked.",
        {"type": "string"},
        [],
        ["application/jwk-set+json"],
    )


def _gvk(kind: str) -> dict[str, str]:
    return {"group": "", "version": "v1", "kind": kind}


def _get(
    path: str,
    identity: str,
    tag: str,
    text: str,
    schema: dict[str, Any],
    consumes: list[str] = FORMS,
    produces: list[str] = FORMS,
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        **({"consumes": consumes} if consumes else {}),
        "description": text,
        "operationId": identity,
        "parameters": [],
        "produces": produces,
        "responses": {"200": {"description": "OK", "schema": schema}} | UNAUTHORIZED,
        "schemes": ["https"],
        "tags": [tag],
    }
    return {path: item({"get": operation})}
