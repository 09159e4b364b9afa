"""Cluster IPs and IPAddress objects are brought together again, whatever somebody did to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Event, Service
from knarr.api.errors import Invalid, NotFound
from knarr.api.networking.v1 import IPAddress, ServiceCIDR
from knarr.api.types import replace
from knarr.client.informer import Informers
from knarr.client.transport import Answer, Request, Transport
from knarr.clock import Clock
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


def test_an_address_that_is_in_no_range_is_told_of_and_left_alone() -> None:
    async def scenario(loops: Loops) -> None:
        await loops.client.create(service("web", clusterIP=ADDRESS))
        cidr = {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.97.0.0/16"]}}
        await loops.client.create(msgspec.convert(cidr, ServiceCIDR))
        await loops.clock.sleep(1)
        await loops.client.patch(Service, "web", {"metadata": {"labels": {"a": "b"}}}, "default")
        wanted = f"Cluster IP [IPv4]: {ADDRESS} is not within any configured Service CIDR; please recreate service"

        async def said() -> bool:
            return wanted in await told(loops)

        await loops.until(said, within_s=5)
        assert await parent(loops) == "web"

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


class Late:
    """A way to the API server on which changes of Services are told 5 s late."""

    def __init__(self, inner: Transport, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    async def send(self, request: Request) -> Answer:
        answer = await self._inner.send(request)
        if answer.stream is not None and request.path.endswith("/services"):
            answer.stream = self._told(answer.stream)
        return answer

    async def _told(self, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in stream:
            await self._clock.sleep(5)
            yield chunk

    async def close(self) -> None:
        await self._inner.close()


def test_a_service_that_took_the_place_of_another_keeps_its_address_while_the_cache_shows_the_other() -> None:
    other = "10.96.0.78"

    def lagging(loops: Loops) -> list[ServiceRepair]:
        late = Late(loops.client.transport, loops.clock)
        loops.informers = Informers(replace(loops.client, transport=late), loops.clock)
        return loop(loops)

    async def scenario(loops: Loops) -> None:
        await loops.client.create(service("web", clusterIP=other))
        await loops.clock.sleep(10)
        await loops.client.delete(Service, "web", "default")
        await loops.client.create(service("web", clusterIP=ADDRESS))
        for _ in range(200):
            await loops.clock.sleep(0.1)
            assert (await parent(loops), await parent(loops, other)) == ("web", None)
        assert await told(loops) == []

    play(lagging, scenario)
