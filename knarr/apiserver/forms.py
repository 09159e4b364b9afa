"""The forms in which objects go out: whole, as metadata only, or as the rows of a table; in JSON or YAML.

The Accept header says which: `application/json;as=Table;v=v1;g=meta.k8s.io,application/json` asks for a table, and for
whole objects where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Any

import msgspec

from knarr.api.decode import decoder
from knarr.api.errors import BadRequest, NotAcceptable, not_supported
from knarr.api.resources import Column, Resource

ACCEPTS_CACHED_MAX = 256
CLAUSES_MAX = 64
"""Media ranges of one Accept header that are looked at."""
WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")
"""A quality value (RFC 9110, section 12.4.2)."""
NO_WEIGHT = re.compile(r"q\s*=\s*0(\.0{0,3})?")
INCLUDED = ("Metadata", "None", "Object", "")


class Form(Enum):
    OBJECT = "object"
    TABLE = "table"
    METADATA = "metadata"


class Accepted(msgspec.Struct, frozen=True):
    """What the client can take, decided."""

    form: Form = Form.OBJECT
    yaml: bool = False
    aggregated_discovery: str = ""
    """The version of apidiscovery.k8s.io that is asked for."""
    version: str = "v1"
    """Of meta.k8s.io, for tables and metadata."""
    as_list: bool | None = None
    """Whether metadata was asked for as a list; None where nothing says so."""


@lru_cache(maxsize=ACCEPTS_CACHED_MAX)
def accepted(accept: str, *, watching: bool = False, tables: bool = True) -> Accepted:
    """The best form that an Accept header allows. Raises NotAcceptable.

    Clauses are tried by their weight (q), the more special first, then as they stand; one of the weight 0 never.
    What is never kept (reviews) has no `tables`.
    """
    if not accept.strip():
        return Accepted()
    for clause in clauses(accept):
        if (found := _offered(clause, watching)) and (tables or found.form is not Form.TABLE):
            return found
    kinds = ["application/json;stream=watch"] if watching else ["application/json", "application/yaml"]
    if tables:
        kinds.append("application/json;as=Table;v=v1;g=meta.k8s.io")
    raise NotAcceptable(f"only the following media types are accepted: {', '.join(kinds)}")


class Clause(msgspec.Struct, frozen=True):
    """One media range of an Accept header."""

    media: str
    weight: float
    parameters: Mapping[str, str]


def clauses(accept: str) -> list[Clause]:
    """What an Accept header allows, best first."""
    found = [clause for clause in map(_clause, accept.split(",")[:CLAUSES_MAX]) if clause.weight > 0]
    return sorted(found, key=lambda clause: (-clause.weight, clause.media.count("*")))


def _clause(text: str) -> Clause:
    media, *parameters = (part.strip() for part in text.split(";"))
    values = {name.strip().lower(): value.strip() for name, _, value in (each.partition("=") for each in parameters)}
    weight = values.get("q", "1")
    return Clause(media.lower(), float(weight) if WEIGHT.fullmatch(weight) else 1.0, values)


def _offered(clause: Clause, watching: bool) -> Accepted | None:
    """What a clause is answered with; None when it can't be."""
    yaml = clause.media == "application/yaml"
    if yaml and watching:
        return None
    if not yaml and clause.media not in ("application/json", "application/*", "*/*", "text/plain"):
        return None
    if clause.parameters.get("stream", "watch") != "watch":
        return None
    kind, group, version = (clause.parameters.get(name, "") for name in ("as", "g", "v"))
    if not kind:
        return Accepted(yaml=yaml)
    if kind == "APIGroupDiscoveryList":
        return Accepted(aggregated_discovery=version) if version in ("v2", "v2beta1") and not yaml else None
    if group != "meta.k8s.io" or version not in ("v1", "v1beta1"):
        return None
    if kind == "Table":
        return Accepted(Form.TABLE, yaml, version=version)
    if kind in ("PartialObjectMetadata", "PartialObjectMetadataList"):
        return Accepted(Form.METADATA, yaml, version=version, as_list=kind.endswith("List"))
    return None


