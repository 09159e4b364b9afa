"""OpenAPI of what is served, made from the types: /openapi/v3 (by group and version) and /openapi/v2.

kubectl reads it for `explain`, to learn which fields exist, and whether the server validates fields itself. Documents
are made when they are first asked for.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from knarr import KUBERNETES_VERSION, __version__
from knarr.api.autoscaling.v1 import Scale
from knarr.api.meta.v1 import DeleteOptions, Status
from knarr.api.resources import Registry, Resource
from knarr.api.types import IntOrString, Merge, Quantity, Struct, is_always

SCHEMAS_V3 = "#/components/schemas/"
SCHEMAS_V2 = "#/definitions/"

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
        schemas: dict[str, Any] = {}
        paths: dict[str, Any] = {}
        for resource in resources:
            paths |= _paths(resource, schemas, v3=True)
        _documents[key] = {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
            "paths": paths,
            "components": {"schemas": schemas},
        }
    return _documents[key]


def swagger(registry: Registry) -> dict[str, Any]:
    """/openapi/v2, of everything."""
    definitions: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for resource in registry:
        paths |= _paths(resource, definitions, v3=False)
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "paths": paths,
        "definitions": definitions,
    }


def _place(resource: Resource) -> str:
    return f"apis/{resource.group}/{resource.version}" if resource.group else f"api/{resource.version}"


def _paths(resource: Resource, schemas: dict[str, Any], *, v3: bool) -> dict[str, Any]:
    """The operations on a resource, its subresources of other kinds left aside."""
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    reference = _Schemas(schemas, v3).reference(resource.type, gvk)
    listed = _Schemas(schemas, v3).list_of(resource, reference, gvk)
    _Schemas(schemas, v3).reference(DeleteOptions, None)
    _Schemas(schemas, v3).reference(Status, None)
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
                else _Schemas(schemas, v3).reference(Scale, {"group": "autoscaling", "version": "v1", "kind": "Scale"})
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


class _Schemas:
    """Adds the schemas of types to a document, each once."""

    def __init__(self, schemas: dict[str, Any], v3: bool) -> None:
        self._schemas = schemas
        self._v3 = v3
        self._at = SCHEMAS_V3 if v3 else SCHEMAS_V2

    def reference(self, kind: type[Any], gvk: dict[str, str] | None) -> dict[str, Any]:
        name = schema_name(kind)
        if name not in self._schemas:
            schema: dict[str, Any] = {"type": "object"}
            self._schemas[name] = schema
            hints = get_type_hints(kind, include_extras=True)
            schema["properties"] = {
                info.encode_name: self._schema(hints[info.name]) for info in msgspec.structs.fields(kind)
            }
            if required := [info.encode_name for info in msgspec.structs.fields(kind) if _required(info)]:
                schema["required"] = required
            if getattr(kind, "atomic", False):
                schema["x-kubernetes-map-type"] = "atomic"
        if gvk:
            self._schemas[name]["x-kubernetes-group-version-kind"] = [gvk]
        return {"$ref": self._at + name}

    def list_of(self, resource: Resource, item: dict[str, Any], gvk: dict[str, str]) -> dict[str, Any]:
        name = schema_name(resource.type) + "List"
        self._schemas[name] = {
            "type": "object",
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "items": {"type": "array", "items": item},
            },
            "x-kubernetes-group-version-kind": [gvk | {"kind": resource.kind + "List"}],
        }
        return {"$ref": self._at + name}

    def _schema(self, hint: Any) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        while hasattr(hint, "__metadata__"):
            for note in hint.__metadata__:
                if isinstance(note, Merge):
                    extra |= _merge(note)
                elif isinstance(note, msgspec.Meta) and note.le == 2**31 - 1:
                    extra["format"] = "int32"
            hint = hint.__origin__
        return self._plain(hint) | extra

    def _plain(self, hint: Any) -> dict[str, Any]:
        if hint in (Quantity, IntOrString):
            return self._scalar(hint == Quantity)
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is list:
            return {"type": "array", "items": self._schema(arguments[0])}
        if origin is dict:
            return {"type": "object", "additionalProperties": self._schema(arguments[1])}
        if type(None) in arguments:
            rest = [argument for argument in arguments if argument is not type(None)]
            if len(rest) == 1:
                return self._schema(rest[0])
            union = rest[0]
            for each in rest[1:]:
                union = union | each
            return self._plain(union)
        if isinstance(hint, type) and issubclass(hint, Struct):
            reference = self.reference(hint, None)
            return {"allOf": [reference]} if self._v3 else reference
        return dict(_SCALARS.get(hint, {"type": "object"}))  # Any JSON; kubectl explain needs a type to show.

    def _scalar(self, quantity: bool) -> dict[str, Any]:
        """Quantity and IntOrString have names of their own, which kubectl explain shows."""
        name = _QUANTITY if quantity else _INT_OR_STRING
        shape: dict[str, Any] = {} if quantity else {"format": "int-or-string"}
        if self._v3:
            number = "number" if quantity else "integer"
            self._schemas[name] = shape | {"oneOf": [{"type": "string"}, {"type": number}]}
            return {"allOf": [{"$ref": self._at + name}]}
        self._schemas[name] = shape | {"type": "string"}
        return {"$ref": self._at + name}


def _required(field: Any) -> bool:
    """Upstream demands what it always writes, but for what the server itself knows."""
    return is_always(field) and field.name not in ("api_version", "kind", "metadata")


_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"

_SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer", "format": "int64"},
    bool: {"type": "boolean"},
    float: {"type": "number", "format": "double"},
    bytes: {"type": "string", "format": "byte"},
    datetime: {"type": "string", "format": "date-time"},
}


def _merge(rule: Merge) -> dict[str, Any]:
    if rule.map_type:
        return {"x-kubernetes-map-type": rule.map_type}
    found: dict[str, Any] = {"x-kubernetes-list-type": rule.list_type}
    if rule.keys:
        found["x-kubernetes-list-map-keys"] = list(rule.keys)
    if rule.patch_key:
        found["x-kubernetes-patch-merge-key"] = rule.patch_key
    if rule.strategy:
        found["x-kubernetes-patch-strategy"] = ",".join(rule.strategy)
    return found


_PACKAGES = {
    "meta": "io.k8s.apimachinery.pkg.apis.meta",
    "apiextensions": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
}


def schema_name(kind: type[Any]) -> str:
    """Upstream's name of a type's schema: io.k8s.api.core.v1.Pod."""
    _, _, group, version = kind.__module__.split(".")
    return f"{_PACKAGES.get(group, f'io.k8s.api.{group}')}.{version}.{kind.__name__}"
