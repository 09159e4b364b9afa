"""The schemas of OpenAPI, made from the types: which fields there are, how lists merge, and what it all means.

The shapes are those that upstream publishes: in v2 a reference stands beside its description, in v3 within `allOf`, and
v3 says the zero values of what is always written.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any, get_args, get_origin

import msgspec

from knarr.api import descriptions
from knarr.api.meta.v1 import ListMeta
from knarr.api.resources import Resource
from knarr.api.types import IntOrString, Merge, MicroTime, Quantity, RawJSON, RawObject, Struct, Time, is_always

HINTS_CACHED_MAX = 4096
META = "io.k8s.apimachinery.pkg.apis.meta.v1"
NAMED_SCALARS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": (
        Quantity,
        {"type": "string"},
        {"oneOf": [{"type": "string"}, {"type": "number"}]},
    ),
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": (
        IntOrString,
        {"format": "int-or-string", "type": "string"},
        {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    ),
    f"{META}.Time": (Time, {"format": "date-time", "type": "string"}, {"format": "date-time", "type": "string"}),
    f"{META}.MicroTime": (
        MicroTime,
        {"format": "date-time", "type": "string"},
        {"format": "date-time", "type": "string"},
    ),
    f"{META}.FieldsV1": (RawJSON, {"type": "object"}, {"type": "object"}),
    "io.k8s.apimachinery.pkg.runtime.RawExtension": (RawObject, {"type": "object"}, {"type": "object"}),
    f"{META}.Patch": (None, {"type": "object"}, {"type": "object"}),
}
"""What has a name and is no struct: the type, and its shape in v2 and v3. `kubectl explain` shows the names."""

SCALARS: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"format": "int64", "type": "integer"},
    bool: {"type": "boolean"},
    float: {"format": "double", "type": "number"},
    bytes: {"format": "byte", "type": "string"},
    datetime: {"format": "date-time", "type": "string"},
}
ZEROS: dict[Any, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False}

PACKAGES = {
    "meta": "io.k8s.apimachinery.pkg.apis.meta",
    "apiextensions": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
}


def schema_name(kind: type[Any]) -> str:
    """Upstream's name of a type's schema: io.k8s.api.core.v1.Pod."""
    _, _, group, version = kind.__module__.split(".")
    if (group, version) == ("meta", "version"):
        return f"io.k8s.apimachinery.pkg.version.{kind.__name__}"
    return f"{PACKAGES.get(group, f'io.k8s.api.{group}')}.{version}.{kind.__name__}"


class Schemas:
    """The schemas of one document: each is added when something refers to it first."""

    def __init__(self, *, v3: bool) -> None:
        self.found: dict[str, Any] = {}
        self._v3 = v3
        self._at = "#/components/schemas/" if v3 else "#/definitions/"

    def reference(self, kind: type[Any], *gvks: dict[str, str]) -> dict[str, Any]:
        """A reference to a type's schema. `gvks`: the kinds that it is served as."""
        name = schema_name(kind)
        if name not in self.found:
            self.found[name] = {}  # Types may contain themselves (JSONSchemaProps).
            self.found[name] |= self._struct(kind)
        if gvks:
            known = self.found[name].setdefault("x-kubernetes-group-version-kind", [])
            known += [gvk for gvk in gvks if gvk not in known]
        return {"$ref": self._at + name}

    def list_of(self, resource: Resource, gvk: dict[str, str]) -> dict[str, Any]:
        """A reference to the schema of a list of a kind."""
        name = schema_name(resource.type) + "List"
        if name not in self.found:
            properties: dict[str, Any] = {
                "apiVersion": {"type": "string"},
                "items": {"type": "array", "items": self._element(self.reference(resource.type, gvk))},
                "kind": {"type": "string"},
                "metadata": self._field_reference(self.reference(ListMeta)) | self._default({}),
            }
            for field, schema in properties.items():
                _describe(schema, descriptions.shared(f"List.{field}"))
            self.found[name] = _describe({}, f"A list of objects of the kind {resource.kind}.") | {
                "properties": properties,
                "required": ["items"],
                "type": "object",
                "x-kubernetes-group-version-kind": [gvk | {"kind": f"{resource.kind}List"}],
            }
        return {"$ref": self._at + name}

    def scalar(self, name: str) -> dict[str, Any]:
        """A reference to what has a name and is no struct (Patch)."""
        if name not in self.found:
            _, v2, v3 = NAMED_SCALARS[name]
            self.found[name] = _describe({}, descriptions.shared(name.rpartition(".")[2])) | (v3 if self._v3 else v2)
        return {"$ref": self._at + name}

    def _struct(self, kind: type[Any]) -> dict[str, Any]:
        schema = _describe({}, descriptions.of_type(kind))
        fields = fields_of(kind)
        properties: dict[str, Any] = {}
        for field in sorted(fields, key=lambda each: each.encode_name):
            shape = self._schema(field.type)
            if shape.get("type") == "array":
                shape.setdefault("x-kubernetes-list-type", "atomic")
            if is_always(field):
                shape |= self._default(_zero(shape))
            properties[field.encode_name] = _describe(shape, descriptions.of_field(kind, field.encode_name))
        if properties:
            schema["properties"] = properties
        if required := [field.encode_name for field in fields if _required(field)]:
            schema["required"] = required
        schema["type"] = "object"
        if getattr(kind, "atomic", False):
            schema["x-kubernetes-map-type"] = "atomic"
        return schema

    def _schema(self, hint: Any) -> dict[str, Any]:
        """The schema of a field's type."""
        if name := _scalar_name(hint):
            return self._field_reference(self.scalar(name))
        extra: dict[str, Any] = {}
        while hasattr(hint, "__metadata__"):
            for note in hint.__metadata__:
                if isinstance(note, Merge):
                    extra |= _merge(note)
                elif isinstance(note, msgspec.Meta) and note.le == 2**31 - 1:
                    extra["format"] = "int32"
            hint = hint.__origin__
        made = self._plain(hint) | extra
        if made.get("type") != "array":
            made.pop("x-kubernetes-list-type", None)  # A struct that is replaced as a whole (retainKeys) is no list.
        return made

    def _plain(self, hint: Any) -> dict[str, Any]:
        if name := _scalar_name(hint):
            return self._field_reference(self.scalar(name))
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is list:
            items = self._element(self._schema(arguments[0]))
            return {"items": items, "type": "array"}
        if origin is dict:
            return {"additionalProperties": self._element(self._schema(arguments[1])), "type": "object"}
        if type(None) in arguments:
            rest = [argument for argument in arguments if argument is not type(None)]
            union = rest[0]
            for each in rest[1:]:
                union = union | each
            return self._schema(union)
        if isinstance(hint, type) and issubclass(hint, Struct):
            return self._field_reference(self.reference(hint))
        return dict(SCALARS[hint])

    def _field_reference(self, reference: dict[str, Any]) -> dict[str, Any]:
        return {"allOf": [reference]} if self._v3 else reference

    def _element(self, schema: dict[str, Any]) -> dict[str, Any]:
        """What a list or map is made of: in v3 with its zero, since no element can be absent."""
        if "$ref" in schema:
            schema = self._field_reference(schema)
        return schema | self._default(_zero(schema))

    def _default(self, zero: Any) -> dict[str, Any]:
        return {"default": zero} if self._v3 and zero is not None else {}


