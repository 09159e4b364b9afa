"""Cluster IPs and IPAddress objects are brought together again, whatever somebody did to them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Event, Service
from knarr.api.errors import Invalid, NotFound
from knarr.api.networking.v1 import IPAddress
from knarr.controllers.servicerepair import ServiceRepair
from tests.controllers.loops import Loops, play

ADDRESS = "10.96.0.77"


def loop(loops: Loops) -> list[ServiceRepair]:
    return [ServiceRepair(loops.client, loops.informers, loops.clock)]


def service(name: str, **spec: Any) -> Service:
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}], **spec}}, Service
    )


async def parent(loops: Loops, address: str = ADDRESS) -> str | None:
    try:
        found = await loops.client.get(IPAddress, address)
    except NotFound:
        return None
    return found.spec.parent_ref.name if found.spec and found.spec.parent_ref else None


async def told(loops: Loops) -> list[str | None]:
    return [event.message for event in (await loops.client.list(Event)).items]


def test_an_address_that_is_deleted_comes_back_and_is_given_to_nobody_else() -> None:
    async def scenario(loops: Loops) -> None:
        await loops.client.create(service("web", clusterIP=ADDRESS))
        await loops.clock.sleep(1)
        await loops.client.delete(IPAddress, ADDRESS)

        async def mended() -> bool:
            return await parent(loops) == "web"

        await loops.until(mended, within_s=5)
        with pytest.raises(Invalid, match="provided IP is already allocated"):
            await loops.client.create(service("other", clusterIP=ADDRESS))
        await loops.clock.sleep(1)
        assert await told(loops) == [f"Cluster IP [IPv4]: {ADDRESS} is not allocated; repairing"]
        await loops.client.delete(Service, "web", "default")
        assert await parent(loops) is None

    play(loop, scenario)


def test_an_address_without_its_service_goes_and_one_of_somebody_else_stays() -> None:
    async def scenario(loops: Loops) -> None:
        for name, labels in (
            (ADDRESS, {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}),
            ("10.96.0.78", {}),
        ):
            reference = {"resource": "services", "namespace": "default", "name": "gone"}
            made = {"metadata": {"name": name, "labels": labels}, "spec": {"parentRef": reference}}
            await loops.client.create(msgspec.convert(made, IPAddress))

        async def gone() -> bool:
            return await parent(loops) is None

        await loops.until(gone, within_s=5)
        await loops.clock.sleep(30)
        assert await parent(loops, "10.96.0.78") == "gone"

    play(loop, scenario)


def test_services_that_come_and_go_are_told_nothing() -> None:
    async def scenario(loops: Loops) -> None:
        for number in range(50):
            await loops.client.create(service(f"s{number}"))
            if number % 2:
                await loops.client.delete(Service, f"s{number}", "default")
        await loops.client.create(service("headless", clusterIP="None"))
        await loops.clock.sleep(30)
        assert await told(loops) == []
        assert len((await loops.client.list(IPAddress)).items) == 25

    play(loop, scenario)
