"""At each start the default roles and bindings are put right: what is missing of them is added, nothing is taken away.

Upstream's auto-reconciliation: a role or binding whose annotation rbac.authorization.kubernetes.io/autoupdate is
"false" is left as it is. A binding that leads to another role is replaced. Whatever an administrator has added stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from knarr.api.errors import AlreadyExists, NotFound
from knarr.api.meta.v1 import LabelSelector, ObjectMeta
from knarr.api.rbac.v1 import (
    AggregationRule,
    ClusterRole,
    ClusterRoleBinding,
    PolicyRule,
    Role,
    RoleBinding,
    RoleRef,
    Subject,
)
from knarr.api.types import replace
from knarr.apiserver import default_roles as defaults
from knarr.apiserver.default_controller_roles import CONTROLLER_ROLES
from knarr.apiserver.rules import uncovered
from knarr.client.client import Client

AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
GROUP = "rbac.authorization.k8s.io"
AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
PREFIX = "system:controller:"


async def reconcile_roles(client: Client) -> None:
    """Make what is missing. May be repeated, also by several servers at once."""
    wanted = tuple(default_objects())
    kinds: tuple[type[Any], ...] = (ClusterRole, ClusterRoleBinding, Role, RoleBinding)
    found = {(kind, _key(obj)): obj for kind in kinds for obj in (await client.list(kind)).items}
    async with asyncio.TaskGroup() as group:  # As many as there are defaults: their writes share their commits.
        for obj in wanted:
            group.create_task(_reconcile(client, obj, found.get((type(obj), _key(obj)))))


def default_objects() -> Iterator[Any]:
    """All default roles and bindings."""
    for name, rules in defaults.CLUSTER_ROLES.items():
        yield _cluster_role(name, rules)
    for name, rules in CONTROLLER_ROLES.items():
        yield _cluster_role(PREFIX + name, rules)
    bound = {PREFIX + name: (defaults.account(name),) for name in CONTROLLER_ROLES}
    for name, subjects in (defaults.CLUSTER_BINDINGS | bound).items():
        reference = RoleRef(api_group=GROUP, kind="ClusterRole", name=name)
        yield ClusterRoleBinding(metadata=_metadata(name), role_ref=reference, subjects=_copies(subjects))
    for name, (role, subject) in defaults.JOIN_BINDINGS.items():
        reference = RoleRef(api_group=GROUP, kind="ClusterRole", name=role)
        yield ClusterRoleBinding(metadata=_metadata(name), role_ref=reference, subjects=_copies((subject,)))
    for (namespace, name), rules in defaults.ROLES.items():
        yield Role(metadata=_metadata(name, namespace), rules=list(rules))
    for (namespace, name, role), subjects in defaults.BINDINGS.items():
        reference = RoleRef(api_group=GROUP, kind="Role", name=role)
        yield RoleBinding(metadata=_metadata(name, namespace), role_ref=reference, subjects=_copies(subjects))


def _cluster_role(name: str, rules: tuple[PolicyRule, ...]) -> ClusterRole:
    metadata = _metadata(name)
    for label in defaults.AGGREGATED_TO.get(name, "").split():
        metadata.labels[AGGREGATE + label] = "true"
    aggregation = None
    if collected := defaults.AGGREGATED.get(name):
        aggregation = AggregationRule(
            cluster_role_selectors=[LabelSelector(match_labels={AGGREGATE + collected: "true"})]
        )
        # The aggregation loop keeps it so; the first answer shall not have to wait for it.
        rules = tuple(_aggregated(collected))
    return ClusterRole(metadata=metadata, rules=list(rules), aggregation_rule=aggregation)


def _aggregated(label: str) -> Iterator[PolicyRule]:
    """The rules that a label collects, in the order of the roles' names, each once."""
    seen: list[PolicyRule] = []
    for name in sorted(name for name, given in defaults.AGGREGATED_TO.items() if label in given.split()):
        inner = defaults.AGGREGATED.get(name)
        for rule in _aggregated(inner) if inner else defaults.CLUSTER_ROLES[name]:
            if rule not in seen:
                seen.append(rule)
                yield rule


def _metadata(name: str, namespace: str | None = None) -> ObjectMeta:
    return ObjectMeta(name=name, namespace=namespace, labels=dict(LABELS), annotations={AUTOUPDATE: "true"})


def _copies(subjects: tuple[Subject, ...]) -> list[Subject]:
    return [replace(subject) for subject in subjects]


def _key(obj: Any) -> str:
    return f"{obj.metadata.namespace or ''}/{obj.metadata.name}"


async def _reconcile(client: Client, wanted: Any, found: Any) -> None:
    try:
        if found is None:
            await client.create(wanted)
        elif found.metadata.annotations.get(AUTOUPDATE) == "false":
            return
        elif isinstance(found, (Role, ClusterRole)):
            if changed := updated_role(found, wanted):
                await client.update(changed)
        elif found.role_ref != wanted.role_ref:
            await client.delete(type(found), found.metadata.name, found.metadata.namespace, uid=found.metadata.uid)
            await client.create(wanted)
        elif changed := updated_binding(found, wanted):
            await client.update(changed)
    except (AlreadyExists, NotFound):
        pass  # Another server does the same.


def updated_role(found: Any, wanted: Any) -> Any | None:
    """The role with what it lacks; None when it lacks nothing."""
    changed = replace(found, metadata=_updated_metadata(found.metadata, wanted.metadata))
    if isinstance(wanted, ClusterRole) and wanted.aggregation_rule:
        have = found.aggregation_rule.cluster_role_selectors if found.aggregation_rule else []
        more = [each for each in wanted.aggregation_rule.cluster_role_selectors if each not in have]
        changed.aggregation_rule = AggregationRule(cluster_role_selectors=[*have, *more])
    else:
        lacking = [rule for rule in wanted.rules if uncovered(found.rules, [rule])]
        changed.rules = [*found.rules, *lacking]
    return None if changed == found else changed


def updated_binding(found: Any, wanted: Any) -> Any | None:
    """The binding with the subjects that it lacks; None when it lacks nothing."""
    changed = replace(found, metadata=_updated_metadata(found.metadata, wanted.metadata))
    changed.subjects = [*found.subjects, *(each for each in wanted.subjects if each not in found.subjects)]
    return None if changed == found else changed


def _updated_metadata(found: ObjectMeta, wanted: ObjectMeta) -> ObjectMeta:
    """What is there wins."""
    return replace(
        found,
        labels=wanted.labels | found.labels,
        annotations=wanted.annotations | found.annotations,
    )
