"""NamespaceLifecycle: rows 32 and 33 of bad input."""

from __future__ import annotations

import pytest

from tests.apiserver.pipeline.door import Door, config_map, namespace

MAPS = "/api/v1/namespaces/{}/configmaps"


async def test_nothing_is_made_where_there_is_no_namespace_however_wrong_it_is(door: Door) -> None:
    for body in (config_map("a"), config_map("Not_A_Name")):
        status, refused = await door("POST", MAPS.format("nowhere"), body)
        assert (status, refused["reason"], refused["message"]) == (404, "NotFound", 'namespaces "nowhere" not found')


async def test_nothing_is_made_in_a_namespace_that_is_ending(door: Door) -> None:
    await door.done("POST", "/api/v1/namespaces", namespace("ending"))
    await door.done("POST", MAPS.format("ending"), config_map("a"))
    await door.done("DELETE", "/api/v1/namespaces/ending")
    status, refused = await door("POST", MAPS.format("ending"), config_map("b"))
    assert (status, refused["reason"]) == (403, "Forbidden")
    assert refused["message"] == (
        'configmaps "b" is forbidden: unable to create new content in namespace ending because it is being terminated'
    )
    assert refused["details"]["causes"] == [
        {
            "reason": "NamespaceTerminating",
            "message": "namespace ending is being terminated",
            "field": "metadata.namespace",
        }
    ]
    # What is there can still be changed and deleted.
    await door.done("PUT", f"{MAPS.format('ending')}/a", config_map("a", changed="yes"))
    await door.done("DELETE", f"{MAPS.format('ending')}/a")


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
async def test_the_first_namespaces_stay(door: Door, name: str) -> None:
    for query in ({}, {"dryRun": "All"}):
        status, refused = await door("DELETE", f"/api/v1/namespaces/{name}", **query)
        assert (status, refused["reason"]) == (403, "Forbidden")
        assert refused["message"] == f'namespaces "{name}" is forbidden: this namespace may not be deleted'
        assert refused["details"] == {"name": name, "kind": "namespaces"}


async def test_the_namespace_of_leases_can_be_deleted(door: Door) -> None:
    deleted = await door.done("DELETE", "/api/v1/namespaces/kube-node-lease")
    assert deleted["status"]["phase"] == "Terminating"
