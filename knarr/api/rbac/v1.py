"""The types of the API group rbac, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from knarr.api.meta.v1 import LabelSelector, ObjectMeta
from knarr.api.types import Struct, always, named


class AggregationRule(Struct):
    cluster_role_selectors: list[LabelSelector] = []


class ClusterRole(Struct):
    api_version: str = always("rbac.authorization.k8s.io/v1")
    kind: str = always("ClusterRole")
    metadata: ObjectMeta = always(ObjectMeta)
    aggregation_rule: AggregationRule | None = None
    rules: list[PolicyRule] = []


class RoleRef(Struct):
    atomic = True

    api_group: str | None = None
    kind: str = always("")
    name: str = always("")


class ClusterRoleBinding(Struct):
    api_version: str = always("rbac.authorization.k8s.io/v1")
    kind: str = always("ClusterRoleBinding")
    metadata: ObjectMeta = always(ObjectMeta)
    role_ref: RoleRef = always(RoleRef)
    subjects: list[Subject] = []


class PolicyRule(Struct):
    api_groups: list[str] = []
    non_resource_urls: list[str] = named("nonResourceURLs", [])
    resource_names: list[str] = []
    resources: list[str] = []
    verbs: list[str] = always([])


class Role(Struct):
    api_version: str = always("rbac.authorization.k8s.io/v1")
    kind: str = always("Role")
    metadata: ObjectMeta = always(ObjectMeta)
    rules: list[PolicyRule] = []


class RoleBinding(Struct):
    api_version: str = always("rbac.authorization.k8s.io/v1")
    kind: str = always("RoleBinding")
    metadata: ObjectMeta = always(ObjectMeta)
    role_ref: RoleRef = always(RoleRef)
    subjects: list[Subject] = []


class Subject(Struct):
    atomic = True

    api_group: str | None = None
    kind: str = always("")
    name: str = always("")
    namespace: str | None = None
