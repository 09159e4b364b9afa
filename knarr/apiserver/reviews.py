"""Questions about access: who am I, who is this token, may I, may they, what may I (authentication, authorization).

They are answered from the same authenticator and authorizer that decide on requests, and never kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knarr.api.authentication.v1 import (
    SelfSubjectReview,
    SelfSubjectReviewStatus,
    TokenReview,
    TokenReviewStatus,
    UserInfo,
)
from knarr.api.authorization.v1 import (
    LocalSubjectAccessReview,
    NonResourceAttributes,
    NonResourceRule,
    ResourceAttributes,
    ResourceRule,
    SelfSubjectAccessReview,
    SelfSubjectRulesReview,
    SubjectAccessReview,
    SubjectAccessReviewStatus,
    SubjectRulesReviewStatus,
)
from knarr.api.errors import BadRequest, Cause, Invalid, Unauthorized, invalid
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.rbac.v1 import PolicyRule
from knarr.apiserver.action import Action
from knarr.apiserver.authenticate import Authenticator
from knarr.apiserver.authorize import Authorizer
from knarr.apiserver.calls import Call
from knarr.client.transport import User

AUTHORIZATION = "authorization.k8s.io"


class Reviews:
    """A method a kind."""

    def __init__(self, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer

    def by_type(self) -> dict[type[Any], Any]:
        return {
            TokenReview: self.token,
            SelfSubjectReview: self.self_subject,
            SubjectAccessReview: self.subject_access,
            LocalSubjectAccessReview: self.local_subject_access,
            SelfSubjectAccessReview: self.self_subject_access,
            SelfSubjectRulesReview: self.self_subject_rules,
        }

    async def self_subject(self, call: Call, review: SelfSubjectReview) -> SelfSubjectReview:
        review.status = SelfSubjectReviewStatus(user_info=_user_info(call.user))
        return review

    async def token(self, call: Call, review: TokenReview) -> TokenReview:
        """Raises BadRequest."""
        if not review.spec.token:
            raise BadRequest("token is required for TokenReview in authentication")
        try:
            user, audiences = await self._authenticator.user_of(review.spec.token, review.spec.audiences)
        except Unauthorized as error:
            review.status = TokenReviewStatus(error=error.message)
        else:
            review.status = TokenReviewStatus(authenticated=True, user=_user_info(user), audiences=list(audiences))
        return review

    async def subject_access(self, call: Call, review: SubjectAccessReview) -> SubjectAccessReview:
        """Raises Invalid."""
        _refuse(review, [*_metadata_faults(review.metadata), *_spec_faults(review.spec), *_subject_faults(review.spec)])
        review.status = await self._status(_user(review), _action(review.spec))
        return review

    async def local_subject_access(self, call: Call, review: LocalSubjectAccessReview) -> LocalSubjectAccessReview:
        """Raises BadRequest, Invalid."""
        namespace = review.metadata.namespace = review.metadata.namespace or call.path.namespace
        if namespace != call.path.namespace:
            raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")
        _refuse(review, _local_faults(review))
        review.status = await self._status(_user(review), _action(review.spec))
        return review

    async def self_subject_access(self, call: Call, review: SelfSubjectAccessReview) -> SelfSubjectAccessReview:
        """Raises Invalid."""
        _refuse(review, [*_metadata_faults(review.metadata), *_spec_faults(review.spec)])
        review.status = await self._status(call.user, _action(review.spec))
        return review

    async def self_subject_rules(self, call: Call, review: SelfSubjectRulesReview) -> SelfSubjectRulesReview:
        """Raises BadRequest."""
        namespace = review.spec.namespace
        if not namespace:
            raise BadRequest("no namespace on request")
        rules, missing, incomplete = await self._authorizer.rules_of(call.user, namespace)
        status = SubjectRulesReviewStatus(incomplete=incomplete, evaluation_error=", ".join(missing) or None)
        for rule in rules:
            _add(status, rule)
        review.status = status
        return review

    async def _status(self, user: User, action: Action) -> SubjectAccessReviewStatus:
        allowed, reason = await self._authorizer.decide(user, action)
        return SubjectAccessReviewStatus(allowed=allowed, reason=reason or None)


def _add(status: SubjectRulesReviewStatus, rule: PolicyRule) -> None:
    if rule.non_resource_urls:
        status.non_resource_rules.append(
            NonResourceRule(verbs=list(rule.verbs), non_resource_urls=list(rule.non_resource_urls))
        )
    else:
        status.resource_rules.append(
            ResourceRule(
                verbs=list(rule.verbs),
                api_groups=list(rule.api_groups),
                resources=list(rule.resources),
                resource_names=list(rule.resource_names),
            )
        )


def _user_info(user: User) -> UserInfo:
    extra = {key: list(values) for key, values in user.extra.items()}
    return UserInfo(username=user.name or None, uid=user.uid or None, groups=list(user.groups), extra=extra)


def _user(review: SubjectAccessReview | LocalSubjectAccessReview) -> User:
    spec = review.spec
    extra = {key: tuple(values) for key, values in spec.extra.items()}
    return User(spec.user or "", tuple(spec.groups), spec.uid or "", extra)


def _action(spec: Any) -> Action:
    """What a review asks about."""
    if spec.non_resource_attributes is not None:
        asked: NonResourceAttributes = spec.non_resource_attributes
        return Action(asked.verb or "", path=asked.path or "/")
    wanted: ResourceAttributes = spec.resource_attributes
    return Action(
        wanted.verb or "",
        wanted.group or "",
        wanted.version or "*",
        wanted.resource or "",
        wanted.subresource or "",
        wanted.namespace or "",
        wanted.name or "",
        field_selector=_selector(wanted),
    )


def _selector(wanted: ResourceAttributes) -> str:
    """The field selector, written out; what can't be is left out: then less is allowed."""
    selector = wanted.field_selector
    if selector is None:
        return ""
    if selector.raw_selector:
        return selector.raw_selector
    return ",".join(
        f"{each.key}{'=' if each.operator == 'In' else '!='}{each.values[0]}"
        for each in selector.requirements
        if each.operator in ("In", "NotIn") and len(each.values) == 1
    )


