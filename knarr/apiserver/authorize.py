"""Whether they may: system:masters always, nodes what their pods need, everyone else what roles and bindings give.

Three authorizers in a row, as upstream's `--authorization-mode=Node,RBAC`: the first that allows decides; none of them
denies. What nobody allows is answered with 403 and what each had to say.
"""

from __future__ import annotations

from typing import Protocol

from knarr.api.errors import Forbidden
from knarr.api.rbac.v1 import PolicyRule
from knarr.apiserver.action import Action
from knarr.apiserver.follow import Follower
from knarr.apiserver.node_authorizer import NodeAuthorizer
from knarr.apiserver.rbac import RBAC
from knarr.client.transport import User
from knarr.store.contract import Store

MASTERS = "system:masters"
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
"""Messages may be shown by a browser: upstream defuses them so."""


class Opinion(Protocol):
    """One authorizer."""

    follower: Follower

    def concerns(self, user: User) -> bool:
        """Whether it has rules for such a user at all."""

    def allows(self, user: User, action: Action) -> bool: ...

    def explain(self, user: User, action: Action) -> tuple[bool, str]:
        """Whether it allows, and why (or why not; may be empty)."""


class Authorizer:
    """All of them, asked in order."""

    def __init__(self, store: Store) -> None:
        self.rbac = RBAC(store)
        self.nodes = NodeAuthorizer(store)
        self._opinions: tuple[Opinion, ...] = (self.nodes, self.rbac)
        self.allowed = self.refused = 0

    async def authorize(self, user: User, action: Action) -> None:
        """Raises Forbidden."""
        if MASTERS in user.groups:
            self.allowed += 1
            return
        for opinion in self._opinions:
            if not opinion.concerns(user):
                continue
            if not opinion.follower.fresh():
                await opinion.follower.catch_up()
            if opinion.allows(user, action):
                self.allowed += 1
                return
        self.refused += 1
        raise forbidden(user, action, (await self.decide(user, action))[1])

    async def allows(self, user: User, action: Action) -> bool:
        return (await self.decide(user, action))[0]

    async def decide(self, user: User, action: Action) -> tuple[bool, str]:
        """Whether it is allowed, and why."""
        if MASTERS in user.groups:
            return True, ""
        reasons = []
        for opinion in self._opinions:
            if not opinion.concerns(user):
                continue
            await opinion.follower.catch_up()
            allowed, reason = opinion.explain(user, action)
            if allowed:
                return True, reason
            reasons += [reason] if reason else []
        return False, "\n".join(reasons)

    async def rules_of(self, user: User, namespace: str) -> tuple[list[PolicyRule], list[str], bool]:
        """All rules that a user has, what is wrong with some, and whether there are more that are no rules."""
        await self.rbac.follower.catch_up()
        grants = list(self.rbac.grants(user, namespace))
        missing = [grant.missing for grant in grants if grant.missing]
        is_node = self.nodes.concerns(user)
        if is_node:
            missing.insert(0, "node authorizer does not support user rule resolution")
        return [rule for grant in grants for rule in grant.rules], missing, is_node or bool(missing)

    async def close(self) -> None:
        for opinion in self._opinions:
            await opinion.follower.close()


def forbidden(user: User, action: Action, reason: str = "") -> Forbidden:
    """The answer to who may not, in upstream's words."""
    detail = _sentence(user, action).translate(_HTML) + (f": {reason}" if reason else "")
    if action.path:
        return Forbidden(f"forbidden: {detail}")
    resource = f"{action.resource}.{action.group}" if action.group else action.resource
    subject = f'{resource} "{action.name}"' if action.name else resource
    return Forbidden(f"{subject} is forbidden: {detail}", group=action.group, kind=action.resource, name=action.name)


def _sentence(user: User, action: Action) -> str:
    if action.path:
        return f'User "{user.name}" cannot {action.verb} path "{action.path}"'
    where = f'in the namespace "{action.namespace}"' if action.namespace else "at the cluster scope"
    return (
        f'User "{user.name}" cannot {action.verb} resource "{action.full_resource}" '
        f'in API group "{action.group}" {where}'
    )
