"""The roles that every cluster has, and that they are put right at each start."""

from __future__ import annotations

import time
from typing import Any

import pytest

from knarr.api.rbac.v1 import ClusterRole, ClusterRoleBinding, PolicyRule, Role, Subject
from knarr.apiserver.reconcile_roles import AUTOUPDATE, default_objects, reconcile_roles
from knarr.client.transport import User
from tests.apiserver.access import account, binding, does, node, path_of, user
from tests.apiserver.pipeline.door import Door, open_door

MANAGER, SCHEDULER = user("system:kube-controller-manager"), user("system:kube-scheduler")
ANYONE, NOBODY = user("ann"), User("system:anonymous", ("system:unauthenticated",))


RBAC, CERTIFICATES = "rbac.authorization.k8s.io", "certificates.k8s.io"
SERVING = "kubernetes.io/kubelet-serving"


def controller(name: str) -> User:
    return account("kube-system", name)


AGGREGATION = controller("clusterrole-aggregation-controller")


@pytest.mark.parametrize(
    ("who", "action", "allowed"),
    [
        (NOBODY, does("get", "/healthz"), True),
        (NOBODY, does("get", "/livez"), True),
        (NOBODY, does("get", "/readyz"), True),
        (NOBODY, does("get", "/version"), True),
        (NOBODY, does("get", "/readyz/etcd"), False),
        (NOBODY, does("get", "/apis"), False),
        (NOBODY, does("get", "/metrics"), False),
        (ANYONE, does("get", "/apis/apps/v1"), True),
        (ANYONE, does("get", "/openapi/v3"), True),
        (ANYONE, does("get", "/metrics"), False),
        (ANYONE, does("create", "selfsubjectaccessreviews", "", group="authorization.k8s.io"), True),
        (ANYONE, does("create", "selfsubjectreviews", "", group="authentication.k8s.io"), True),
        (ANYONE, does("create", "tokenreviews", "", group="authentication.k8s.io"), False),
        (ANYONE, does("list", "pods"), False),
        (user("m", "system:monitoring"), does("get", "/metrics"), True),
        (account("a", "b"), does("get", "/openid/v1/jwks"), True),
        (account("a", "b"), does("list", "pods", "a"), False),
        (MANAGER, does("watch", "anything", "", group="example.com"), True),
        (MANAGER, does("update", "leases", "kube-system", "kube-controller-manager", "coordination.k8s.io"), True),
        (MANAGER, does("delete", "pods", "kube-system", "a"), False),
        (SCHEDULER, does("create", "pods/binding", name="a"), True),
        (SCHEDULER, does("update", "persistentvolumeclaims", name="a"), True),
        (SCHEDULER, does("get", "secrets", name="a"), False),
        (SCHEDULER, does("get", "configmaps", "kube-system", "extension-apiserver-authentication"), True),
        (user("system:kube-proxy"), does("watch", "endpointslices", "", group="discovery.k8s.io"), True),
        (controller("deployment-controller"), does("create", "replicasets", group="apps"), True),
        (controller("deployment-controller"), does("create", "pods"), False),
        (controller("generic-garbage-collector"), does("delete", "anything", group="example.com", name="a"), True),
        (controller("horizontal-pod-autoscaler"), does("update", "deployments/scale", group="apps", name="a"), True),
        (
            controller("clusterrole-aggregation-controller"),
            does("escalate", "clusterroles", "", "a", RBAC),
            True,
        ),
        (
            controller("certificate-controller"),
            does("sign", "signers", "", "kubernetes.io/kubelet-serving", "certificates.k8s.io"),
            True,
        ),
        (
            controller("certificate-controller"),
            does("approve", "signers", "", "kubernetes.io/kubelet-serving", "certificates.k8s.io"),
            False,
        ),
        (controller("token-cleaner"), does("delete", "secrets", "kube-system", "a"), True),
        (controller("token-cleaner"), does("delete", "secrets", "default", "a"), False),
        (account("default", "deployment-controller"), does("create", "replicasets", group="apps"), False),
        (node("a"), does("list", "services", ""), True),
    ],
)
async def test_what_components_and_everybody_may(who: User, action: Any, allowed: bool) -> None:
    async with open_door() as door:
        assert await door.server.access.authorizer.allows(who, action) is allowed


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (
            "view",
            [("list", "pods", ""), ("get", "deployments", "apps")],
            [("list", "secrets", ""), ("create", "pods", "")],
        ),
        (
            "edit",
            [("list", "secrets", ""), ("create", "pods", ""), ("create", "pods/exec", ""), ("get", "pods/log", "")],
            [("create", "rolebindings", RBAC), ("update", "resourcequotas", "")],
        ),
        (
            "admin",
            [("create", "rolebindings", RBAC), ("delete", "deployments", "apps")],
            [("update", "resourcequotas", ""), ("list", "nodes", ""), ("delete", "namespaces", "")],
        ),
    ],
)
async def test_what_people_may(role: str, may: list[tuple[str, str, str]], may_not: list[tuple[str, str, str]]) -> None:
    async with open_door() as door:
        give = binding("b", f"ClusterRole/{role}", "User:ann", namespace="default")
        await door.done("POST", path_of(give), give)
        for verb, resource, group in may:
            assert await door.server.access.authorizer.allows(ANYONE, does(verb, resource, name="a", group=group))
        for verb, resource, group in may_not:
            assert not await door.server.access.authorizer.allows(ANYONE, does(verb, resource, name="a", group=group))


