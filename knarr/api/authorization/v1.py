"""The types of the API group authorization, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from knarr.api.meta.v1 import FieldSelectorRequirement, LabelSelectorRequirement, ObjectMeta
from knarr.api.types import Struct, always, named


class FieldSelectorAttributes(Struct):
    raw_selector: str | None = None
    requirements: list[FieldSelectorRequirement] = []


class LabelSelectorAttributes(Struct):
    raw_selector: str | None = None
    requirements: list[LabelSelectorRequirement] = []


class SubjectAccessReviewSpec(Struct):
    extra: dict[str, list[str]] = {}
    groups: list[str] = []
    non_resource_attributes: NonResourceAttributes | None = None
    resource_attributes: ResourceAttributes | None = None
    uid: str | None = None
    user: str | None = None


class LocalSubjectAccessReview(Struct):
    api_version: str = always("authorization.k8s.io/v1")
    kind: str = always("LocalSubjectAccessReview")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: SubjectAccessReviewSpec = always(SubjectAccessReviewSpec)
    status: SubjectAccessReviewStatus | None = None


class NonResourceAttributes(Struct):
    path: str | None = None
    verb: str | None = None


class NonResourceRule(Struct):
    non_resource_urls: list[str] = named("nonResourceURLs", [])
    verbs: list[str] = always([])


class ResourceAttributes(Struct):
    field_selector: FieldSelectorAttributes | None = None
    group: str | None = None
    label_selector: LabelSelectorAttributes | None = None
    name: str | None = None
    namespace: str | None = None
    resource: str | None = None
    subresource: str | None = None
    verb: str | None = None
    version: str | None = None


class ResourceRule(Struct):
    api_groups: list[str] = []
    resource_names: list[str] = []
    resources: list[str] = []
    verbs: list[str] = always([])


class SelfSubjectAccessReviewSpec(Struct):
    non_resource_attributes: NonResourceAttributes | None = None
    resource_attributes: ResourceAttributes | None = None


class SelfSubjectAccessReview(Struct):
    api_version: str = always("authorization.k8s.io/v1")
    kind: str = always("SelfSubjectAccessReview")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: SelfSubjectAccessReviewSpec = always(SelfSubjectAccessReviewSpec)
    status: SubjectAccessReviewStatus | None = None


class SelfSubjectRulesReviewSpec(Struct):
    namespace: str | None = None


class SelfSubjectRulesReview(Struct):
    api_version: str = always("authorization.k8s.io/v1")
    kind: str = always("SelfSubjectRulesReview")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: SelfSubjectRulesReviewSpec = always(SelfSubjectRulesReviewSpec)
    status: SubjectRulesReviewStatus | None = None


class SubjectAccessReview(Struct):
    api_version: str = always("authorization.k8s.io/v1")
    kind: str = always("SubjectAccessReview")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: SubjectAccessReviewSpec = always(SubjectAccessReviewSpec)
    status: SubjectAccessReviewStatus | None = None


class SubjectAccessReviewStatus(Struct):
    allowed: bool = always(False)
    denied: bool | None = None
    evaluation_error: str | None = None
    reason: str | None = None


class SubjectRulesReviewStatus(Struct):
    evaluation_error: str | None = None
    incomplete: bool = always(False)
    non_resource_rules: list[NonResourceRule] = always([])
    resource_rules: list[ResourceRule] = always([])