def check(accepted: Accepted, query: Mapping[str, str], *, many: bool = False) -> None:
    """Refuse a form that isn't one of what is shown. Raises NotAcceptable, BadRequest."""
    if accepted.as_list and not many:
        raise NotAcceptable("you requested PartialObjectMetadataList, but the requested object is not a list")
    if many and accepted.as_list is False:
        raise NotAcceptable("you requested PartialObjectMetadata, but the requested object is a list")
    include = query.get("includeObject", "")
    if accepted.form is Form.TABLE and include not in INCLUDED:
        cause = not_supported("includeObject", include, INCLUDED, in_order=True)
        raise BadRequest(f"Unable to convert to Table as requested: {cause.field}: {cause.message}")


def takes_gzip(accepted: str) -> bool:
    """Whether an Accept-Encoding names gzip, and not with the weight 0 (RFC 9110, section 12.5.3)."""
    for clause in accepted.split(","):
        coding, *parameters = (part.strip() for part in clause.lower().split(";"))
        if coding == "gzip":
            return not any(NO_WEIGHT.fullmatch(each) for each in parameters)
    return False


class _OnlyMetadata(msgspec.Struct):
    metadata: msgspec.Raw


def metadata_only(value: bytes, version: str = "v1") -> bytes:
    """An object as PartialObjectMetadata."""
    metadata = msgspec.json.decode(value, type=_OnlyMetadata).metadata
    head = b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/%b","metadata":%b}'
    return head % (version.encode(), bytes(metadata))


_NAME = Column("Name", lambda obj, now_s: obj.metadata.name, format="name", description="Name of the object, unique")


def table(
    resource: Resource,
    values: Sequence[bytes],
    now_s: float,
    include: str,
    metadata: dict[str, Any],
    *,
    version: str = "v1",
    headers: bool = True,
) -> bytes:
    """meta.k8s.io Table of objects. `include` is includeObject: None, Metadata or Object."""
    columns = _columns(resource)
    decode = decoder(resource.type).decode
    rows = []
    for value in values:
        obj = decode(value)
        rows.append(_row([column.cell(obj, now_s) for column in columns], value, include, version))
    return _table(columns if headers else (), rows, metadata, version)


def table_of_one(
    resource: Resource, value: bytes, now_s: float, include: str, *, version: str = "v1", headers: bool = True
) -> bytes:
    """A Table of one object, as of which it is. Without `headers` it follows one that told the columns."""
    metadata = {"resourceVersion": msgspec.json.decode(value, type=_Versioned).metadata.resourceVersion}
    return table(resource, [value], now_s, include, metadata, version=version, headers=headers)


def table_of_bookmark(resource: Resource, value: bytes, include: str, *, version: str, headers: bool) -> bytes:
    """A bookmark as a Table: its row has nothing to show, but carries its object."""
    columns = _columns(resource)
    metadata = {"resourceVersion": msgspec.json.decode(value, type=_Versioned).metadata.resourceVersion}
    row = _row([None for _ in columns], value, include, version)
    return _table(columns if headers else (), [row], metadata, version)


class _Version(msgspec.Struct):
    resourceVersion: str = ""


class _Versioned(msgspec.Struct):
    metadata: _Version


def _columns(resource: Resource) -> Sequence[Column]:
    columns = resource.columns or (_CREATED,)
    return columns if any(column.name == _NAME.name for column in columns) else (_NAME, *columns)


def _row(cells: list[Any], value: bytes, include: str, version: str) -> dict[str, Any]:
    row: dict[str, Any] = {"cells": cells}
    if include == "Object":
        row["object"] = msgspec.Raw(value)
    elif include != "None":
        row["object"] = msgspec.Raw(metadata_only(value, version))
    return row


def _table(columns: Sequence[Column], rows: list[dict[str, Any]], metadata: dict[str, Any], version: str) -> bytes:
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
    whole = {"kind": "Table", "apiVersion": f"meta.k8s.io/{version}", "metadata": metadata}
    return msgspec.json.encode(whole | {"columnDefinitions": definitions or None, "rows": rows})


_CREATED = Column(
    "Created At",
    lambda obj, now_s: obj.metadata.creation_timestamp.strftime("%Y-%m-%dT%H:%M:%SZ"),
    type="date",
    description="When the object was made",
)


def shown(resource: Resource, value: bytes, accepted: Accepted, now_s: float, include: str) -> bytes:
    """One object in a form."""
    if accepted.form is Form.TABLE:
        return table_of_one(resource, value, now_s, include, version=accepted.version)
    if accepted.form is Form.METADATA:
        return metadata_only(value, accepted.version)
    return value
