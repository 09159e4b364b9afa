"""The forms in which objects go out: whole, as metadata only, or as the rows of a table; in JSON or YAML.

The Accept header says which: `application/json;as=Table;v=v1;g=meta.k8s.io,application/json` asks for a table, and for
whole objects where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

import msgspec

from knarr.api.decode import decoder
from knarr.api.errors import NotAcceptable
from knarr.api.resources import Column, Resource

ACCEPTS_CACHED_MAX = 256


class Form(Enum):
    OBJECT = "object"
    TABLE = "table"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the client can take, decided."""

    form: Form = Form.OBJECT
    yaml: bool = False
    aggregated_discovery: str = ""
    """The version of apidiscovery.k8s.io that is asked for."""


@lru_cache(maxsize=ACCEPTS_CACHED_MAX)
def accepted(accept: str, *, tables: bool = True) -> Accepted:
    """The first form of an Accept header that can be had. Raises NotAcceptable.

    What is never kept (reviews) has no `tables`.
    """
    if not accept:
        return Accepted()
    for clause in accept.split(","):
        media, *parameters = (part.strip() for part in clause.split(";"))
        values = dict(parameter.partition("=")[::2] for parameter in parameters)
        as_kind = values.get("as", "")
        if media in ("application/json", "*/*", "application/*"):
            if as_kind == "Table":
                if not tables:
                    continue
                return Accepted(Form.TABLE)
            if as_kind in ("PartialObjectMetadata", "PartialObjectMetadataList"):
                return Accepted(Form.METADATA)
            if as_kind == "APIGroupDiscoveryList":
                if (asked := values.get("v", "")) in ("v2", "v2beta1"):
                    return Accepted(aggregated_discovery=asked)
                continue
            return Accepted()
        if media == "application/yaml" and not as_kind:
            return Accepted(yaml=True)
        if media == "text/plain":
            return Accepted()
    kinds = ["application/json", "application/yaml"]
    if tables:
        kinds.append("application/json;as=Table;v=v1;g=meta.k8s.io")
    raise NotAcceptable(f"only the following media types are accepted: {', '.join(kinds)}")


class _OnlyMetadata(msgspec.Struct):
    metadata: msgspec.Raw


def metadata_only(value: bytes) -> bytes:
    """An object as PartialObjectMetadata."""
    metadata = msgspec.json.decode(value, type=_OnlyMetadata).metadata
    return b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":%b}' % bytes(metadata)


_NAME = Column("Name", lambda obj, now_s: obj.metadata.name, format="name", description="Name of the object, unique")


def table(
    resource: Resource, values: Sequence[bytes], now_s: float, include: str, metadata: dict[str, Any] | None = None
) -> bytes:
    """meta.k8s.io/v1 Table of objects. `include` is includeObject: None, Metadata or Object."""
    columns = resource.columns or (_CREATED,)
    if not any(column.name == _NAME.name for column in columns):
        columns = (_NAME, *columns)
    decode = decoder(resource.type).decode
    rows = []
    for value in values:
        obj = decode(value)
        row: dict[str, Any] = {"cells": [column.cell(obj, now_s) for column in columns]}
        if include == "Object":
            row["object"] = msgspec.Raw(value)
        elif include != "None":
            row["object"] = msgspec.Raw(metadata_only(value))
        rows.append(row)
    definitions = [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        }
        for column in columns
    ]
    whole = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata or {}}
    return msgspec.json.encode(whole | {"columnDefinitions": definitions, "rows": rows})


_CREATED = Column(
    "Created At",
    lambda obj, now_s: obj.metadata.creation_timestamp.strftime("%Y-%m-%dT%H:%M:%SZ"),
    type="date",
    description="When the object was made",
)


def shown(resource: Resource, value: bytes, form: Form, now_s: float, include: str) -> bytes:
    """One object in a form."""
    if form is Form.TABLE:
        return table(resource, [value], now_s, include)
    if form is Form.METADATA:
        return metadata_only(value)
    return value
