"""Services of both families: their addresses come and go as their users ask, with the IPAddress objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.apiserver.pipeline.door import SERVICES, Door, open_door, service

ADDRESSES = "/apis/networking.k8s.io/v1/ipaddresses"
V4, V6 = "10.96.0.0/24", "fd00:96::/120"
MERGE_PATCH = "application/merge-patch+json"


@pytest.fixture
async def both() -> AsyncIterator[Door]:
    async with open_door(service_cidrs=[V4, V6]) as opened:
        yield opened


async def taken(door: Door) -> set[str]:
    listed = await door.done("GET", ADDRESSES)
    return {each["metadata"]["name"] for each in listed["items"]}


async def patched(door: Door, **spec: Any) -> dict[str, Any]:
    changed: dict[str, Any] = await door.done("PATCH", f"{SERVICES}/web", {"spec": spec}, content_type=MERGE_PATCH)
    return changed["spec"]


async def test_a_service_has_an_address_of_each_of_its_families(both: Door) -> None:
    before = await taken(both)
    made = (await both.done("POST", SERVICES, service("web", ipFamilyPolicy="RequireDualStack")))["spec"]
    assert (made["ipFamilies"], made["clusterIP"]) == (["IPv4", "IPv6"], made["clusterIPs"][0])
    assert [ip_address(each) in ip_network(cidr) for each, cidr in zip(made["clusterIPs"], (V4, V6), strict=True)] == [
        True,
        True,
    ]
    assert await taken(both) == before | set(made["clusterIPs"])
    labels = (await both.done("GET", f"{ADDRESSES}/{made['clusterIPs'][1]}"))["metadata"]["labels"]
    assert labels["ipaddress.kubernetes.io/ip-family"] == "IPv6"
    await both.done("DELETE", f"{SERVICES}/web")
    assert await taken(both) == before


async def test_the_second_family_is_added_and_let_go(both: Door) -> None:
    before = await taken(both)
    first = (await both.done("POST", SERVICES, service("web")))["spec"]["clusterIP"]
    added = await patched(both, ipFamilyPolicy="PreferDualStack")
    assert (added["clusterIPs"][0], len(added["clusterIPs"])) == (first, 2)
    assert await taken(both) == before | set(added["clusterIPs"])
    released = await patched(both, ipFamilyPolicy="SingleStack")
    assert (released["clusterIPs"], released["ipFamilies"]) == ([first], ["IPv4"])
    assert await taken(both) == before | {first}
    chosen = await patched(both, ipFamilyPolicy="RequireDualStack", clusterIPs=[first, "fd00:96::77"])
    assert chosen["ipFamilies"] == ["IPv4", "IPv6"]
    assert await taken(both) == before | {first, "fd00:96::77"}
    only = await patched(both, ipFamilyPolicy="SingleStack", clusterIPs=[first], ipFamilies=["IPv4"])
    assert only["clusterIPs"] == [first]
    assert await taken(both) == before | {first}


async def test_addresses_of_both_families_may_be_chosen_in_any_order(both: Door) -> None:
    chosen = {"clusterIP": "fd00:96::7", "clusterIPs": ["fd00:96::7", "10.96.0.7"]}
    made = (await both.done("POST", SERVICES, service("web", ipFamilyPolicy="PreferDualStack", **chosen)))["spec"]
    assert (made["ipFamilies"], made["clusterIPs"]) == (["IPv6", "IPv4"], chosen["clusterIPs"])
    status, refused = await both("POST", SERVICES, service("other", clusterIP="fd00:96::7"))
    assert status == 422
    assert "failed to allocate IP fd00:96::7: provided IP is already allocated" in refused["message"]


async def test_an_address_is_the_same_however_it_is_written(both: Door) -> None:
    await both.done("POST", SERVICES, service("web", clusterIP="FD00:96:0::0A0"))
    assert "fd00:96::a0" in await taken(both)
    status, refused = await both("POST", SERVICES, service("other", clusterIP="fd00:96::a0"))
    assert (status, "already allocated" in refused["message"]) == (422, True)
    await both.done("DELETE", f"{SERVICES}/web")
    assert "fd00:96::a0" not in await taken(both)


async def test_a_change_of_type_gives_both_back(both: Door) -> None:
    before = await taken(both)
    await both.done("POST", SERVICES, service("web", ipFamilyPolicy="RequireDualStack"))
    named = await patched(both, type="ExternalName", externalName="example.com")
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"} & set(named)
    assert await taken(both) == before
    back = await patched(both, type="ClusterIP", externalName=None, ipFamilyPolicy="PreferDualStack")
    assert await taken(both) == before | set(back["clusterIPs"])
    assert len(back["clusterIPs"]) == 2


async def test_what_is_refused_takes_nothing(both: Door) -> None:
    await both.done("POST", SERVICES, service("other", clusterIP="10.96.0.7"))
    before = await taken(both)
    twice = {"clusterIP": "fd00:96::7", "clusterIPs": ["fd00:96::7", "10.96.0.7"], "ipFamilyPolicy": "RequireDualStack"}
    status, refused = await both("POST", SERVICES, service("web", **twice))
    assert (status, "failed to allocate IP 10.96.0.7" in refused["message"]) == (422, True)
    assert await taken(both) == before


async def test_the_second_family_runs_out_alone() -> None:
    async with open_door(service_cidrs=[V4, "fd00:96::/124"]) as door:
        free = 15 - 1  # All but the range's own address, less that of DNS.
        asked = service("x", ipFamilyPolicy="RequireDualStack")
        bodies = [{**asked, "metadata": {"name": f"s{number}"}} for number in range(free + 2)]
        results = await asyncio.gather(*(door("POST", SERVICES, body) for body in bodies))
        given = [data["spec"]["clusterIPs"][1] for status, data in results if status == 201]
        assert len(given) == len(set(given)) == free
        assert sorted({status for status, _ in results}) == [201, 500]
        assert len(await taken(door)) == 1 + 2 + 2 * free
        await door.done("POST", SERVICES, service("single"))


async def test_a_cluster_whose_first_family_is_ipv6() -> None:
    async with open_door(service_cidrs=[V6, V4]) as door:
        made = (await door.done("POST", SERVICES, service("web")))["spec"]
        assert (made["ipFamilies"], ip_address(made["clusterIP"]) in ip_network(V6)) == (["IPv6"], True)
        api = (await door.done("GET", f"{SERVICES}/kubernetes"))["spec"]
        assert (api["clusterIP"], api["ipFamilyPolicy"]) == ("fd00:96::1", "SingleStack")
        dns = (await door.done("GET", "/api/v1/namespaces/kube-system/services/kube-dns"))["spec"]
        assert (dns["clusterIPs"], dns["ipFamilies"]) == (["fd00:96::a", "10.96.0.10"], ["IPv6", "IPv4"])


async def test_a_service_of_a_family_that_the_cluster_has_not_is_refused(door: Door) -> None:
    for spec in ({"ipFamilyPolicy": "RequireDualStack"}, {"ipFamilies": ["IPv6"]}, {"clusterIP": "fd00:96::7"}):
        assert (await door("POST", SERVICES, service("web", **spec)))[0] == 422, spec
    made = (await door.done("POST", SERVICES, service("web", ipFamilyPolicy="PreferDualStack")))["spec"]
    assert made["ipFamilies"] == ["IPv4"]


async def test_a_headless_service_may_have_both_families_and_change_them(both: Door) -> None:
    before = await taken(both)
    made = (await both.done("POST", SERVICES, service("web", clusterIP="None")))["spec"]
    assert (made["ipFamilies"], made["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert (await patched(both, ipFamilyPolicy="PreferDualStack"))["ipFamilies"] == ["IPv4", "IPv6"]
    assert (await patched(both, ipFamilyPolicy="SingleStack"))["ipFamilies"] == ["IPv4"]
    assert await taken(both) == before
    by_hand = service("hand", clusterIP="None")
    by_hand["spec"].pop("selector")
    made = (await both.done("POST", SERVICES, by_hand))["spec"]
    assert (made["ipFamilies"], made["ipFamilyPolicy"]) == (["IPv4", "IPv6"], "RequireDualStack")


async def test_a_cluster_of_one_family_becomes_dual_stack_by_a_second_range() -> None:
    from knarr.apiserver.bootstrap import bootstrap

    async with open_door(service_cidrs=[V4]) as door:
        await bootstrap(door.client, [V4, V6], ["10.96.0.10"], "127.0.0.1", 6443)
        found = await door.done("GET", "/apis/networking.k8s.io/v1/servicecidrs/kubernetes")
        assert found["spec"] == {"cidrs": [V4, V6]}
