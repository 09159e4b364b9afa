"""Deleting: at once, gracefully, with finalizers, under preconditions, in bulk."""

from __future__ import annotations

import pytest

from knarr.client.client import MERGE_PATCH
from tests.apiserver.pipeline.door import CONFIG_MAPS, DEPLOYMENTS, PODS, Door, causes, config_map, deployment, pod


async def test_a_plain_object_is_gone_and_a_status_says_which(door: Door) -> None:
    made = await door.done("POST", CONFIG_MAPS, config_map("a"))
    answered = await door.done("DELETE", f"{CONFIG_MAPS}/a")
    assert (answered["kind"], answered["status"]) == ("Status", "Success")
    assert answered["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    status, refused = await door("GET", f"{CONFIG_MAPS}/a")
    assert (status, refused["message"]) == (404, 'configmaps "a" not found')
    assert (await door("DELETE", f"{CONFIG_MAPS}/a"))[0] == 404


async def test_a_running_pod_waits_for_its_node_and_its_grace(door: Door) -> None:
    await door.done("POST", PODS, pod("a", nodeName="n1"))
    marked = await door.done("DELETE", f"{PODS}/a")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    assert marked["metadata"]["deletionTimestamp"]
    shorter = await door.done("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 5})
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    longer = await door.done("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 60})
    assert longer["metadata"]["deletionGracePeriodSeconds"] == 5
    await door.done("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 0})
    assert (await door("GET", f"{PODS}/a"))[0] == 404


async def test_a_pod_without_a_node_goes_at_once(door: Door) -> None:
    await door.done("POST", PODS, pod("a"))
    gone = await door.done("DELETE", f"{PODS}/a")
    assert gone["kind"] == "Pod"
    assert gone["metadata"]["resourceVersion"] == str(door.store.revision)
    assert (await door("GET", f"{PODS}/a"))[0] == 404


async def test_finalizers_hold_an_object_until_the_last_is_gone(door: Door) -> None:
    made = config_map("a")
    made["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
    await door.done("POST", CONFIG_MAPS, made)
    marked = await door.done("DELETE", f"{CONFIG_MAPS}/a")
    assert marked["metadata"]["deletionTimestamp"]
    revision = door.store.revision
    await door.done("DELETE", f"{CONFIG_MAPS}/a")
    assert door.store.revision == revision
    more = {"metadata": {"finalizers": ["example.com/a", "example.com/b", "example.com/c"]}}
    status, refused = await door("PATCH", f"{CONFIG_MAPS}/a", more, content_type=MERGE_PATCH)
    assert status == 422
    assert "no new finalizers can be added if the object is being deleted" in refused["message"]
    for left in (["example.com/b"], []):
        assert (await door("GET", f"{CONFIG_MAPS}/a"))[0] == 200
        patch = {"metadata": {"finalizers": left}}
        await door.done("PATCH", f"{CONFIG_MAPS}/a", patch, content_type=MERGE_PATCH)
    assert (await door("GET", f"{CONFIG_MAPS}/a"))[0] == 404


@pytest.mark.parametrize(("policy", "finalizers"), [("Foreground", ["foregroundDeletion"]), ("Orphan", ["orphan"])])
async def test_propagation_policies_leave_work_to_the_garbage_collector(
    door: Door, policy: str, finalizers: list[str]
) -> None:
    await door.done("POST", DEPLOYMENTS, deployment())
    marked = await door.done("DELETE", f"{DEPLOYMENTS}/web", {"propagationPolicy": policy})
    assert marked["metadata"]["finalizers"] == finalizers
    assert marked["metadata"]["generation"] == 2


async def test_preconditions_must_hold(door: Door) -> None:
    made = await door.done("POST", CONFIG_MAPS, config_map("a"))
    for wrong in ({"uid": "other"}, {"resourceVersion": "1"}):
        status, refused = await door("DELETE", f"{CONFIG_MAPS}/a", {"preconditions": wrong})
        assert (status, refused["reason"]) == (409, "Conflict")
    right = {key: made["metadata"][key] for key in ("uid", "resourceVersion")}
    await door.done("DELETE", f"{CONFIG_MAPS}/a", {"preconditions": right})


async def test_a_collection_goes_as_selected_and_is_answered(door: Door) -> None:
    for name, kind in (("a", "x"), ("b", "x"), ("c", "y")):
        await door.done("POST", CONFIG_MAPS, config_map(name, {"kind": kind}))
    gone = await door.done("DELETE", CONFIG_MAPS, labelSelector="kind=x")
    assert [item["metadata"]["name"] for item in gone["items"]] == ["a", "b"]
    listed = await door.done("GET", CONFIG_MAPS)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["c"]


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
async def test_some_namespaces_stay(door: Door, name: str) -> None:
    status, refused = await door("DELETE", f"/api/v1/namespaces/{name}")
    assert (status, refused["reason"]) == (403, "Forbidden")


@pytest.mark.parametrize(("orphan", "finalizers"), [("true", ["orphan"]), ("false", None)])
async def test_dependents_are_orphaned_in_the_old_way_too(
    door: Door, orphan: str, finalizers: list[str] | None
) -> None:
    for body, query in (({"orphanDependents": orphan == "true"}, {}), (None, {"orphanDependents": orphan})):
        await door.done("POST", DEPLOYMENTS, deployment())
        answered = await door.done("DELETE", f"{DEPLOYMENTS}/web", body, **query)
        assert answered["metadata"].get("finalizers") == finalizers
        if finalizers:
            patch = {"metadata": {"finalizers": None}}
            await door.done("PATCH", f"{DEPLOYMENTS}/web", patch, content_type=MERGE_PATCH)


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"orphanDependents": True, "propagationPolicy": "Orphan"}, ["propagationPolicy"]),
        ({"propagationPolicy": "Adopt"}, ["propagationPolicy"]),
        ({"dryRun": ["Some"]}, ["dryRun"]),
        (
            {
                "ignoreStoreReadErrorWithClusterBreakingPotential": True,
                "gracePeriodSeconds": 0,
                "preconditions": {},
                "dryRun": ["All"],
            },
            ["ignoreStoreReadErrorWithClusterBreakingPotential"] * 3,
        ),
    ],
)
async def test_options_that_exclude_each_other(door: Door, options: dict[str, object], fields: list[str]) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    status, refused = await door("DELETE", f"{CONFIG_MAPS}/a", options)
    assert (status, causes(refused)) == (422, fields)
    assert refused["message"].startswith('DeleteOptions.meta.k8s.io "" is invalid: ')
    assert (await door("GET", f"{CONFIG_MAPS}/a"))[0] == 200


async def test_an_object_that_can_be_read_is_deleted_like_any_other_with_the_unsafe_option(door: Door) -> None:
    unsafe = {"ignoreStoreReadErrorWithClusterBreakingPotential": True}
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    status, refused = await door("DELETE", CONFIG_MAPS, unsafe)
    assert (status, causes(refused)) == (422, [*unsafe])
    await door.done("DELETE", f"{CONFIG_MAPS}/a", unsafe)
    assert (await door("GET", f"{CONFIG_MAPS}/a"))[0] == 404


async def test_a_collection_is_deleted_under_the_options_of_each(door: Door) -> None:
    for name in ("a", "b"):
        await door.done("POST", CONFIG_MAPS, config_map(name))
    revision = door.store.revision
    listed = await door.done("DELETE", CONFIG_MAPS, {"dryRun": ["All"]})
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a", "b"]
    assert door.store.revision == revision
    await door.done("DELETE", CONFIG_MAPS, {"propagationPolicy": "Foreground"}, fieldSelector="metadata.name=a")
    left = (await door.done("GET", CONFIG_MAPS))["items"]
    assert [(item["metadata"]["name"], item["metadata"].get("finalizers")) for item in left] == [
        ("a", ["foregroundDeletion"]),
        ("b", None),
    ]