def _metadata_faults(metadata: ObjectMeta) -> Iterable[Cause]:
    if metadata != ObjectMeta(managed_fields=metadata.managed_fields):
        yield invalid("metadata", metadata, "must be empty")


def _spec_faults(spec: Any) -> Iterable[Cause]:
    urls, resources = spec.non_resource_attributes, spec.resource_attributes
    if urls is not None and resources is not None:
        yield invalid("spec.nonResourceAttributes", urls, "cannot be specified in combination with resourceAttributes")
    if urls is None and resources is None:
        detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        yield invalid("spec.resourceAttributes", None, detail)


def _subject_faults(spec: Any) -> Iterable[Cause]:
    if not spec.user and not spec.groups:
        yield invalid("spec.user", "", "at least one of user or group must be specified")


def _local_faults(review: LocalSubjectAccessReview) -> Iterable[Cause]:
    metadata, spec = review.metadata, review.spec
    yield from _spec_faults(spec)
    yield from _subject_faults(spec)
    if metadata != ObjectMeta(namespace=metadata.namespace, managed_fields=metadata.managed_fields):
        yield invalid("metadata", metadata, "must be empty except for namespace")
    if spec.resource_attributes and (spec.resource_attributes.namespace or "") != metadata.namespace:
        asked = spec.resource_attributes.namespace or ""
        yield invalid("spec.resourceAttributes.namespace", asked, "must match metadata.namespace")
    if spec.non_resource_attributes is not None:
        urls = spec.non_resource_attributes
        yield invalid("spec.nonResourceAttributes", urls, "disallowed on this kind of request")


def _refuse(review: Any, causes: Iterable[Cause]) -> None:
    if found := list(causes):
        raise Invalid.of(AUTHORIZATION, review.kind, "", found)
