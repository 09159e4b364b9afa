"""RBAC: who may do what, as roles and bindings say (rbac.authorization.k8s.io).

Roles and bindings are held in memory and follow the store: a right that was revoked is gone with the next request. What
was decided for a user is remembered until a role or a binding changes, so that the usual request costs one look-up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct, field

from knarr.api.decode import decoder
from knarr.api.rbac.v1 import ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject
from knarr.apiserver.action import Action
from knarr.apiserver.follow import Follower
from knarr.apiserver.rules import allows_resource, allows_url
from knarr.client.transport import User
from knarr.store.contract import Store

DECISIONS_KEPT_MAX = 50_000
"""Decisions that are remembered (about 200 bytes each); when there are more, all are made anew."""

ROLES = "roles.rbac.authorization.k8s.io/"
CLUSTER_ROLES = "clusterroles.rbac.authorization.k8s.io/"
BINDINGS = "rolebindings.rbac.authorization.k8s.io/"
CLUSTER_BINDINGS = "clusterrolebindings.rbac.authorization.k8s.io/"


class Grant(Struct, frozen=True):
    """Rules that a user has, and why."""

    rules: tuple[PolicyRule, ...]
    binding: str
    """Of the binding, as a person names it: ClusterRoleBinding "x"."""
    role: str
    subject: str
    missing: str = ""
    """What is wrong when the role isn't there."""


class _Index(Struct):
    """Bindings by what they name: the keys of bindings, by subject."""

    bindings: dict[str, RoleBinding | ClusterRoleBinding] = field(default_factory=dict)
    by_subject: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """(namespace, subject) → keys; the namespace of cluster role bindings is empty."""

    def put(self, key: str, binding: RoleBinding | ClusterRoleBinding | None) -> None:
        old = self.bindings.pop(key, None)
        for where in _places(old):
            held = self.by_subject.get(where, set())
            held.discard(key)
            if not held:
                self.by_subject.pop(where, None)
        if binding is not None:
            self.bindings[key] = binding
            for where in _places(binding):
                self.by_subject.setdefault(where, set()).add(key)


