"""Admission: namespaces, service accounts, tolerations, priority, and the addresses of Services."""

from __future__ import annotations

import asyncio

import pytest

from knarr.client.client import MERGE_PATCH
from tests.apiserver.pipeline.door import PODS, SERVICES, Door, account, causes, config_map, open_door, pod, service


async def addresses(door: Door) -> set[str]:
    found = [await door.store.range(prefix) for prefix in ("ranges/", "ipaddresses.networking.k8s.io/")]
    return {record.key.rpartition("/")[2] for each in found for record in each.records}


async def test_nothing_is_made_in_a_namespace_that_is_not_there(door: Door) -> None:
    status, refused = await door("POST", "/api/v1/namespaces/nowhere/configmaps", config_map("a"))
    assert (status, refused["message"]) == (404, 'namespaces "nowhere" not found')


async def test_a_pod_finds_its_token_ca_and_namespace_mounted(door: Door) -> None:
    made = await door.done("POST", PODS, pod("a", "one", "two"))
    spec = made["spec"]
    assert (spec["serviceAccountName"], spec["serviceAccount"]) == ("default", "default")
    (volume,) = spec["volumes"]
    assert volume["name"].startswith("kube-api-access-")
    sources = volume["projected"]["sources"]
    assert [next(iter(source)) for source in sources] == ["serviceAccountToken", "configMap", "downwardAPI"]
    for container in spec["containers"]:
        (mount,) = container["volumeMounts"]
        assert (mount["name"], mount["mountPath"], mount["readOnly"]) == (
            volume["name"],
            "/var/run/secrets/kubernetes.io/serviceaccount",
            True,
        )


async def test_a_token_is_not_mounted_when_pod_or_account_say_so(door: Door) -> None:
    made = await door.done("POST", PODS, pod("a", automountServiceAccountToken=False))
    assert "volumes" not in made["spec"]
    silent = account("silent") | {"automountServiceAccountToken": False}
    await door.done("POST", "/api/v1/namespaces/default/serviceaccounts", silent)
    made = await door.done("POST", PODS, pod("b", serviceAccountName="silent"))
    assert "volumes" not in made["spec"]


async def test_a_pod_of_an_unknown_account_is_forbidden(door: Door) -> None:
    status, refused = await door("POST", PODS, pod("a", serviceAccountName="nobody"))
    assert (status, refused["reason"]) == (403, "Forbidden")
    assert 'serviceaccount "nobody" not found' in refused["message"]


async def test_tolerations_and_priority_have_upstreams_defaults(door: Door) -> None:
    own = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    made = await door.done("POST", PODS, pod("a", tolerations=[own]))
    found = {each["key"]: each["tolerationSeconds"] for each in made["spec"]["tolerations"]}
    assert found == {"node.kubernetes.io/not-ready": 5, "node.kubernetes.io/unreachable": 300}
    assert (made["spec"]["priority"], made["spec"]["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    critical = await door.done("POST", PODS, pod("b", priorityClassName="system-node-critical"))
    assert critical["spec"]["priority"] == 2_000_001_000
    assert (await door("POST", PODS, pod("c", priorityClassName="unknown")))[0] == 403


async def test_a_service_gets_an_address_and_gives_it_back(door: Door) -> None:
    before = await addresses(door)
    made = await door.done("POST", SERVICES, service("a"))
    address = made["spec"]["clusterIP"]
    assert made["spec"]["clusterIPs"] == [address]
    assert await addresses(door) == before | {address}
    await door.done("DELETE", f"{SERVICES}/a")
    assert await addresses(door) == before


async def test_a_chosen_address_must_be_free_and_in_range(door: Door) -> None:
    await door.done("POST", SERVICES, service("a", clusterIP="10.96.5.5"))
    for wrong in ("10.96.5.5", "10.97.0.1", "10.96.0.0", "bad"):
        status, refused = await door("POST", SERVICES, service("b", clusterIP=wrong))
        assert status == 422, wrong
        assert causes(refused)[0].startswith("spec.clusterIP")
    status, _ = await door("PATCH", f"{SERVICES}/a", {"spec": {"clusterIP": "10.96.5.6"}}, content_type=MERGE_PATCH)
    assert status == 422
    assert "10.96.5.6" not in await addresses(door)


async def test_headless_and_external_services_take_no_address(door: Door) -> None:
    before = await addresses(door)
    headless = await door.done("POST", SERVICES, service("a", clusterIP="None"))
    assert headless["spec"]["clusterIPs"] == ["None"]
    external = await door.done("POST", SERVICES, service("b", type="ExternalName", externalName="example.com"))
    assert "clusterIP" not in external["spec"]
    assert await addresses(door) == before


async def test_node_ports_are_given_chosen_kept_and_released(door: Door) -> None:
    before = await addresses(door)
    made = await door.done("POST", SERVICES, service("a", (80, 81), type="NodePort"))
    ports = [port["nodePort"] for port in made["spec"]["ports"]]
    assert len(set(ports)) == 2
    assert all(30000 <= port <= 32767 for port in ports)
    taken = service("b", type="NodePort")
    taken["spec"]["ports"][0]["nodePort"] = ports[0]
    status, refused = await door("POST", SERVICES, taken)
    assert (status, causes(refused)) == (422, ["spec.ports[0].nodePort"])
    taken["spec"]["ports"][0]["nodePort"] = 80
    assert (await door("POST", SERVICES, taken))[0] == 422
    labelled = await door.done("PATCH", f"{SERVICES}/a", {"metadata": {"labels": {"x": "y"}}}, content_type=MERGE_PATCH)
    assert [port["nodePort"] for port in labelled["spec"]["ports"]] == ports
    plain = await door.done("PATCH", f"{SERVICES}/a", {"spec": {"type": "ClusterIP"}}, content_type=MERGE_PATCH)
    assert all("nodePort" not in port for port in plain["spec"]["ports"])
    assert await addresses(door) == before | {plain["spec"]["clusterIP"]}
    name = {"spec": {"type": "ExternalName", "externalName": "example.com"}}
    await door.done("PATCH", f"{SERVICES}/a", name, content_type=MERGE_PATCH)
    assert await addresses(door) == before
    back = {"spec": {"type": "LoadBalancer", "externalName": None}}
    balanced = await door.done("PATCH", f"{SERVICES}/a", back, content_type=MERGE_PATCH)
    assert balanced["spec"]["clusterIP"]
    assert all(port["nodePort"] for port in balanced["spec"]["ports"])


async def test_concurrent_services_never_share_an_address_and_use_up_the_range() -> None:
    async with open_door(service_cidrs=["10.96.0.0/27"]) as door:
        free = 30 - len(await addresses(door))
        results = await asyncio.gather(*(door("POST", SERVICES, service(f"s{i}")) for i in range(free + 3)))
        made = [data["spec"]["clusterIP"] for status, data in results if status == 201]
        assert len(made) == len(set(made)) == free
        assert sorted({status for status, _ in results}) == [201, 500]


@pytest.mark.parametrize("type_", ["ClusterIP", "NodePort"])
async def test_a_dry_run_takes_no_address(door: Door, type_: str) -> None:
    before = await addresses(door)
    await door.done("POST", SERVICES, service("a", type=type_), dryRun="All")
    assert await addresses(door) == before
