"""Nobody hands out rights that they don't have (RBAC's escalation prevention).

Who writes a role must hold all its rules, or have the verb escalate on it; who writes a binding must hold all rules
of the role that it gives, or have the verb bind on that role. A cluster role that collects others by labels can come
to hold anything: for that one must be able to do everything.
"""

from __future__ import annotations

from collections.abc import Sequence

from knarr.api.errors import NotFound
from knarr.api.rbac.v1 import ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding
from knarr.api.types import replace
from knarr.apiserver.action import Action
from knarr.apiserver.admission import Attributes
from knarr.apiserver.admission.refusal import refusal
from knarr.apiserver.authorize import MASTERS, Authorizer
from knarr.apiserver.rules import described, quoted, uncovered

GROUP = "rbac.authorization.k8s.io"
EVERYTHING = (
    PolicyRule(verbs=["*"], api_groups=["*"], resources=["*"]),
    PolicyRule(verbs=["*"], non_resource_urls=["*"]),
)


class Escalation:
    """Looks at roles and bindings that are about to be written."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def role(self, attributes: Attributes) -> None:
        """Raises Forbidden."""
        user, obj = attributes.user, attributes.obj
        if attributes.operation == "DELETE" or MASTERS in user.groups:
            return
        name = obj.metadata.name or "" if attributes.operation == "UPDATE" else ""
        plural = attributes.resource.plural
        escalate = Action("escalate", GROUP, "v1", plural, namespace=attributes.namespace, name=name)
        if await self._authorizer.allows(user, escalate) or _only_owners_change(attributes):
            return
        await self._must_hold(attributes, obj.rules)
        if _collects(obj) or _collects(attributes.old):
            owned, _, _ = await self._authorizer.rules_of(user, "")
            if uncovered(owned, EVERYTHING):
                raise refusal(attributes, "must have cluster-admin privileges to use an aggregationRule")

    async def binding(self, attributes: Attributes) -> None:
        """Raises Forbidden, NotFound."""
        user, obj = attributes.user, attributes.obj
        if attributes.operation == "DELETE" or MASTERS in user.groups or _only_owners_change(attributes):
            return
        reference = obj.role_ref
        plural = "clusterroles" if reference.kind == "ClusterRole" else "roles"
        bind = Action("bind", GROUP, "v1", plural, namespace=attributes.namespace, name=reference.name)
        if await self._authorizer.allows(user, bind):
            return
        await self._authorizer.rbac.follower.catch_up()
        rules = self._authorizer.rbac.rules_of(reference, attributes.namespace)
        if rules is None:
            raise NotFound.of(GROUP, reference.kind.lower(), reference.name)
        await self._must_hold(attributes, rules)

    async def _must_hold(self, attributes: Attributes, rules: Sequence[PolicyRule]) -> None:
        user = attributes.user
        owned, missing, _ = await self._authorizer.rules_of(user, attributes.namespace)
        lacking = uncovered(owned, rules)
        if not lacking:
            return
        listed = "\n".join(described(lacking))
        detail = f'user "{user.name}" (groups={quoted(user.groups)}) is attempting to grant RBAC permissions not '
        detail += f"currently held:\n{listed}"
        if missing:
            detail += f"; resolution errors: [{', '.join(missing)}]"
        raise refusal(attributes, detail)


def _collects(role: object) -> bool:
    return isinstance(role, ClusterRole) and role.aggregation_rule is not None


def _only_owners_change(attributes: Attributes) -> bool:
    """What the garbage collector changes needs no rights on rules."""
    new, old = attributes.obj, attributes.old
    if old is None:
        return False
    metadata = replace(
        new.metadata,
        owner_references=old.metadata.owner_references,
        finalizers=old.metadata.finalizers,
        managed_fields=old.metadata.managed_fields,
        resource_version=old.metadata.resource_version,
    )
    same: bool = replace(new, metadata=metadata) == old
    return same


ROLES = (Role, ClusterRole)
BINDINGS = (RoleBinding, ClusterRoleBinding)
