"""Which objects a list or watch is about: namespace, label selector, field selector."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from operator import attrgetter

import msgspec

from knarr.api.decode import decoder
from knarr.api.errors import BadRequest, shown
from knarr.api.resources import Resource
from knarr.api.selectors import FieldSelector, Operator, Selector, parse_field_selector, parse_selector
from knarr.apiserver.calls import presented
from knarr.store.contract import Part

NAMES = ("metadata.name", "metadata.namespace", "spec.nodeName", "involvedObject.name", "involvedObject.uid")
NAME = re.compile(r"[-a-z0-9.]+")
COMMON_FIELDS = ("metadata.name", "metadata.namespace")


class _Metadata(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}


class _Labelled(msgspec.Struct):
    metadata: _Metadata


_decode_metadata = msgspec.json.Decoder(_Labelled).decode


class Selection(msgspec.Struct, frozen=True):
    """A resource's objects, or some of them."""

    resource: Resource
    kept: Resource
    """The resource as it is in the store (see Registry.kept)."""
    namespace: str
    name: str
    labels: Selector
    fields: FieldSelector
    needles: tuple[bytes, ...] = ()
    """What the bytes of every selected object contain: most others are told apart without being decoded."""
    part: Part | None = None
    """Where all of it is, when the kind's objects are divided among those who watch them."""
    only_part: Part | None = None
    """The same, when nothing else decides."""

    @classmethod
    def of(cls, resource: Resource, kept: Resource, namespace: str, name: str, query: Mapping[str, str]) -> Selection:
        """From a request's path and query. Raises BadRequest."""
        try:
            labels = parse_selector(query.get("labelSelector", ""))
            fields = parse_field_selector(query.get("fieldSelector", ""))
        except ValueError as error:
            raise BadRequest(str(error)) from None
        known = (*COMMON_FIELDS, *resource.strategy.field_names)
        for requirement in fields.requirements:
            if requirement.field not in known:
                raise BadRequest(_unknown(requirement.field, resource))
        if name and fields.requirements and fields.exact("metadata.name") != name:
            raise BadRequest("fieldSelector metadata.name doesn't match requested name")
        name = name or fields.exact("metadata.name") or ""
        namespace = namespace or fields.exact("metadata.namespace") or ""
        field = kept.strategy.divided_by
        place = fields.exact(field) if field else None
        part = Part(_reader(field), place) if place is not None else None
        alone = not (name or labels.requirements) and len(fields.requirements) == 1
        needles = (*_of_labels(labels), *_of_fields(fields))
        return cls(resource, kept, namespace, name, labels, fields, needles, part, part if alone else None)

    @property
    def prefix(self) -> str:
        """The part of the store that holds all of it."""
        if self.name and (self.namespace or not self.resource.namespaced):
            return f"{self.kept.qualified}/{self.namespace}/{self.name}"
        if self.namespace:
            return f"{self.kept.qualified}/{self.namespace}/"
        return f"{self.kept.qualified}/"

    @property
    def everything(self) -> bool:
        """No object of the prefix is left out."""
        return not (self.labels.requirements or self.fields.requirements or self.name)

    @property
    def only_labels(self) -> bool:
        """Labels alone decide."""
        return not (self.fields.requirements or self.name)

    def holds(self, value: bytes, memo: dict[object, object] | None = None, side: str = "") -> bool:
        """Whether an object is selected. `memo` keeps what was decoded, for the next who asks (`side`: old or new)."""
        if self.everything:
            return True
        if any(needle not in value for needle in self.needles):
            return False
        if self.only_part is not None:
            part = self.only_part
            return _cached(memo, (part.place_of, side), lambda: part.place_of(value)) == part.place
        metadata = _cached(memo, ("metadata", side), lambda: _decode_metadata(value).metadata)
        assert isinstance(metadata, _Metadata)
        if self.name and metadata.name != self.name:
            return False
        if not self.labels.matches(metadata.labels):
            return False
        if not self.fields.requirements:
            return True
        fields = _cached(memo, (self.resource.type, side), lambda: self._fields(value, metadata))
        assert isinstance(fields, dict)
        return self.fields.matches(fields)

    def _fields(self, value: bytes, metadata: _Metadata) -> dict[str, str]:
        common = {"metadata.name": metadata.name, "metadata.namespace": metadata.namespace}
        return common | dict(
            self.resource.strategy.fields(decoder(self.resource.type).decode(presented(self.resource, value)))
        )


@cache
def _reader(field: str) -> Callable[[bytes], str]:
    """Reads one text (spec.nodeName) of an object, and steps over all else; empty where it isn't there."""
    *way, last = field.split(".")
    type_ = msgspec.defstruct("Object", [(last, str | None, None)])
    for name in reversed(way):
        type_ = msgspec.defstruct("Object", [(name, type_, msgspec.field(default_factory=type_))])
    decode, value_of = msgspec.json.Decoder(type_).decode, attrgetter(field)
    return lambda value: value_of(decode(value)) or ""


def _unknown(field: str, resource: Resource) -> str:
    """Kinds with fields of their own say it in other words than those without."""
    if resource.strategy.field_names:
        return f"field label not supported: {field}"
    return f'{shown(field)} is not a known field selector: only "metadata.name", "metadata.namespace"'


def _of_labels(labels: Selector) -> Iterator[bytes]:
    """Keys and values of labels have no character that JSON would write otherwise."""
    for requirement in labels.requirements:
        if requirement.operator is Operator.IN and len(requirement.values) == 1:
            yield f'"{requirement.key}":"{next(iter(requirement.values))}"'.encode()
        elif requirement.operator in (Operator.IN, Operator.EXISTS):
            yield f'"{requirement.key}":'.encode()


def _of_fields(fields: FieldSelector) -> Iterator[bytes]:
    """Only of names: what else a field says (true, 0, nothing at all) may be written in other ways, or left out."""
    for requirement in fields.requirements:
        if requirement.equal and requirement.field in NAMES and NAME.fullmatch(requirement.value):
            yield f'"{requirement.value}"'.encode()


def _cached(memo: dict[object, object] | None, key: object, make: Callable[[], object]) -> object:
    if memo is None:
        return make()
    if key not in memo:
        memo[key] = make()
    return memo[key]
