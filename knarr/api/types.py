"""The bricks that every API type is built from.

A type of the Kubernetes API is a `Struct`: Python names in code (`pod.spec.node_name`), JSON names on the wire
(`spec.nodeName`). Three rules hold for every field, and they are those of upstream's Go types:

* an optional scalar or struct is `T | None = None`, and absent on the wire when None;
* an optional list or map is empty when absent, and absent on the wire when empty (Go's `omitempty`);
* a field that upstream always writes is declared with `always(zero)`: written even when it is zero.

What comes from a cache is shared: never change it, make a changed copy with `copy` or `replace`.
"""

from __future__ import annotations

import copy as _copy
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec

T = TypeVar("T")

Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
"""A number of 32 bits, signed."""

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A number of 64 bits, signed: what is larger, no client in Go could read."""

Quantity = (
    Annotated[
        str,
        msgspec.Meta(
            pattern=r"\A[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,3})?\Z"
        ),
    ]
    | int
    | float
)
"""A resource.Quantity as written ("500m", "1Gi", 2): what isn't one is refused where it is decoded, as upstream does.
See knarr.api.quantity."""

IntOrString = int | str
"""A number, or a string such as "25%" or a port's name (util/intstr)."""

Time = Annotated[datetime, msgspec.Meta(tz=True)]
"""metav1.Time: RFC 3339; a time without a zone is none."""

MicroTime = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}(Z|[+-][0-9]{2}:[0-9]{2})\Z"
    ),
]
"""metav1.MicroTime: RFC 3339 with exactly six decimals; see knarr.clock.micro_time."""

RawObject = Any
"""Any JSON value, kept as it came (runtime.RawExtension, apiextensions JSON, FieldsV1)."""

RawJSON = msgspec.Raw
"""JSON that hardly anybody looks into (FieldsV1): held as its bytes, none where there is none."""


class Struct(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel", forbid_unknown_fields=True, gc=False):
    """Base of all API types. They are trees, never cycles: the garbage collector need not look at them."""

    atomic: ClassVar[bool] = False
    """True when server-side apply owns the value as a whole (x-kubernetes-map-type: atomic)."""


class Merge(msgspec.Struct, frozen=True):
    """How lists (and a few maps) merge in strategic merge patch and server-side apply; sits in `Annotated`.

    `list_type` is x-kubernetes-list-type ("map", "set"; absent means atomic), `keys` its map keys, `patch_key` and
    `strategy` are x-kubernetes-patch-merge-key and -strategy.
    """

    list_type: str = "atomic"
    keys: tuple[str, ...] = ()
    patch_key: str | None = None
    strategy: tuple[str, ...] = ()
    map_type: str = ""
    """Of a map or struct: atomic or granular, where the field says otherwise than its type."""


def always(zero: Any, *, name: str | None = None) -> Any:
    """A field that is written even when it is zero. `zero` is a value, or a type to make one of."""
    make: Callable[[], Any]
    if isinstance(zero, (list, dict)):
        kind = type(zero)
        make = lambda: kind()  # noqa: E731 (msgspec leaves out what a bare list or dict factory made)
    elif isinstance(zero, type):
        make = lambda: zero()  # noqa: E731
    else:
        make = lambda: zero  # noqa: E731
    return msgspec.field(default_factory=make, name=name)


def is_always(field: Any) -> bool:
    """Whether a field, as msgspec.structs.fields tells of it, was declared with `always`."""
    make = field.default_factory
    return make is not msgspec.NODEFAULT and getattr(make, "__module__", "") == __name__


def named(name: str, default: Any) -> Any:
    """An optional field whose JSON name doesn't follow from its Python name (clusterIP)."""
    if isinstance(default, (list, dict)):
        return msgspec.field(default_factory=type(default), name=name)
    return msgspec.field(default=default, name=name)


S = TypeVar("S", bound=msgspec.Struct)


def replace(struct: S, /, **changes: Any) -> S:
    """A shallow copy of `struct` with some fields changed."""
    return msgspec.structs.replace(struct, **changes)


def json_name(kind: type[Struct], field: str) -> str:
    """How a field is written in JSON: `PersistentVolumeSpec`, `host_path` → `hostPath`."""
    return kind.__struct_encode_fields__[kind.__struct_fields__.index(field)]


def copy(struct: T) -> T:
    """A deep copy, free to be changed."""
    return _copy.deepcopy(struct)
