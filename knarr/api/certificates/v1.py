"""The types of the API group certificates, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import Int32, Merge, Struct, Time, always


class CertificateSigningRequestSpec(Struct):
    expiration_seconds: Int32 | None = None
    extra: dict[str, list[str]] = {}
    groups: list[str] = []
    request: bytes = always(b"")
    signer_name: str = always("")
    uid: str | None = None
    usages: list[str] = []
    username: str | None = None


class CertificateSigningRequest(Struct):
    api_version: str = always("certificates.k8s.io/v1")
    kind: str = always("CertificateSigningRequest")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: CertificateSigningRequestSpec = always(CertificateSigningRequestSpec)
    status: CertificateSigningRequestStatus | None = None


class CertificateSigningRequestCondition(Struct):
    last_transition_time: Time | None = None
    last_update_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class CertificateSigningRequestStatus(Struct):
    certificate: bytes | None = None
    conditions: Annotated[list[CertificateSigningRequestCondition], Merge("map", keys=("type",))] = []
