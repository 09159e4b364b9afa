"""Roles and bindings: what may be done, and who may do it (rbac.authorization.k8s.io).

A rule is about resources or about URLs, never both. What a binding refers to never changes: who wants another role
makes another binding. Names may hold a colon, since upstream's own do (system:node).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from knarr.api import names
from knarr.api.core.validate_values import validate_selector
from knarr.api.errors import Cause, invalid, not_supported, required
from knarr.api.printing import age, created_at
from knarr.api.rbac.v1 import ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject
from knarr.api.resources import Column, Strategy

GROUP = "rbac.authorization.k8s.io"


class _Named(Strategy[Any]):
    name_faults = staticmethod(names.path_segment_faults)


class RoleStrategy(_Named):
    def validate(self, obj: Role) -> Iterable[Cause]:
        for index, rule in enumerate(obj.rules):
            yield from validate_rule(rule, f"rules[{index}]", namespaced=True)


class ClusterRoleStrategy(_Named):
    def validate(self, obj: ClusterRole) -> Iterable[Cause]:
        for index, rule in enumerate(obj.rules):
            yield from validate_rule(rule, f"rules[{index}]", namespaced=False)
        if obj.aggregation_rule is None:
            return
        path = "aggregationRule.clusterRoleSelectors"
        if not obj.aggregation_rule.cluster_role_selectors:
            yield required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")
        for index, selector in enumerate(obj.aggregation_rule.cluster_role_selectors):
            yield from validate_selector(selector, f"{path}[{index}]")


def validate_rule(rule: PolicyRule, path: str, *, namespaced: bool) -> Iterable[Cause]:
    """A rule of a Role (`namespaced`) or of a ClusterRole."""
    if not rule.verbs:
        yield required(f"{path}.verbs", "verbs must contain at least one value")
    if rule.non_resource_urls:
        urls = f"{path}.nonResourceURLs"
        if namespaced:
            yield invalid(urls, rule.non_resource_urls, "namespaced rules cannot apply to non-resource URLs")
        if rule.api_groups or rule.resources or rule.resource_names:
            detail = "rules cannot apply to both regular resources and non-resource URLs"
            yield invalid(urls, rule.non_resource_urls, detail)
        return
    if not rule.api_groups:
        yield required(f"{path}.apiGroups", "resource rules must supply at least one api group")
    if not rule.resources:
        yield required(f"{path}.resources", "resource rules must supply at least one resource")


class BindingStrategy(_Named):
    """Of both kinds of bindings."""

    def __init__(self, *, namespaced: bool) -> None:
        self.namespaced = namespaced
        self.role_kinds = ("Role", "ClusterRole") if namespaced else ("ClusterRole",)

    def default(self, obj: RoleBinding | ClusterRoleBinding) -> None:
        obj.role_ref.api_group = obj.role_ref.api_group or GROUP
        for subject in obj.subjects:
            if not subject.api_group and subject.kind in ("User", "Group"):
                subject.api_group = GROUP

    def validate(self, obj: RoleBinding | ClusterRoleBinding) -> Iterable[Cause]:
        reference = obj.role_ref
        if reference.api_group != GROUP:
            yield not_supported("roleRef.apiGroup", reference.api_group, (GROUP,))
        if reference.kind not in self.role_kinds:
            yield not_supported("roleRef.kind", reference.kind, self.role_kinds)
        if not reference.name:
            yield required("roleRef.name")
        else:
            for fault in names.path_segment_faults(reference.name):
                yield invalid("roleRef.name", reference.name, fault)
        for index, subject in enumerate(obj.subjects):
            yield from self._validate_subject(subject, f"subjects[{index}]")

    def _validate_subject(self, subject: Subject, path: str) -> Iterable[Cause]:
        if not subject.name:
            yield required(f"{path}.name")
        group = subject.api_group or ""
        match subject.kind:
            case "ServiceAccount":
                for fault in names.dns1123_subdomain_faults(subject.name) if subject.name else ():
                    yield invalid(f"{path}.name", subject.name, fault)
                if group:
                    yield not_supported(f"{path}.apiGroup", group, ("",))
                if not self.namespaced and not subject.namespace:
                    yield required(f"{path}.namespace")
            case "User" | "Group":
                if group != GROUP:
                    yield not_supported(f"{path}.apiGroup", group, (GROUP,))
            case kind:
                yield not_supported(f"{path}.kind", kind, ("Group", "ServiceAccount", "User"))

    def validate_update(
        self, obj: RoleBinding | ClusterRoleBinding, old: RoleBinding | ClusterRoleBinding
    ) -> Iterable[Cause]:
        if obj.role_ref != old.role_ref:
            yield invalid("roleRef", obj.role_ref, "cannot change roleRef")


def _subjects(kind: str) -> Any:
    def cell(binding: RoleBinding | ClusterRoleBinding, now_s: float) -> str:
        return ", ".join(_shown(binding.subjects, kind))

    return cell


def _shown(subjects: Sequence[Subject], kind: str) -> Iterable[str]:
    for subject in subjects:
        if subject.kind == kind:
            yield f"{subject.namespace or ''}/{subject.name}" if kind == "ServiceAccount" else subject.name


ROLE_COLUMNS = (Column("Created At", created_at),)
BINDING_COLUMNS = (
    Column("Role", lambda binding, now_s: f"{binding.role_ref.kind}/{binding.role_ref.name}"),
    Column("Age", lambda binding, now_s: age(binding.metadata.creation_timestamp, now_s)),
    Column("Users", _subjects("User"), priority=1),
    Column("Groups", _subjects("Group"), priority=1),
    Column("ServiceAccounts", _subjects("ServiceAccount"), priority=1),
)
