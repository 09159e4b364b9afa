"""Which objects a list or watch is about: namespace, label selector, field selector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from knarr.api.decode import decoder
from knarr.api.errors import BadRequest
from knarr.api.resources import Resource
from knarr.api.selectors import FieldSelector, Selector, parse_field_selector, parse_selector

COMMON_FIELDS = ("metadata.name", "metadata.namespace")


class _Metadata(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}


class _Labelled(msgspec.Struct):
    metadata: _Metadata


_decode_metadata = msgspec.json.Decoder(_Labelled).decode


@dataclass(frozen=True, slots=True)
class Selection:
    """A resource's objects, or some of them."""

    resource: Resource
    namespace: str
    name: str
    labels: Selector
    fields: FieldSelector

    @classmethod
    def of(cls, resource: Resource, namespace: str, name: str, query: Mapping[str, str]) -> Selection:
        """From a request's path and query. Raises BadRequest."""
        try:
            labels = parse_selector(query.get("labelSelector", ""))
            fields = parse_field_selector(query.get("fieldSelector", ""))
        except ValueError as error:
            raise BadRequest(str(error)) from None
        known = (*COMMON_FIELDS, *resource.strategy.field_names)
        for requirement in fields.requirements:
            if requirement.field not in known:
                raise BadRequest(f'field label not supported: "{requirement.field}" (known are {", ".join(known)})')
        name = name or fields.exact("metadata.name") or ""
        namespace = namespace or fields.exact("metadata.namespace") or ""
        return cls(resource, namespace, name, labels, fields)

    @property
    def prefix(self) -> str:
        """The part of the store that holds all of it."""
        if self.name and (self.namespace or not self.resource.namespaced):
            return f"{self.resource.qualified}/{self.namespace}/{self.name}"
        if self.namespace:
            return f"{self.resource.qualified}/{self.namespace}/"
        return f"{self.resource.qualified}/"

    @property
    def everything(self) -> bool:
        """No object of the prefix is left out."""
        return not (self.labels.requirements or self.fields.requirements or self.name)

    def holds(self, value: bytes, memo: dict[object, object] | None = None, side: str = "") -> bool:
        """Whether an object is selected. `memo` keeps what was decoded, for the next who asks (`side`: old or new)."""
        if self.everything:
            return True
        metadata = _cached(memo, ("metadata", side), lambda: _decode_metadata(value).metadata)
        assert isinstance(metadata, _Metadata)
        if self.name and metadata.name != self.name:
            return False
        if not self.labels.matches(metadata.labels):
            return False
        if not self.fields.requirements:
            return True
        fields = _cached(memo, ("fields", side), lambda: self._fields(value, metadata))
        assert isinstance(fields, dict)
        return self.fields.matches(fields)

    def _fields(self, value: bytes, metadata: _Metadata) -> dict[str, str]:
        common = {"metadata.name": metadata.name, "metadata.namespace": metadata.namespace}
        return common | dict(self.resource.strategy.fields(decoder(self.resource.type).decode(value)))


def _cached(memo: dict[object, object] | None, key: object, make: Callable[[], object]) -> object:
    if memo is None:
        return make()
    if key not in memo:
        memo[key] = make()
    return memo[key]
