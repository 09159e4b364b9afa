"""componentstatuses: whether the parts of the cluster are well."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.store.contract import StoreFailure
from tests.apiserver.pipeline.door import Door

COMPONENTS = "/api/v1/componentstatuses"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


async def rows(door: Door) -> dict[str, list[str]]:
    return {row["cells"][0]: row["cells"][1:] for row in (await door.done("GET", COMPONENTS, accept=TABLE))["rows"]}


async def test_components_are_well_once_all_run(door: Door) -> None:
    waiting = ["Unhealthy", "not yet running", ""]
    assert await rows(door) == {"controller-manager": waiting, "etcd-0": ["Healthy", "ok", ""], "scheduler": waiting}
    door.server.ready = True
    assert set(map(tuple, (await rows(door)).values())) == {("Healthy", "ok", "")}
    one = await door.done("GET", f"{COMPONENTS}/scheduler")
    assert one["conditions"] == [{"type": "Healthy", "status": "True", "message": "ok"}]


async def test_a_store_that_fails_is_unhealthy(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*args: Any, **more: Any) -> Any:
        raise StoreFailure("the disk is full")

    monkeypatch.setattr(door.store, "range", broken)
    assert (await rows(door))["etcd-0"] == ["Unhealthy", "the disk is full", ""]


async def test_components_are_only_read(door: Door) -> None:
    status, refused = await door("GET", f"{COMPONENTS}/none")
    assert (status, refused["message"]) == (404, 'componentstatuses "none" not found')
    for method in ("POST", "DELETE"):
        assert (await door(method, COMPONENTS, {"metadata": {"name": "a"}}))[0] == 405
    assert (await door("GET", COMPONENTS, watch="true"))[0] == 405
    listed = await door.done("GET", COMPONENTS, fieldSelector="metadata.name=etcd-0")
    assert [each["metadata"]["name"] for each in listed["items"]] == ["etcd-0"]


async def test_what_is_deprecated_says_so_to_everybody_who_asks(door: Door) -> None:
    endpoints = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
    for path in ("/api/v1/endpoints", "/api/v1/namespaces/default/endpoints/kubernetes"):
        assert (await door.ask("GET", path)).warnings == [endpoints]
    assert (await door.ask("GET", "/api/v1/componentstatuses")).warnings == [
        "v1 ComponentStatus is deprecated in v1.19+"
    ]
    assert (await door.ask("GET", "/api/v1/services")).warnings == []