class RBAC:
    """The roles and bindings of a store."""

    def __init__(self, store: Store) -> None:
        self._index = _Index()
        self._roles: dict[str, tuple[PolicyRule, ...]] = {}
        """By key in the store."""
        self._decisions: dict[tuple[str, tuple[str, ...], tuple[str, ...]], bool | frozenset[str]] = {}
        """Yes, no, or the names of the objects for which it is yes."""
        self.follower = Follower(
            store,
            {
                ROLES: self._role(Role),
                CLUSTER_ROLES: self._role(ClusterRole),
                BINDINGS: self._binding(RoleBinding),
                CLUSTER_BINDINGS: self._binding(ClusterRoleBinding),
            },
            self._forget,
        )

    def concerns(self, user: User) -> bool:
        return True

    def allows(self, user: User, action: Action) -> bool:
        """Whether some rule allows it; the follower must be fresh."""
        key = (user.name, user.groups, action.key)
        decision = self._decisions.get(key)
        if decision is None:
            if len(self._decisions) >= DECISIONS_KEPT_MAX:
                self._decisions.clear()
            decision = self._decisions[key] = self._decide(user, action)
        return decision is True or (decision is not False and action.name in decision)

    def explain(self, user: User, action: Action) -> tuple[bool, str]:
        """Whether it is allowed, and why (upstream's words)."""
        missing = []
        for grant in self.grants(user, action.namespace):
            if grant.missing:
                missing.append(grant.missing)
            for rule in grant.rules:
                if self._matches(rule, action) and (not rule.resource_names or action.name in rule.resource_names):
                    return True, f"RBAC: allowed by {grant.binding} of {grant.role} to {grant.subject}"
        return False, f"RBAC: {_together(missing)}" if missing else ""

    def grants(self, user: User, namespace: str) -> Iterator[Grant]:
        """All that a user has: in the cluster, then in a namespace."""
        subjects = (("User", user.name), *(("Group", group) for group in user.groups))
        for scope in ("", namespace) if namespace else ("",):
            found: dict[str, tuple[str, str]] = {}
            for subject in subjects:
                for key in self._index.by_subject.get((scope, f"{subject[0]}:{subject[1]}"), ()):
                    found.setdefault(key, subject)
            for key in sorted(found):
                yield self._grant(key, scope, found[key], user)

    def rules_of(self, reference: RoleRef, namespace: str) -> tuple[PolicyRule, ...] | None:
        """Of the role that a binding names; None when there is none."""
        return self._roles.get(_role_key(reference, namespace))

    def _grant(self, key: str, namespace: str, subject: tuple[str, str], user: User) -> Grant:
        binding = self._index.bindings[key]
        reference, name = binding.role_ref, binding.metadata.name or ""
        shown = f'{binding.kind} "{name}/{namespace}"' if namespace else f'{binding.kind} "{name}"'
        role = f'{reference.kind} "{reference.name}"'
        rules = self.rules_of(reference, namespace)
        whom = _whom(binding, subject)
        if rules is None:
            kind = reference.kind.lower()
            return Grant((), shown, role, whom, f'{kind}.rbac.authorization.k8s.io "{reference.name}" not found')
        return Grant(rules, shown, role, whom)

    def _decide(self, user: User, action: Action) -> bool | frozenset[str]:
        names: set[str] = set()
        for grant in self.grants(user, action.namespace):
            for rule in grant.rules:
                if self._matches(rule, action):
                    if not rule.resource_names:
                        return True
                    names.update(rule.resource_names)
        return frozenset(names) if names else False

    @staticmethod
    def _matches(rule: PolicyRule, action: Action) -> bool:
        """But for resource names."""
        if action.path:
            return allows_url(rule, action.verb, action.path)
        return allows_resource(rule, action.verb, action.group, action.full_resource)

    def _role(self, kind: type[Any]) -> Any:
        decode = decoder(kind).decode

        def change(key: str, value: bytes | None) -> None:
            self._decisions.clear()
            if value is None:
                self._roles.pop(key, None)
            else:
                self._roles[key] = tuple(decode(value).rules)

        return change

    def _binding(self, kind: type[Any]) -> Any:
        decode = decoder(kind).decode

        def change(key: str, value: bytes | None) -> None:
            self._decisions.clear()
            self._index.put(key, None if value is None else decode(value))

        return change

    def _forget(self) -> None:
        self._index = _Index()
        self._roles.clear()
        self._decisions.clear()


def _role_key(reference: RoleRef, namespace: str) -> str:
    if reference.kind == "ClusterRole":
        return f"{CLUSTER_ROLES}/{reference.name}"
    return f"{ROLES}{namespace}/{reference.name}"


def _places(binding: RoleBinding | ClusterRoleBinding | None) -> Iterator[tuple[str, str]]:
    """Where a binding is found: its namespace, with each of its subjects."""
    if binding is None:
        return
    namespace = binding.metadata.namespace or ""
    for subject in binding.subjects:
        if subject.kind == "ServiceAccount":
            if account := subject.namespace or namespace:
                yield namespace, f"User:system:serviceaccount:{account}:{subject.name}"
        else:
            yield namespace, f"{subject.kind}:{subject.name}"


def _whom(binding: RoleBinding | ClusterRoleBinding, found: tuple[str, str]) -> str:
    """The subject by which a binding applies, as upstream describes it."""
    kind, name = found
    if kind == "User" and not any(subject.kind == "User" and subject.name == name for subject in binding.subjects):
        _, _, namespace, account = name.split(":", 3)
        return _described(Subject(kind="ServiceAccount", name=account, namespace=namespace))
    return _described(Subject(kind=kind, name=name))


def _described(subject: Subject) -> str:
    if subject.kind == "ServiceAccount":
        return f'ServiceAccount "{subject.name}/{subject.namespace}"'
    return f'{subject.kind} "{subject.name}"'


def _together(errors: list[str]) -> str:
    """As upstream prints one error, or several at once."""
    distinct = list(dict.fromkeys(errors))
    return distinct[0] if len(distinct) == 1 else "[" + ", ".join(distinct) + "]"
