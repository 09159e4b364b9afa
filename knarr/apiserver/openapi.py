"""OpenAPI of what is served, made from the types: /openapi/v3 (by group and version) and /openapi/v2.

kubectl reads it for `explain`, to learn which fields exist, and whether the server validates fields itself. Documents
are made when they are first asked for.
"""

from __future__ import annotations

import hashlib
from typing import Any

from knarr import KUBERNETES_VERSION, __version__
from knarr.api.autoscaling.v1 import Scale
from knarr.api.meta.v1 import DeleteOptions, Status
from knarr.api.resources import Registry, Resource
from knarr.apiserver.openapi_schemas import Schemas

_PARAMETERS = {
    "dryRun": "When All: nothing is stored",
    "fieldManager": "Name of who or what makes the change",
    "fieldValidation": "What to do with unknown and duplicate fields: Ignore, Warn or Strict",
    "pretty": "Indent the answer",
}


def index(registry: Registry) -> dict[str, Any]:
    """/openapi/v3: where the document of each group and version is."""
    paths = {}
    for name in sorted({_place(resource) for resource in registry}):
        # What a document says follows from the release and the kinds: so a client that only wants to know whether its
        # copy is still good doesn't make us write all of them.
        kinds = [resource.qualified for resource in registry if _place(resource) == name]
        digest = hashlib.sha256(" ".join([__version__, name, *kinds]).encode()).hexdigest().upper()
        paths[name] = {"serverRelativeURL": f"/openapi/v3/{name}?hash={digest}"}
    return {"paths": paths}


_documents: dict[tuple[int, str], dict[str, Any]] = {}


def document(registry: Registry, place: str) -> dict[str, Any] | None:
    """The OpenAPI v3 document of `api/v1` or `apis/apps/v1`; None when it isn't served."""
    key = (id(registry), place)
    if key not in _documents:
        resources = [resource for resource in registry if _place(resource) == place]
        if not resources:
            return None
        schemas = Schemas(v3=True)
        paths: dict[str, Any] = {}
        for resource in resources:
            paths |= _paths(resource, schemas, v3=True)
        _documents[key] = {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
            "paths": paths,
            "components": {"schemas": schemas.found},
        }
    return _documents[key]


def swagger(registry: Registry) -> dict[str, Any]:
    """/openapi/v2, of everything."""
    schemas = Schemas(v3=False)
    paths: dict[str, Any] = {}
    for resource in registry:
        paths |= _paths(resource, schemas, v3=False)
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "paths": paths,
        "definitions": schemas.found,
    }


def _place(resource: Resource) -> str:
    return f"apis/{resource.group}/{resource.version}" if resource.group else f"api/{resource.version}"


def _paths(resource: Resource, schemas: Schemas, *, v3: bool) -> dict[str, Any]:
    """The operations on a resource, its subresources of other kinds left aside."""
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    reference = schemas.reference(resource.type, gvk)
    listed = schemas.list_of(resource, gvk)
    schemas.reference(DeleteOptions)
    schemas.reference(Status)
    collection = resource.path("{namespace}" if resource.namespaced else None)
    single = resource.path("{namespace}" if resource.namespaced else None, "{name}")

    def operation(action: str, answer: dict[str, Any], body: dict[str, Any] | None = None) -> dict[str, Any]:
        made: dict[str, Any] = {
            "operationId": f"{action}{resource.group.partition('.')[0].capitalize() or 'Core'}"
            f"{resource.version.capitalize()}{'Namespaced' if resource.namespaced else ''}{resource.kind}",
            "tags": [f"{resource.group.partition('.')[0] or 'core'}_{resource.version}"],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk,
        }
        if v3:
            made["responses"] = {"200": {"description": "OK", "content": {"application/json": {"schema": answer}}}}
        else:
            made["responses"] = {"200": {"description": "OK", "schema": answer}}
        if body is not None:
            made["parameters"] = [
                {"name": name, "in": "query", "description": text, **_typed("string", v3)}
                for name, text in _PARAMETERS.items()
            ]
            if v3:
                media = "application/strategic-merge-patch+json" if action == "patch" else "application/json"
                made["requestBody"] = {"content": {media: {"schema": body}}, "required": True}
            else:
                made["parameters"].append({"name": "body", "in": "body", "required": True, "schema": body})
        return made

    path_parameters = [{"name": "name", "in": "path", "required": True, **_typed("string", v3)}]
    if resource.namespaced:
        path_parameters.append({"name": "namespace", "in": "path", "required": True, **_typed("string", v3)})
    paths: dict[str, Any] = {
        collection: {"get": operation("list", listed), "post": operation("post", reference, reference)},
        single: {
            "get": operation("get", reference),
            "put": operation("put", reference, reference),
            "patch": operation("patch", reference, {"type": "object"}),
            "delete": operation("delete", reference),
            "parameters": path_parameters,
        },
    }
    if resource.namespaced:
        paths[collection]["parameters"] = path_parameters[1:]
    for name in resource.subresources:
        if name in ("status", "scale"):
            of = (
                reference
                if name == "status"
                else schemas.reference(Scale, {"group": "autoscaling", "version": "v1", "kind": "Scale"})
            )
            paths[f"{single}/{name}"] = {
                "get": operation("get", of),
                "put": operation("put", of, of),
                "patch": operation("patch", of, {"type": "object"}),
                "parameters": path_parameters,
            }
    return paths


def _typed(kind: str, v3: bool) -> dict[str, Any]:
    return {"schema": {"type": kind}} if v3 else {"type": kind}
