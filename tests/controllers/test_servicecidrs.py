"""Ranges of cluster IPs: ready once they are protected, kept while an address needs them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Service
from knarr.api.errors import NotFound
from knarr.api.networking.v1 import IPAddress, ServiceCIDR
from knarr.apiserver.bootstrap import bootstrap
from knarr.controllers.servicecidrs import ServiceCIDRs, dispensable
from tests.controllers.loops import Loops, play

FINALIZER = "networking.k8s.io/service-cidr-finalizer"


def made(name: str, *cidrs: str) -> ServiceCIDR:
    return msgspec.convert({"metadata": {"name": name}, "spec": {"cidrs": cidrs}}, ServiceCIDR)


def service(name: str, **spec: Any) -> Service:
    body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}], **spec}}
    return msgspec.convert(body, Service)


@pytest.mark.parametrize(
    ("others", "addresses", "goes"),
    [
        ([], [], True),
        ([], ["10.1.0.5"], False),
        ([], ["10.2.0.5"], True),
        ([made("b", "10.0.0.0/8")], ["10.1.0.5"], True),
        ([made("b", "10.1.0.0/24")], ["10.1.0.5"], True),
        ([made("b", "10.1.0.0/28")], ["10.1.0.5"], True),
        ([made("b", "10.1.0.0/30")], ["10.1.0.5"], False),
        ([made("b", "2001:db8::/64")], ["10.1.0.5"], False),
    ],
)
def test_a_range_goes_when_no_address_needs_it(others: list[ServiceCIDR], addresses: list[str], goes: bool) -> None:
    assert dispensable(made("a", "10.1.0.0/24"), others, addresses) is goes


def loop(loops: Loops) -> list[ServiceCIDRs]:
    return [ServiceCIDRs(loops.account("service-cidrs-controller"), loops.informers, loops.clock)]


async def ready(loops: Loops, name: str) -> tuple[str, str] | None:
    found = await loops.client.get(ServiceCIDR, name)
    conditions = found.status.conditions if found.status else []
    return next(((one.status, one.reason) for one in conditions if one.type == "Ready"), None)


async def gone(loops: Loops, name: str) -> bool:
    try:
        await loops.client.get(ServiceCIDR, name)
    except NotFound:
        return True
    return False


def test_a_second_range_gives_addresses_until_it_is_deleted_and_stays_while_they_are_used() -> None:
    async def scenario(loops: Loops) -> None:
        await bootstrap(loops.client, ["10.96.0.0/16"], ["10.96.0.10"], "127.0.0.1", 6443)
        assert await ready(loops, "kubernetes") == ("True", "")
        await loops.client.create(made("more", "10.1.0.0/29"))

        async def more_is(status: str) -> bool:
            found = await ready(loops, "more")
            return found is not None and found[0] == status

        await loops.until(lambda: more_is("True"), within_s=5)
        assert (await loops.client.get(ServiceCIDR, "more")).metadata.finalizers == [FINALIZER]
        await loops.client.create(service("web", clusterIP="10.1.0.2"))
        await loops.client.delete(ServiceCIDR, "more")
        await loops.until(lambda: more_is("False"), within_s=5)
        assert await ready(loops, "more") == ("False", "Terminating")
        await loops.clock.sleep(60)
        assert not await gone(loops, "more")
        await loops.client.delete(Service, "web", "default")
        await loops.until(lambda: gone(loops, "more"), within_s=15)
        with pytest.raises(NotFound):
            await loops.client.get(IPAddress, "10.1.0.2")

    play(loop, scenario)


def test_a_range_that_nobody_uses_goes_after_a_while() -> None:
    async def scenario(loops: Loops) -> None:
        await loops.client.create(made("more", "10.1.0.0/29"))

        async def protected() -> bool:
            return FINALIZER in (await loops.client.get(ServiceCIDR, "more")).metadata.finalizers

        await loops.until(protected, within_s=5)
        await loops.client.delete(ServiceCIDR, "more")
        await loops.clock.sleep(5)
        assert not await gone(loops, "more")
        await loops.until(lambda: gone(loops, "more"), within_s=10)

    play(loop, scenario)
