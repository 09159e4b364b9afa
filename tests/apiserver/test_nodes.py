"""What a node may read and write: what its own pods need, and what is its own (hostile input, row 34)."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.apiserver.action import Action
from knarr.apiserver.authorize import Authorizer
from knarr.store.memory import MemoryStore
from tests.apiserver.access import does, node, put, remove
from tests.apiserver.pipeline.door import PODS, Door, open_door, pod

ME, OTHER = node("me"), node("other")
STRATEGIC = "application/strategic-merge-patch+json"


def bound(name: str, on: str = "me", *, mirror: bool = False, **spec: Any) -> dict[str, Any]:
    annotations = {"kubernetes.io/config.mirror": "x"} if mirror else {}
    metadata = {"name": name, "namespace": "default", "uid": name, "annotations": annotations}
    listed = spec.pop("containers", [{"name": "c", "image": "i"}])
    whole = {"nodeName": on, "containers": listed, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": whole if on else {"containers": listed}}


VOLUMES = [
    {"name": "a", "secret": {"secretName": "of-volume"}},
    {"name": "b", "configMap": {"name": "of-volume"}},
    {
        "name": "c",
        "projected": {"sources": [{"secret": {"name": "projected"}}, {"configMap": {"name": "projected"}}]},
    },
    {"name": "d", "persistentVolumeClaim": {"claimName": "claim"}},
    {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
    {"name": "f", "csi": {"driver": "x", "nodePublishSecretRef": {"name": "of-driver"}}},
]
ENV = [
    {"name": "A", "valueFrom": {"secretKeyRef": {"name": "of-env", "key": "a"}}},
    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "of-env", "key": "a"}}},
]
CONTAINERS = [
    {"name": "c", "image": "i", "env": ENV},
    {"name": "d", "image": "i", "envFrom": [{"secretRef": {"name": "all"}}, {"configMapRef": {"name": "all"}}]},
]
NEEDY = bound(
    "needy",
    volumes=VOLUMES,
    containers=CONTAINERS,
    initContainers=[{"name": "i", "image": "i", "envFrom": [{"secretRef": {"name": "of-init"}}]}],
    imagePullSecrets=[{"name": "pull"}],
    serviceAccountName="robot",
    resourceClaims=[{"name": "gpu", "resourceClaimName": "gpu"}],
)


async def filled(*pods: dict[str, Any]) -> tuple[MemoryStore, Authorizer]:
    store = MemoryStore()
    for obj in pods:
        await put(store, "pods", obj)
    return store, Authorizer(store)


@pytest.mark.parametrize(
    ("resource", "names"),
    [
        ("secrets", ["of-volume", "projected", "of-driver", "of-env", "of-init", "all", "pull"]),
        ("configmaps", ["of-volume", "projected", "of-env", "all"]),
        ("persistentvolumeclaims", ["claim", "needy-e"]),
        ("serviceaccounts", ["robot"]),
    ],
)
async def test_a_node_reads_what_its_pods_refer_to(resource: str, names: list[str]) -> None:
    _, authorizer = await filled(NEEDY, bound("else", "other"))
    for name in names:
        assert await authorizer.allows(ME, does("get", resource, name=name)), name
        assert await authorizer.decide(OTHER, does("get", resource, name=name)) == (
            False,
            "no relationship found between node 'other' and this object",
        )
        assert not await authorizer.allows(ME, does("get", resource, "kube-system", name=name))
    assert not await authorizer.allows(ME, does("get", resource, name="none"))


async def test_reading_is_by_name_and_only_reading() -> None:
    _, authorizer = await filled(NEEDY)
    for verb in ("list", "watch"):
        assert await authorizer.allows(ME, does(verb, "secrets", name="pull"))
        assert not await authorizer.allows(ME, does(verb, "secrets"))
    for verb in ("create", "update", "patch", "delete"):
        decided = await authorizer.decide(ME, does(verb, "secrets", name="pull"))
        assert decided == (False, "can only read resources of this type")
    assert not await authorizer.allows(ME, does("list", "persistentvolumeclaims", name="claim"))
    assert await authorizer.allows(ME, does("update", "persistentvolumeclaims/status", name="claim"))
    assert await authorizer.allows(ME, does("get", "resourceclaims", name="gpu", group="resource.k8s.io"))


async def test_what_a_pod_needed_is_out_of_reach_when_it_is_gone() -> None:
    store, authorizer = await filled(bound("one", imagePullSecrets=[{"name": "pull"}]))
    await put(store, "pods", bound("two", imagePullSecrets=[{"name": "pull"}]))
    wanted = does("get", "secrets", name="pull")
    assert await authorizer.allows(ME, wanted)
    await remove(store, "pods/default/one")
    assert await authorizer.allows(ME, wanted)
    await remove(store, "pods/default/two")
    assert not await authorizer.allows(ME, wanted)


async def test_a_pod_counts_from_its_binding_on_and_a_mirror_never() -> None:
    store, authorizer = await filled(bound("late", "", imagePullSecrets=[{"name": "pull"}]))
    wanted = does("get", "secrets", name="pull")
    assert not await authorizer.allows(ME, wanted)
    await put(store, "pods", bound("late", imagePullSecrets=[{"name": "pull"}]))
    assert await authorizer.allows(ME, wanted)
    await remove(store, "pods/default/late")
    await put(store, "pods", bound("late", mirror=True, imagePullSecrets=[{"name": "pull"}]))
    assert not await authorizer.allows(ME, wanted)
    assert await authorizer.allows(ME, does("get", "pods", name="late"))


async def test_debug_containers_bring_their_own_references() -> None:
    store, authorizer = await filled(bound("one"))
    debug = [{"name": "d", "image": "i", "envFrom": [{"secretRef": {"name": "debug"}}]}]
    assert not await authorizer.allows(ME, does("get", "secrets", name="debug"))
    await put(store, "pods", bound("one", ephemeralContainers=debug))
    assert await authorizer.allows(ME, does("get", "secrets", name="debug"))


async def test_a_volume_comes_with_its_claim_and_brings_its_secrets() -> None:
    store, authorizer = await filled(NEEDY)
    volume = {
        "metadata": {"name": "disk"},
        "spec": {
            "claimRef": {"namespace": "default", "name": "claim"},
            "csi": {"driver": "x", "nodeStageSecretRef": {"name": "stage", "namespace": "storage"}},
        },
    }
    assert not await authorizer.allows(ME, does("get", "persistentvolumes", "", name="disk"))
    await put(store, "persistentvolumes", volume)
    assert await authorizer.allows(ME, does("get", "persistentvolumes", "", name="disk"))
    assert await authorizer.allows(ME, does("get", "secrets", "storage", name="stage"))
    assert not await authorizer.allows(OTHER, does("get", "secrets", "storage", name="stage"))
    attachment = {"metadata": {"name": "a"}, "spec": {"nodeName": "me"}}
    await put(store, "volumeattachments.storage.k8s.io", attachment)
    wanted = does("get", "volumeattachments", "", name="a", group="storage.k8s.io")
    assert await authorizer.allows(ME, wanted)
    assert not await authorizer.allows(OTHER, wanted)


LEASES = "kube-node-lease"


@pytest.mark.parametrize(
    ("action", "allowed"),
    [
        (does("get", "nodes", "", name="me"), True),
        (does("get", "nodes", "", name="other"), False),
        (does("list", "nodes", ""), False),
        (does("watch", "nodes", "", name="me"), True),
        (does("create", "nodes", ""), True),
        (does("patch", "nodes/status", "", name="me"), True),
        (does("delete", "nodes", "", name="me"), False),
        (does("list", "pods", ""), False),
        (Action("list", "", "v1", "pods", field_selector="spec.nodeName=me"), True),
        (Action("watch", "", "v1", "pods", field_selector="spec.nodeName=me,status.phase!=Failed"), True),
        (Action("list", "", "v1", "pods", field_selector="spec.nodeName!=me"), False),
        (Action("list", "", "v1", "pods", field_selector="spec.nodeName=other"), False),
        (does("create", "pods"), True),
        (does("patch", "pods/status", name="a"), True),
        (does("update", "pods", name="a"), False),
        (does("create", "pods/eviction", name="a"), True),
        (does("create", "pods/exec", name="a"), False),
        (does("get", "leases", LEASES, "me", "coordination.k8s.io"), True),
        (does("update", "leases", LEASES, "other", "coordination.k8s.io"), False),
        (does("create", "leases", LEASES, "", "coordination.k8s.io"), True),
        (does("get", "leases", "default", "me", "coordination.k8s.io"), False),
        (does("list", "leases", LEASES, "", "coordination.k8s.io"), False),
        (does("list", "leases", "kube-system", "", "coordination.k8s.io"), True),
        (does("patch", "leases", "kube-system", "data-plane.me", "coordination.k8s.io"), True),
        (does("patch", "leases", "kube-system", "edge.me", "coordination.k8s.io"), True),
        (does("patch", "leases", "kube-system", "data-plane.other", "coordination.k8s.io"), False),
        (does("get", "leases", "kube-system", "kube-scheduler", "coordination.k8s.io"), False),
        (does("deletecollection", "leases", "kube-system", "", "coordination.k8s.io"), False),
        (does("update", "csinodes", "", "me", "storage.k8s.io"), True),
        (does("update", "csinodes", "", "other", "storage.k8s.io"), False),
        (does("create", "serviceaccounts/token", name="robot"), True),
        (does("create", "serviceaccounts/token", name="other"), False),
        (does("list", "serviceaccounts"), False),
        (does("watch", "services", ""), True),
        (does("create", "events"), True),
        (does("create", "tokenreviews", "", group="authentication.k8s.io"), True),
        (does("get", "runtimeclasses", "", "a", "node.k8s.io"), True),
        (does("list", "deployments", group="apps"), False),
        (Action("list", "resource.k8s.io", "v1", "resourceslices", field_selector="spec.nodeName=me"), True),
        (does("list", "resourceslices", "", group="resource.k8s.io"), False),
        (does("get", "/metrics"), False),
    ],
)
async def test_what_a_node_may(action: Action, allowed: bool) -> None:
    _, authorizer = await filled(NEEDY)
    assert await authorizer.allows(ME, action) is allowed


async def test_who_only_calls_itself_a_node_is_none() -> None:
    from tests.apiserver.access import user

    _, authorizer = await filled(NEEDY)
    assert not await authorizer.allows(user("system:node:me"), does("get", "secrets", name="pull"))
    assert not await authorizer.allows(user("me", "system:nodes"), does("get", "secrets", name="pull"))


# NodeRestriction: what is in a node's writes


def node_object(name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, **metadata}}


NODES = "/api/v1/nodes"


async def test_a_node_registers_itself_and_reports_only_on_itself() -> None:
    async with open_door() as door:
        await door.done("POST", NODES, node_object("me", labels={"kubernetes.io/hostname": "me", "mine": "1"}), user=ME)
        status, refused = await door("POST", NODES, node_object("other"), user=ME)
        assert (status, refused["message"]) == (
            403,
            'nodes "other" is forbidden: node "me" is not allowed to modify node "other"',
        )
        await door.done("POST", NODES, node_object("other"), user=OTHER)
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        await door.done("PATCH", f"{NODES}/me/status", ready, content_type=STRATEGIC, user=ME)
        assert (await door("PATCH", f"{NODES}/other/status", ready, content_type=STRATEGIC, user=ME))[0] == 403


@pytest.mark.parametrize(
    ("label", "allowed"),
    [
        ("mine", True),
        ("example.com/mine", True),
        ("kubernetes.io/arch", True),
        ("topology.kubernetes.io/zone", True),
        ("node.kubernetes.io/gpu", True),
        ("x.kubelet.kubernetes.io/a", True),
        ("node-restriction.kubernetes.io/a", False),
        ("x.node-restriction.kubernetes.io/a", False),
        ("node-role.kubernetes.io/control-plane", False),
        ("k8s.io/a", False),
        ("x.k8s.io/a", False),
    ],
)
async def test_a_node_may_not_draw_work_to_itself_by_labels(label: str, allowed: bool) -> None:
    async with open_door() as door:
        status, refused = await door("POST", NODES, node_object("me", labels={label: "a"}), user=ME)
        assert (status == 201) is allowed, refused
        if not allowed:
            assert f"is not allowed to set the following labels: {label}" in refused["message"]
            await door.done("POST", NODES, node_object("me"), user=ME)
        patch = {"metadata": {"labels": {label: "b"}}}
        status, refused = await door("PATCH", f"{NODES}/me", patch, content_type=STRATEGIC, user=ME)
        assert (status == 200) is allowed
        assert allowed or f"is not allowed to modify labels: {label}" in refused["message"]


async def test_a_node_may_not_change_its_taints() -> None:
    async with open_door() as door:
        tainted = node_object("me") | {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}
        await door.done("POST", NODES, tainted, user=ME)
        patch = {"spec": {"taints": None}}
        status, refused = await door("PATCH", f"{NODES}/me", patch, content_type=STRATEGIC, user=ME)
        assert (status, "is not allowed to modify taints" in refused["message"]) == (403, True)


def mirror(uid: str, **changes: Any) -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "Node", "name": "me", "uid": uid, "controller": True}
    made = pod("static-me", nodeName="me", automountServiceAccountToken=False)
    made["metadata"] |= {
        "annotations": {"kubernetes.io/config.mirror": "x"},
        "ownerReferences": [owner | changes.pop("owner", {})],
    }
    made["metadata"] |= changes.pop("metadata", {})
    made["spec"] |= changes
    return made


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"metadata": {"annotations": {}}}, 'node "me" can only create mirror pods'),
        ({"nodeName": "other"}, 'node "me" can only create pods with spec.nodeName set to itself'),
        ({"metadata": {"ownerReferences": []}}, "an owner reference set to itself"),
        ({"owner": {"name": "other"}}, "an owner reference set to itself"),
        ({"owner": {"controller": False}}, "a controller owner reference set to itself"),
        ({"owner": {"blockOwnerDeletion": True}}, "must not set blockOwnerDeletion on an owner reference"),
        ({"owner": {"uid": "wrong"}}, "node me UID mismatch"),
        ({"serviceAccountName": "default"}, "a mirror pod may not reference service accounts"),
        ({"imagePullSecrets": [{"name": "a"}]}, "can not create pods that reference secrets"),
        ({"volumes": [{"name": "a", "configMap": {"name": "a"}}]}, "can not create pods that reference configmaps"),
        (
            {"volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "a"}}]},
            "can not create pods that reference persistentvolumeclaims",
        ),
    ],
)
async def test_a_node_makes_mirrors_of_its_static_pods_and_nothing_else(changes: dict[str, Any], said: str) -> None:
    async with open_door() as door:
        uid = (await door.done("POST", NODES, node_object("me"), user=ME))["metadata"]["uid"]
        status, answered = await door("POST", PODS, mirror(uid, **changes), user=ME)
        if said:
            assert (status, said in answered["message"]) == (403, True), answered
        else:
            assert status == 201, answered
            assert (await door("DELETE", f"{PODS}/static-me", user=OTHER))[0] == 403
            await door.done("DELETE", f"{PODS}/static-me", gracePeriodSeconds="0", user=ME)


async def test_a_node_reports_on_its_own_pods_only() -> None:
    async with open_door() as door:
        await door.done("POST", PODS, pod("web", nodeName="me"))
        running = {"status": {"phase": "Running"}}
        await door.done("PATCH", f"{PODS}/web/status", running, content_type=STRATEGIC, user=ME)
        status, refused = await door("PATCH", f"{PODS}/web/status", running, content_type=STRATEGIC, user=OTHER)
        assert (status, refused["message"]) == (
            403,
            'pods "web" is forbidden: node "other" can only update pod status for pods with spec.nodeName set to '
            "itself",
        )
        labels = running | {"metadata": {"labels": {"a": "b"}}}
        status, refused = await door("PATCH", f"{PODS}/web/status", labels, content_type=STRATEGIC, user=ME)
        assert (status, "cannot update labels through pod status" in refused["message"]) == (403, True)


async def test_a_node_holds_its_own_lease() -> None:
    async with open_door() as door:
        place = f"/apis/coordination.k8s.io/v1/namespaces/{LEASES}/leases"
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "me"}}
        await door.done("POST", place, lease, user=ME)
        status, refused = await door("POST", place, lease | {"metadata": {"name": "other"}}, user=ME)
        assert (status, "with the same name as the requesting node" in refused["message"]) == (403, True)


async def test_a_node_holds_the_leases_of_its_own_data_planes() -> None:
    async with open_door() as door:
        place = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        await door.done("POST", place, lease | {"metadata": {"name": "data-plane.me"}}, user=ME)
        for name in ("data-plane.other", "kube-scheduler", "me"):
            status, _ = await door("POST", place, lease | {"metadata": {"name": name}}, user=ME)
            assert status == 403, name
        status, _ = await door("PATCH", f"{place}/data-plane.me", {}, content_type=STRATEGIC, user=OTHER)
        assert status == 403


async def _token(door: Door, who: Any, **bound: str) -> tuple[int, Any]:
    spec = {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", **bound}} if bound else {}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return await door("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", body, user=who)


async def test_a_node_gets_tokens_for_its_pods_only() -> None:
    async with open_door() as door:
        mine = await door.done("POST", PODS, pod("mine", nodeName="me"))
        theirs = await door.done("POST", PODS, pod("theirs", nodeName="other"))
        uid = mine["metadata"]["uid"]
        assert (await _token(door, ME, name="mine", uid=uid))[0] == 201
        for bound_to, said in (
            ({}, "node requested token not bound to a pod"),
            ({"name": "mine"}, "node requested token with a pod binding without a uid"),
            ({"name": "mine", "uid": "wrong"}, "does not match the UID in record"),
            (
                {"name": "theirs", "uid": theirs["metadata"]["uid"]},
                "node requested token bound to a pod scheduled on a different node",
            ),
        ):
            status, refused = await _token(door, ME, **bound_to)
            assert (status, said in refused["message"]) == (403, True), refused
        assert (await _token(door, node("third"), name="mine", uid=uid))[0] == 403