_fields: dict[type[Any], tuple[msgspec.structs.FieldInfo, ...]] = {}


def fields_of(kind: type[Any]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """The fields of a type. Working them out takes most of the time that a document takes: once is enough."""
    if kind not in _fields:
        _fields[kind] = msgspec.structs.fields(kind)
    return _fields[kind]


def _zero(schema: dict[str, Any]) -> Any:
    """The zero value, as the documents say it: {} for structs, nothing for lists, maps and scalars with names."""
    if "allOf" in schema:
        name = schema["allOf"][0]["$ref"].rpartition("/")[2]
        return None if name in NAMED_SCALARS else {}
    return ZEROS.get(schema.get("type")) if schema.get("format") != "byte" else None


def _describe(schema: dict[str, Any], text: str) -> dict[str, Any]:
    if text:
        schema["description"] = text
    return schema


@lru_cache(maxsize=HINTS_CACHED_MAX)
def _scalar_name(hint: Any) -> str | None:
    return next((name for name, (of, _, _) in NAMED_SCALARS.items() if of is not None and hint == of), None)


def _required(field: Any) -> bool:
    """Upstream demands what it always writes, but for what the server itself knows: metadata, and a kind's own name."""
    if not is_always(field) or field.name == "metadata":
        return False
    return not (field.name in ("api_version", "kind") and field.default_factory())


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
