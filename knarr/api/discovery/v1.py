"""The types of the API group discovery, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.core.v1 import ObjectReference
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import Int32, Merge, Struct, always


class Endpoint(Struct):
    addresses: Annotated[list[str], Merge("set")] = always([])
    conditions: EndpointConditions | None = None
    deprecated_topology: dict[str, str] = {}
    hints: EndpointHints | None = None
    hostname: str | None = None
    node_name: str | None = None
    target_ref: ObjectReference | None = None
    zone: str | None = None


class EndpointConditions(Struct):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class EndpointHints(Struct):
    for_nodes: list[ForNode] = []
    for_zones: list[ForZone] = []


class EndpointPort(Struct):
    atomic = True

    app_protocol: str | None = None
    name: str | None = None
    port: Int32 | None = None
    protocol: str | None = None


class EndpointSlice(Struct):
    api_version: str = always("discovery.k8s.io/v1")
    kind: str = always("EndpointSlice")
    metadata: ObjectMeta = always(ObjectMeta)
    address_type: str = always("")
    endpoints: list[Endpoint] = []
    ports: list[EndpointPort] = []


class ForNode(Struct):
    name: str = always("")


class ForZone(Struct):
    name: str = always("")
