"""The types of the API group apiregistration, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import Int32, Merge, Struct, Time, always, named


class APIService(Struct):
    api_version: str = always("apiregistration.k8s.io/v1")
    kind: str = always("APIService")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: APIServiceSpec | None = None
    status: APIServiceStatus | None = None


class APIServiceCondition(Struct):
    last_transition_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class APIServiceSpec(Struct):
    ca_bundle: bytes | None = None
    group: str | None = None
    group_priority_minimum: Int32 = always(0)
    insecure_skip_tls_verify: bool | None = named("insecureSkipTLSVerify", None)
    service: ServiceReference | None = None
    version: str | None = None
    version_priority: Int32 = always(0)


class APIServiceStatus(Struct):
    conditions: Annotated[
        list[APIServiceCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))
    ] = []


class ServiceReference(Struct):
    name: str | None = None
    namespace: str | None = None
    port: Int32 | None = None