async def reconciled(door: Door) -> int:
    """How many writes it took."""
    before = door.store.revision
    await reconcile_roles(door.client)
    return door.store.revision - before


async def test_a_second_start_writes_nothing() -> None:
    async with open_door() as door:
        assert await reconciled(door) == 0


async def test_it_takes_a_moment_only() -> None:
    async with open_door() as door:
        start_s = time.process_time()
        await reconcile_roles(door.client)
        assert time.process_time() - start_s < 0.5


async def test_what_was_taken_away_is_put_back_and_what_was_added_stays() -> None:
    async with open_door() as door:
        client = door.client
        discovery = await client.get(ClusterRole, "system:discovery")
        mine = PolicyRule(verbs=["get"], non_resource_urls=["/mine"])
        discovery.rules = [mine]
        discovery.metadata.labels = {"mine": "1"}
        await client.update(discovery)
        public = await client.get(ClusterRoleBinding, "system:public-info-viewer")
        other = Subject(api_group="rbac.authorization.k8s.io", kind="User", name="bob")
        public.subjects = [other]
        await client.update(public)
        await client.delete(Role, "extension-apiserver-authentication-reader", "kube-system")
        view = await client.get(ClusterRole, "view")
        view.aggregation_rule = None
        await client.update(view)
        assert await reconciled(door) == 4
        discovery = await client.get(ClusterRole, "system:discovery")
        assert mine in discovery.rules
        assert len(discovery.rules) == 2
        assert discovery.metadata.labels == {"mine": "1", "kubernetes.io/bootstrapping": "rbac-defaults"}
        public = await client.get(ClusterRoleBinding, "system:public-info-viewer")
        assert [subject.name for subject in public.subjects] == [
            "bob",
            "system:authenticated",
            "system:unauthenticated",
        ]
        assert (await client.get(ClusterRole, "view")).aggregation_rule
        assert await reconciled(door) == 0


async def test_a_binding_to_another_role_is_replaced() -> None:
    async with open_door() as door:
        client = door.client
        wrong = await client.get(ClusterRoleBinding, "system:discovery")
        await client.delete(ClusterRoleBinding, "system:discovery")
        wrong.metadata.resource_version = wrong.metadata.uid = None
        wrong.role_ref.name = "cluster-admin"
        await client.create(wrong)
        await reconcile_roles(client)
        assert (await client.get(ClusterRoleBinding, "system:discovery")).role_ref.name == "system:discovery"


async def test_what_an_administrator_has_taken_over_is_left_alone() -> None:
    async with open_door() as door:
        client = door.client
        public = await client.get(ClusterRoleBinding, "system:public-info-viewer")
        public.subjects = []
        public.metadata.annotations[AUTOUPDATE] = "false"
        await client.update(public)
        assert await reconciled(door) == 0
        assert (await door("GET", "/healthz", user=NOBODY))[0] == 403


def test_all_defaults_are_marked() -> None:
    objects = list(default_objects())
    assert len({(type(obj), obj.metadata.namespace, obj.metadata.name) for obj in objects}) == len(objects)
    for obj in objects:
        assert obj.metadata.labels["kubernetes.io/bootstrapping"] == "rbac-defaults"
        assert obj.metadata.annotations[AUTOUPDATE] == "true"
