"""The types of the API group authentication, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import Int64, Struct, Time, always


class BoundObjectReference(Struct):
    api_version: str | None = None
    kind: str | None = None
    name: str | None = None
    uid: str | None = None


class SelfSubjectReview(Struct):
    api_version: str = always("authentication.k8s.io/v1")
    kind: str = always("SelfSubjectReview")
    metadata: ObjectMeta = always(ObjectMeta)
    status: SelfSubjectReviewStatus | None = None


class SelfSubjectReviewStatus(Struct):
    user_info: UserInfo | None = None


class TokenRequest(Struct):
    api_version: str = always("authentication.k8s.io/v1")
    kind: str = always("TokenRequest")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: TokenRequestSpec | None = None
    status: TokenRequestStatus | None = None


class TokenRequestSpec(Struct):
    audiences: list[str] = []
    bound_object_ref: BoundObjectReference | None = None
    expiration_seconds: Int64 | None = None


class TokenRequestStatus(Struct):
    expiration_timestamp: Time | None = None
    token: str | None = None


class TokenReviewSpec(Struct):
    audiences: list[str] = []
    token: str = always("")


class TokenReview(Struct):
    api_version: str = always("authentication.k8s.io/v1")
    kind: str = always("TokenReview")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: TokenReviewSpec = always(TokenReviewSpec)
    status: TokenReviewStatus | None = None


class TokenReviewStatus(Struct):
    audiences: list[str] = []
    authenticated: bool | None = None
    error: str | None = None
    user: UserInfo | None = None


class UserInfo(Struct):
    extra: dict[str, list[str]] = {}
    groups: list[str] = []
    uid: str | None = None
    username: str | None = None
