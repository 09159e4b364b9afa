"""The ServiceCIDR `kubernetes` is always there, and says so when it is not what the server was started with."""

from __future__ import annotations

import msgspec

from knarr.api.core.v1 import Event
from knarr.api.errors import NotFound
from knarr.api.networking.v1 import ServiceCIDR
from knarr.apiserver.default_range import DefaultRange, ensure_default_range
from tests.controllers.loops import Loops, play

V4, V6 = "10.96.0.0/16", "fd00:96::/112"


def loop(loops: Loops) -> list[DefaultRange]:
    return [DefaultRange(loops.client, loops.informers, loops.clock, [V4])]


async def ranges(loops: Loops) -> list[str] | None:
    try:
        found = await loops.client.get(ServiceCIDR, "kubernetes")
    except NotFound:
        return None
    return found.spec.cidrs if found.spec else []


def test_it_comes_back_when_somebody_deletes_it() -> None:
    async def scenario(loops: Loops) -> None:
        await ensure_default_range(loops.client, [V4])
        await loops.clock.sleep(1)
        no_finalizers = {"metadata": {"finalizers": None}}
        await loops.client.delete(ServiceCIDR, "kubernetes")
        await loops.client.patch(ServiceCIDR, "kubernetes", no_finalizers, content_type="application/merge-patch+json")

        async def back() -> bool:
            try:
                found = await loops.client.get(ServiceCIDR, "kubernetes")
            except NotFound:
                return False
            return bool(found.status and found.status.conditions and not found.metadata.deletion_timestamp)

        await loops.until(back, within_s=5)
        assert await ranges(loops) == [V4]

    play(loop, scenario)


def test_a_second_family_is_added_and_another_range_is_told_of() -> None:
    async def scenario(loops: Loops) -> None:
        await ensure_default_range(loops.client, [V4])
        await ensure_default_range(loops.client, [V4, V6])
        assert await ranges(loops) == [V4, V6]
        wanted = f"The default ServiceCIDR [{V4} {V6}] does not match the flag configurations [{V4}]"

        async def told() -> bool:
            return wanted in [event.message for event in (await loops.client.list(Event)).items]

        await loops.until(told, within_s=5)
        other = {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.97.0.0/16"]}}
        await loops.client.create(msgspec.convert(other, ServiceCIDR))
        await loops.clock.sleep(5)
        assert len((await loops.client.list(Event)).items) == 1

    play(loop, scenario)
