"""Cluster roles that collect others: their rules are those of all cluster roles that their selectors find.

So admin, edit and view grow with whatever carries the label rbac.authorization.k8s.io/aggregate-to-<role>.
"""

from __future__ import annotations

from knarr.api.rbac.v1 import ClusterRole, PolicyRule
from knarr.api.selectors import selector_of
from knarr.api.types import replace
from knarr.client.controller import Controller


class ClusterRoleAggregation(Controller):
    """Writes the rules of each v1 ClusterRole that has an aggregationRule."""

    name = "clusterrole-aggregation-controller"

    def watch(self) -> None:
        self.roles = self.informer(ClusterRole)
        self.on(self.roles, lambda role: self._collecting())

    def _collecting(self) -> list[str]:
        """Any change may concern any of them: there are few."""
        return [role.metadata.name or "" for role in self.roles.all() if role.aggregation_rule]

    async def reconcile(self, key: str) -> None:
        role = self.roles.get(key)
        if role is None or role.aggregation_rule is None or role.metadata.deletion_timestamp:
            return
        rules = collected(role, self.roles.all())
        if rules != role.rules:
            await self.client.update(replace(role, rules=rules))


def collected(role: ClusterRole, roles: list[ClusterRole]) -> list[PolicyRule]:
    """The rules of all roles that are found, in the order of their names, each rule once."""
    assert role.aggregation_rule
    selectors = [selector_of(selector) for selector in role.aggregation_rule.cluster_role_selectors]
    rules: list[PolicyRule] = []
    for selector in selectors:
        for other in sorted(roles, key=lambda each: each.metadata.name or ""):
            if other.metadata.name == role.metadata.name or selector is None:
                continue
            if selector.matches(other.metadata.labels):
                rules += [rule for rule in other.rules if rule not in rules]
    return rules
