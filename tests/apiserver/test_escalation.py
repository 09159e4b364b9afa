"""Nobody hands out rights that they don't have (hostile input, row 34)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.access import account, binding, path_of, role, rule, user
from tests.apiserver.pipeline.door import Door, open_door

ANN = user("ann", "devs")
GROUP = "rbac.authorization.k8s.io"
VERBS = "get list create update patch delete"
HELD = role("held", rule("get list", "pods"), rule(VERBS, "roles rolebindings", GROUP))
GRANTER = role("granter", rule(VERBS, "clusterroles clusterrolebindings", GROUP))


async def prepared(door: Door, *more: dict[str, Any]) -> None:
    """Ann may read pods and write roles and bindings in default, and cluster roles and bindings everywhere."""
    for obj in (HELD, GRANTER, binding("held", "ClusterRole/held", "User:ann", namespace="default"), *more):
        await door.done("POST", path_of(obj), obj)


async def test_a_role_that_is_covered_may_be_made() -> None:
    async with open_door() as door:
        await prepared(door)
        made = role("small", rule("get", "pods"), rule("list", "pods", names="one"), namespace="default")
        await door.done("POST", path_of(made), made, user=ANN)
        give = binding("small", "Role/small", "User:bob", namespace="default")
        await door.done("POST", path_of(give), give, user=ANN)
        all_ = binding("held2", "ClusterRole/held", "User:bob", namespace="default")
        await door.done("POST", path_of(all_), all_, user=ANN)


@pytest.mark.parametrize(
    ("rules", "lacking"),
    [
        ([rule("delete get", "pods")], '{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}'),
        (
            [rule("get", "secrets", names="a")],
            '{APIGroups:[""], Resources:["secrets"], ResourceNames:["a"], Verbs:["get"]}',
        ),
        ([rule("get", "*")], '{APIGroups:[""], Resources:["*"], Verbs:["get"]}'),
        ([rule("*", "pods")], '{APIGroups:[""], Resources:["pods"], Verbs:["*"]}'),
        (
            [rule("get delete", "pods/log", "apps"), rule("list", "jobs", "batch")],
            '{APIGroups:["apps"], Resources:["pods/log"], Verbs:["get" "delete"]}\n'
            '{APIGroups:["batch"], Resources:["jobs"], Verbs:["list"]}',
        ),
    ],
)
async def test_what_is_lacking_is_listed(rules: list[dict[str, Any]], lacking: str) -> None:
    async with open_door() as door:
        await prepared(door)
        made = role("big", *rules, namespace="default")
        status, refused = await door("POST", path_of(made), made, user=ANN)
        assert (status, refused["reason"]) == (403, "Forbidden")
        assert refused["message"] == (
            'roles.rbac.authorization.k8s.io "big" is forbidden: user "ann" (groups=["devs" "system:authenticated"]) '
            f"is attempting to grant RBAC permissions not currently held:\n{lacking}"
        )
        assert refused["details"] == {"name": "big", "group": "rbac.authorization.k8s.io", "kind": "roles"}


async def test_growing_a_role_is_refused_and_shrinking_is_not() -> None:
    async with open_door() as door:
        await prepared(door)
        small = role("small", rule("get", "pods"), namespace="default")
        await door.done("POST", path_of(small), small, user=ANN)
        grown = role("small", rule("get", "pods secrets"), namespace="default")
        assert (await door("PUT", path_of(small, one=True), grown, user=ANN))[0] == 403
        big = role("big", rule("*", "*", "*"), namespace="default")
        await door.done("POST", path_of(big), big)
        patch = {"metadata": {"finalizers": ["example.com/a"]}}
        merge = "application/merge-patch+json"
        await door.done("PATCH", path_of(big, one=True), patch, content_type=merge, user=ANN)
        labels = {"metadata": {"labels": {"a": "b"}}}
        status, _ = await door("PATCH", path_of(big, one=True), labels, content_type=merge, user=ANN)
        assert status == 403


async def test_escalate_and_bind_are_verbs_of_their_own() -> None:
    async with open_door() as door:
        mighty = role("mighty", rule("escalate", "roles", GROUP, names="big"))
        binder = role("binder", rule("bind", "clusterroles", GROUP, names="admin"))
        await prepared(
            door,
            mighty,
            binder,
            binding("mighty", "ClusterRole/mighty", "User:ann", namespace="default"),
            binding("binder", "ClusterRole/binder", "Group:devs", namespace="default"),
        )
        big = role("big", rule("get", "secrets"), namespace="default")
        assert (await door("POST", path_of(big), big, user=ANN))[0] == 403  # a name is not known at creation
        await door.done("POST", path_of(big), big)
        grown = role("big", rule("get list", "secrets"), namespace="default")
        await door.done("PUT", path_of(big, one=True), grown, user=ANN)
        give = binding("a", "ClusterRole/admin", "User:bob", namespace="default")
        await door.done("POST", path_of(give), give, user=ANN)
        other = binding("b", "ClusterRole/edit", "User:bob", namespace="default")
        assert (await door("POST", path_of(other), other, user=ANN))[0] == 403


async def test_a_binding_to_a_missing_role_needs_the_verb_bind() -> None:
    async with open_door() as door:
        await prepared(door)
        give = binding("a", "Role/none", "User:bob", namespace="default")
        status, refused = await door("POST", path_of(give), give, user=ANN)
        assert (status, refused["message"]) == (404, 'role.rbac.authorization.k8s.io "none" not found')
        await door.done("POST", path_of(give), give)


async def test_collecting_rules_takes_all_rights() -> None:
    async with open_door() as door:
        await prepared(door, binding("granter", "ClusterRole/granter", "User:ann"))
        collecting = role("collect") | {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}
        status, refused = await door("POST", path_of(collecting), collecting, user=ANN)
        assert (status, refused["message"]) == (
            403,
            'clusterroles.rbac.authorization.k8s.io "collect" is forbidden: must have cluster-admin privileges to use '
            "an aggregationRule",
        )
        await door.done("POST", path_of(collecting), collecting)


async def test_what_a_binding_leads_to_never_changes() -> None:
    """Hostile input, row 30."""
    async with open_door() as door:
        give = binding("a", "ClusterRole/view", "User:bob", namespace="default")
        await door.done("POST", path_of(give), give)
        status, refused = await door(
            "PUT", path_of(give, one=True), binding("a", "ClusterRole/edit", "User:bob", namespace="default")
        )
        assert (status, refused["reason"]) == (422, "Invalid")
        assert [cause["field"] for cause in refused["details"]["causes"]] == ["roleRef"]
        assert "cannot change roleRef" in refused["message"]


async def test_an_admin_of_a_namespace_gives_what_admins_have() -> None:
    async with open_door() as door:
        boss = account("default", "boss")
        give = binding("boss", "ClusterRole/admin", "ServiceAccount:boss", namespace="default")
        await door.done("POST", path_of(give), give)
        for name in ("admin", "edit", "view"):
            more = binding(f"b-{name}", f"ClusterRole/{name}", "User:bob", namespace="default")
            await door.done("POST", path_of(more), more, user=boss)
        other = binding("b", "ClusterRole/view", "User:bob", namespace="kube-public")
        assert (await door("POST", path_of(other), other, user=boss))[0] == 403
        all_ = binding("all", "ClusterRole/cluster-admin", "User:bob", namespace="default")
        assert (await door("POST", path_of(all_), all_, user=boss))[0] == 403
