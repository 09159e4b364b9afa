"""externalIPs are refused unless an administrator allows them (CVE-2020-8554)."""

from __future__ import annotations

from knarr.apiserver.admission.externalips import DenyServiceExternalIPs
from tests.apiserver.pipeline.door import SERVICES, Door, open_door, service

MERGE_PATCH = "application/merge-patch+json"
EXTERNAL = {"externalIPs": ["192.0.2.1", "192.0.2.2"]}


async def test_a_service_may_not_name_addresses_of_others() -> None:
    async with open_door() as door:
        status, refused = await door("POST", SERVICES, service("web", **EXTERNAL))
        assert (status, refused["reason"]) == (403, "Forbidden")
        assert refused["message"].startswith('services "web" is forbidden: Use of external IPs is denied by admission')
        await door.done("POST", SERVICES, service("web"))
        assert await patched(door, ["192.0.2.1"]) == 403


async def test_what_a_service_has_already_it_keeps_and_may_give_up() -> None:
    async with open_door(without_plugins=["DenyServiceExternalIPs"]) as door:
        await door.done("POST", SERVICES, service("web", **EXTERNAL))
        door.server.objects.admission.add(DenyServiceExternalIPs())
        assert await patched(door, EXTERNAL["externalIPs"]) == 200
        assert await patched(door, ["192.0.2.2"]) == 200
        assert await patched(door, EXTERNAL["externalIPs"]) == 403


async def test_an_administrator_may_allow_them() -> None:
    async with open_door(without_plugins=["DenyServiceExternalIPs"]) as door:
        made = await door.done("POST", SERVICES, service("web", **EXTERNAL))
        assert made["spec"]["externalIPs"] == EXTERNAL["externalIPs"]


async def patched(door: Door, addresses: list[str]) -> int:
    status, _ = await door("PATCH", f"{SERVICES}/web", {"spec": {"externalIPs": addresses}}, content_type=MERGE_PATCH)
    return status
