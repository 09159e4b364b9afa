"""ResourceQuota: what is counted, what is refused and how it is told; exact however many write at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Pod, ResourceQuota
from knarr.api.registry import built_in
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import MERGE_PATCH, Client
from knarr.store.contract import Store, StoreFailure, Write
from knarr.store.sqlite import SQLiteStore
from tests.apiserver.pipeline.door import (
    ADMINISTRATOR,
    CONFIG_MAPS,
    DEPLOYMENTS,
    PODS,
    SERVICES,
    Door,
    causes,
    config_map,
    deployment,
    pod,
    service,
)

QUOTAS = "/api/v1/namespaces/default/resourcequotas"


def quota(hard: dict[str, Any], name: str = "q", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard, **spec}}


async def put(
    door: Door, hard: dict[str, Any], used: dict[str, str] | None = None, name: str = "q", **spec: Any
) -> None:
    """A quota as the loop leaves it: counted."""
    made = await door.done("POST", QUOTAS, quota(hard, name, **spec))
    made["status"] = {"hard": made["spec"]["hard"], "used": dict.fromkeys(hard, "0") | (used or {})}
    await door.done("PUT", f"{QUOTAS}/{name}/status", made)


async def used(door: Door, name: str = "q") -> dict[str, str]:
    found: dict[str, str] = (await door.done("GET", f"{QUOTAS}/{name}"))["status"]["used"]
    return found


def asking(name: str, requests: dict[str, str] | None = None, limited: dict[str, str] | None = None) -> dict[str, Any]:
    made = pod(name)
    made["spec"]["containers"][0]["resources"] = {"requests": requests or {}, "limits": limited or {}}
    return made


async def test_pods_are_counted_up_to_the_quota(door: Door) -> None:
    await put(door, {"pods": "2"})
    await door.done("POST", PODS, pod("a"))
    await door.done("POST", PODS, pod("b"))
    assert await used(door) == {"pods": "2"}
    status, refused = await door("POST", PODS, pod("c"))
    assert (status, refused["reason"]) == (403, "Forbidden")
    assert refused["message"] == (
        'pods "c" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2'
    )
    assert refused["details"] == {"name": "c", "kind": "pods"}
    assert await used(door) == {"pods": "2"}


async def test_what_is_over_is_told_of_each_resource(door: Door) -> None:
    await put(door, {"pods": "9", "cpu": "1", "requests.memory": "1Gi", "limits.cpu": "2"}, {"cpu": "600m"})
    body = asking("a", {"cpu": "500m", "memory": "2Gi"}, {"cpu": "1", "memory": "2Gi"})
    status, refused = await door("POST", PODS, body)
    assert status == 403
    assert refused["message"] == (
        'pods "a" is forbidden: exceeded quota: q, requested: cpu=500m,requests.memory=2Gi, '
        "used: cpu=600m,requests.memory=0, limited: cpu=1,requests.memory=1Gi"
    )
    await door.done("POST", PODS, asking("b", {"cpu": "400m", "memory": "512Mi"}, {"cpu": "1"}))
    assert await used(door) == {"pods": "1", "cpu": "1", "requests.memory": "512Mi", "limits.cpu": "1"}


async def test_what_a_quota_is_about_must_be_said(door: Door) -> None:
    await put(door, {"cpu": "1", "limits.memory": "1Gi"})
    status, refused = await door("POST", PODS, pod("a", "x", "y"))
    assert (status, refused["message"]) == (
        403,
        'pods "a" is forbidden: failed quota: q: must specify cpu for: x,y; limits.memory for: x,y',
    )
    whole = {"requests": {"cpu": "1m"}, "limits": {"memory": "1Mi"}}
    await door.done("POST", PODS, pod("b", "x", "y", resources=whole))
    assert await used(door) == {"cpu": "1m", "limits.memory": "1Mi"}


async def test_a_quota_that_is_not_counted_yet_refuses(door: Door) -> None:
    await door.done("POST", QUOTAS, quota({"pods": "2"}))
    await door.done("POST", PODS, pod("unbound"))  # Without a status it is about nothing yet.
    made = await door.done("GET", f"{QUOTAS}/q")
    made["status"] = {"hard": {"pods": "2", "cpu": "1"}}
    await door.done("PUT", f"{QUOTAS}/q/status", made)
    status, refused = await door("POST", PODS, asking("a", {"cpu": "1m"}))
    assert (status, refused["message"]) == (
        403,
        'pods "a" is forbidden: status unknown for quota: q, resources: cpu,pods',
    )


COUNTS: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    (CONFIG_MAPS, config_map("a"), {"configmaps": "1", "count/configmaps": "1"}),
    (DEPLOYMENTS, deployment(), {"count/deployments.apps": "1"}),
    (SERVICES, service("a", (80, 81)), {"services": "1", "services.nodeports": "0", "services.loadbalancers": "0"}),
    (SERVICES, service("a", (80, 81), type="NodePort"), {"services": "1", "services.nodeports": "2"}),
    (SERVICES, service("a", type="LoadBalancer"), {"services.loadbalancers": "1", "services.nodeports": "1"}),
    (
        SERVICES,
        service("a", type="LoadBalancer", allocateLoadBalancerNodePorts=False),
        {"services.loadbalancers": "1", "services.nodeports": "0"},
    ),
    (
        PODS,
        asking("a", {"a.b/gpu": "2", "ephemeral-storage": "1Gi"}, {"a.b/gpu": "2", "ephemeral-storage": "2Gi"}),
        {"requests.a.b/gpu": "2", "requests.ephemeral-storage": "1Gi", "limits.ephemeral-storage": "2Gi"},
    ),
    (
        PODS,
        asking("a", {"hugepages-2Mi": "4Mi", "cpu": "1"}, {"hugepages-2Mi": "4Mi", "cpu": "1"}),
        {"hugepages-2Mi": "4Mi", "requests.hugepages-2Mi": "4Mi", "count/pods": "1"},
    ),
    (QUOTAS, quota({"pods": "1"}, "another"), {"resourcequotas": "1", "count/resourcequotas": "1"}),
]


@pytest.mark.parametrize("number", range(len(COUNTS)))
async def test_each_kind_takes_what_is_its_own(door: Door, number: int) -> None:
    path, body, taken = COUNTS[number]
    hard = {name: "10Gi" if "storage" in name or "huge" in name else "10" for name in taken}
    await put(door, hard | {"count/leases.coordination.k8s.io": "5"})
    await door.done("POST", path, body)
    assert await used(door) == taken | {"count/leases.coordination.k8s.io": "0"}


async def test_updates_take_the_difference_and_no_more_than_there_is(door: Door) -> None:
    await put(door, {"services.nodeports": "2", "services": "3"})
    await door.done("POST", SERVICES, service("a", type="NodePort"))
    more = {"spec": {"ports": [{"name": f"p{port}", "port": port} for port in (80, 81, 82)]}}
    status, refused = await door("PATCH", f"{SERVICES}/a", more, content_type=MERGE_PATCH)
    assert (status, refused["message"]) == (
        403,
        'services "a" is forbidden: exceeded quota: q, requested: services.nodeports=2, '
        "used: services.nodeports=1, limited: services.nodeports=2",
    )
    more["spec"]["ports"].pop()
    await door.done("PATCH", f"{SERVICES}/a", more, content_type=MERGE_PATCH)
    assert await used(door) == {"services.nodeports": "2", "services": "1"}
    await door.done("PATCH", f"{SERVICES}/a", {"metadata": {"labels": {"a": "b"}}}, content_type=MERGE_PATCH)
    assert await used(door) == {"services.nodeports": "2", "services": "1"}


SCOPED: list[tuple[dict[str, Any], dict[str, bool]]] = [
    ({"scopes": ["Terminating"]}, {"deadline": True, "plain": False}),
    ({"scopes": ["NotTerminating"]}, {"deadline": False, "plain": True}),
    ({"scopes": ["BestEffort"]}, {"plain": True, "asking": False}),
    ({"scopes": ["NotBestEffort"]}, {"plain": False, "asking": True}),
    ({"scopes": ["BestEffort", "NotTerminating"]}, {"plain": True, "deadline": False, "asking": False}),
    ({"scopes": ["CrossNamespacePodAffinity"]}, {"plain": False, "near": True}),
    ({"scopes": ["PriorityClass"]}, {"plain": False, "important": True}),
    *(
        ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", **expression}]}}, found)
        for expression, found in (
            ({"operator": "In", "values": ["system-node-critical"]}, {"important": True, "plain": False}),
            ({"operator": "NotIn", "values": ["system-node-critical"]}, {"important": False, "plain": True}),
            ({"operator": "In", "values": ["other"]}, {"important": False, "plain": False}),
            ({"operator": "Exists"}, {"important": True, "plain": False}),
            ({"operator": "DoesNotExist"}, {"important": False, "plain": True}),
        )
    ),
]
TERM = {"topologyKey": "zone", "namespaces": ["other"], "labelSelector": {}}
OF_SCOPE = {
    "plain": pod("plain"),
    "deadline": pod("deadline", activeDeadlineSeconds=60),
    "asking": asking("asking", {"cpu": "1m"}),
    "important": pod("important", priorityClassName="system-node-critical"),
    "near": pod("near", affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [TERM]}}),
}


@pytest.mark.parametrize("number", range(len(SCOPED)))
async def test_scopes_say_which_pods_a_quota_is_about(door: Door, number: int) -> None:
    spec, expected = SCOPED[number]
    await put(door, {"pods": "0"}, **spec)
    for name, counted in expected.items():
        status, _ = await door("POST", PODS, OF_SCOPE[name])
        assert (status == 403) is counted, name


async def test_a_pod_must_fit_into_every_quota_and_takes_of_all_or_none(door: Door) -> None:
    await put(door, {"pods": "5"}, name="a")
    await put(door, {"pods": "1"}, name="b")
    await door.done("POST", PODS, pod("one"))
    assert (await door("POST", PODS, pod("two")))[0] == 403
    assert (await used(door, "a"), await used(door, "b")) == ({"pods": "1"}, {"pods": "1"})


async def test_what_fails_otherwise_takes_nothing(door: Door) -> None:
    await put(door, {"pods": "2"})
    await door.done("POST", PODS, pod("a"))
    assert (await door("POST", PODS, pod("a")))[0] == 409
    await door.done("POST", PODS, pod("b"), dryRun="All")
    assert await used(door) == {"pods": "1"}
    await door.done("POST", PODS, pod("b"))
    assert (await door("POST", PODS, pod("c"), dryRun="All"))[0] == 403


async def test_the_quota_stays_what_it_is_but_for_its_use(door: Door) -> None:
    await put(door, {"pods": "2"})
    before = await door.done("GET", f"{QUOTAS}/q")
    await door.done("POST", PODS, pod("a"))
    after = await door.done("GET", f"{QUOTAS}/q")
    assert int(after["metadata"]["resourceVersion"]) > int(before["metadata"]["resourceVersion"])
    made = await door.done("GET", f"{PODS}/a")
    assert after["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], "one commit"
    for each in (before, after):
        del each["metadata"]["resourceVersion"], each["status"]["used"]
    assert after == before


async def test_of_many_who_come_at_once_just_so_many_succeed(door: Door) -> None:
    await put(door, {"pods": "50"})
    results = await asyncio.gather(*(door("POST", PODS, pod(f"p{number}")) for number in range(200)))
    statuses = [status for status, _ in results]
    assert (statuses.count(201), statuses.count(403)) == (50, 150)
    assert await used(door) == {"pods": "50"}
    assert len((await door.done("GET", PODS))["items"]) == 50


async def test_two_servers_on_one_durable_store_never_give_more_than_there_is(tmp_path: Path) -> None:
    """Neither knows of the other's lane: the quota's own revision decides."""
    store = await SQLiteStore.open(tmp_path / "store.db")
    door = Door()
    servers = [APIServer(store, built_in(), door.clock) for _ in range(2)]
    door.store, door.server = store, servers[0]  # type: ignore[assignment]
    clients = [Client(InProcessTransport(server), server.registry, ADMINISTRATOR) for server in servers]
    await door.done("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    await door.done("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    await put(door, {"pods": "30"})
    metadata = [{"name": f"p{number}", "namespace": "default"} for number in range(80)]
    pods = [msgspec.convert(pod("") | {"metadata": each}, Pod) for each in metadata]
    results = await asyncio.gather(
        *(clients[number % 2].create(each) for number, each in enumerate(pods)), return_exceptions=True
    )
    made = [result for result in results if isinstance(result, Pod)]
    assert len(made) == 30, {str(result) for result in results if not isinstance(result, Pod)}
    found = await clients[1].get(ResourceQuota, "q", "default")
    assert found.status
    assert found.status.used == {"pods": "30"}
    await store.close()


async def test_those_who_fail_do_not_hold_up_the_others(door: Door) -> None:
    """Names that are taken, and the same name twice, in the midst of a crowd."""
    await put(door, {"pods": "100"})
    await door.done("POST", PODS, pod("taken"))
    names = ["taken", "twice", "twice", *(f"p{number}" for number in range(40)), "taken"]
    results = await asyncio.gather(*(door("POST", PODS, pod(name)) for name in names))
    statuses = [status for status, _ in results]
    assert (statuses.count(201), statuses.count(409)) == (41, 3)
    assert await used(door) == {"pods": "42"}


async def test_a_quota_that_others_change_meanwhile_is_looked_at_again(door: Door) -> None:
    await put(door, {"pods": "20"})

    async def raise_limit() -> None:
        for number in range(21, 31):
            await door.done(
                "PATCH", f"{QUOTAS}/q", {"metadata": {"labels": {"n": str(number)}}}, content_type=MERGE_PATCH
            )
            await asyncio.sleep(0)

    results, _ = await asyncio.gather(
        asyncio.gather(*(door("POST", PODS, pod(f"p{number}")) for number in range(40))), raise_limit()
    )
    assert sorted(status for status, _ in results).count(201) == 20
    assert await used(door) == {"pods": "20"}


class Breaking:
    """A store whose next commit fails."""

    def __init__(self, store: Store) -> None:
        self._commit = store.commit
        self.broken = False

    async def commit(self, *writes: Write) -> int:
        if self.broken:
            raise StoreFailure("no space left on device")
        return await self._commit(*writes)


async def test_when_the_store_fails_nothing_is_taken(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(door, {"pods": "2"})
    breaking = Breaking(door.store)
    monkeypatch.setattr(door.store, "commit", breaking.commit)
    breaking.broken = True
    status, refused = await door("POST", PODS, pod("a"))
    assert (status, "no space left on device" in refused["message"]) == (503, True)
    breaking.broken = False
    assert await used(door) == {"pods": "0"}
    await door.done("POST", PODS, pod("a"))


async def test_who_gives_up_takes_nobody_with_him(door: Door) -> None:
    """A request is cut off in the midst of its commit, which happens all the same: it is counted, and others go on."""
    await put(door, {"pods": "20"})
    tasks = [asyncio.ensure_future(door("POST", PODS, pod(f"p{number}"))) for number in range(10)]
    commit = door.store.commit
    first = asyncio.Event()

    async def slow(*writes: Write) -> int:
        first.set()
        await asyncio.sleep(0.01)
        return await commit(*writes)

    door.store.commit = slow  # type: ignore[method-assign]
    await first.wait()
    tasks[0].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [result[0] for result in results[1:] if not isinstance(result, BaseException)] == [201] * 9
    assert await used(door) == {"pods": str(len((await door.done("GET", PODS))["items"]))}


FAULTS: list[tuple[dict[str, Any], list[str]]] = [
    (quota({"cores": "1"}), ["spec.hard[cores]"] * 2),
    (quota({"pods": "-1"}), ["spec.hard[pods]"]),
    (quota({"pods": "1.5"}), ["spec.hard[pods]"]),
    (quota({"pods": "1"}, scopes=["Odd"]), ["spec.scopes"]),
    (quota({"services": "1"}, scopes=["BestEffort"]), ["spec.scopes"]),
    (quota({"cpu": "1"}, scopes=["BestEffort"]), ["spec.scopes"]),
    (quota({"pods": "1"}, scopes=["BestEffort", "NotBestEffort"]), ["spec.scopes"]),
    *(
        (
            quota({"pods": "1"}, scopeSelector={"matchExpressions": [expression]}),
            [f"spec.scopeSelector.matchExpressions{field}"],
        )
        for expression, field in (
            ({"scopeName": "Odd", "operator": "Exists"}, ".scopeName"),
            ({"scopeName": "PriorityClass", "operator": "In"}, ".values"),
            ({"scopeName": "PriorityClass", "operator": "Exists", "values": ["a"]}, ".values"),
            ({"scopeName": "PriorityClass", "operator": "Is"}, ".operator"),
            ({"scopeName": "BestEffort", "operator": "In", "values": ["a"]}, ".operator"),
            ({"scopeName": "VolumeAttributesClass", "operator": "Exists"}, ""),
        )
    ),
]


@pytest.mark.parametrize("number", range(len(FAULTS)))
async def test_what_a_quota_may_not_say(door: Door, number: int) -> None:
    body, fields = FAULTS[number]
    status, refused = await door("POST", QUOTAS, body)
    assert (status, causes(refused)) == (422, fields), refused


async def test_scopes_stay_and_the_status_is_not_the_users(door: Door) -> None:
    body = quota({"pods": "1"}, scopes=["BestEffort"]) | {"status": {"used": {"pods": "7"}}}
    made = await door.done("POST", QUOTAS, body)
    assert made["status"] == {}
    status, refused = await door("PATCH", f"{QUOTAS}/q", {"spec": {"scopes": []}}, content_type=MERGE_PATCH)
    assert (status, causes(refused)) == (422, ["spec.scopes"])
