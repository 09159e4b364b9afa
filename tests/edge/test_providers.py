"""What every provider promises: the same tests over a cloud in memory, the machine's own addresses, and AWS's API.

Each test tells a provider something, perhaps with a crash at any of its calls, and looks at all that the account holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec
import pytest

from knarr.api.core.v1 import Service
from knarr.edge.loadbalancer import described
from knarr.edge.providers.contract import LoadBalancer, Provider, ProviderFailure, Target
from knarr.edge.providers.local import Local, parse_pools
from tests.edge.fake import Cloud, Crash, FakeProvider, Faults
from tests.network.feed import Feed

CALLS_MAX = 80
"""More than any provider makes for one step."""


class Account(Protocol):
    """What the provider's calls change."""

    faults: Faults

    def snapshot(self) -> Any: ...


class Bench:
    """A provider and its account; a new provider on the same account is what is there after a crash."""

    def __init__(self, account: Account, nodes: Sequence[Target]) -> None:
        self.account, self.nodes = account, list(nodes)

    def provider(self) -> Provider:
        raise NotImplementedError

    def snapshot(self) -> Any:
        return self.account.snapshot()


def targets() -> list[Target]:
    return [Target(f"n{number}", (f"192.168.0.{number}",)) for number in range(3)]


class InMemory(Cloud):
    def snapshot(self) -> Any:
        return dict(self.parts)


class FakeBench(Bench):
    def __init__(self) -> None:
        self.cloud = InMemory()
        super().__init__(self.cloud, targets())

    def provider(self) -> Provider:
        return FakeProvider(self.cloud)


class Nothing:
    """The provider `local` makes nothing outside of the cluster."""

    def __init__(self) -> None:
        self.faults = Faults()

    def snapshot(self) -> Any:
        return {}


class LocalBench(Bench):
    def __init__(self, pools: str) -> None:
        super().__init__(Nothing(), targets())
        from knarr.client.informer import Informers
        from knarr.clock import SystemClock

        clock = SystemClock()
        self._informers = Informers(Feed().client, clock)
        self._pools = parse_pools(pools)
        self._one = Local(self._informers, clock, self._pools)
        self._one.begin(lambda keys: None, lambda key, reason, message: None)

    def provider(self) -> Provider:
        return self._one


@asynccontextmanager
async def bench_of(name: str, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if name == "fake":
        yield FakeBench()
    elif name == "local":
        yield LocalBench("")
    elif name == "local with pools":
        yield LocalBench("10.9.0.0/24")
    elif name == "aws":
        pytest.importorskip("moto")
        from tests.edge.aws_bench import AwsBench

        yield AwsBench(request.getfixturevalue("moto_url"))

    elif name == "gcp":
        pytest.importorskip("google.cloud.compute_v1")
        from tests.edge.gcp_bench import GcpBench

        emulated = GcpBench()
        yield emulated
        emulated.account.close()

    elif name == "azure":
        pytest.importorskip("azure.mgmt.network")
        from tests.edge.azure_bench import AzureBench

        arm = AzureBench()
        yield arm
        arm.account.close()


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    from tests.edge.moto_server import moto_server

    with moto_server() as url:
        yield url


@pytest.fixture(params=["fake", "local", "local with pools", "aws", "gcp", "azure"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    async with bench_of(request.param, request) as made:
        yield made


def balancer(name: str = "web", **spec: Any) -> LoadBalancer:
    ports = [
        {"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"},
        {"name": "dns", "port": 53, "nodePort": 30053, "protocol": "UDP"},
    ]
    uid = f"{name.encode().hex():0>12}-1111-2222-3333-444455556666"
    metadata = {"name": name, "namespace": "default", "uid": uid}
    service = {"metadata": metadata, "spec": {"type": "LoadBalancer", "ports": ports, **spec}}
    return described(msgspec.convert(service, Service))


CHANGED = {
    "ports": [{"name": "http", "port": 80, "nodePort": 30081, "protocol": "TCP"}, {"port": 443, "nodePort": 30443}],
    "loadBalancerSourceRanges": ["10.0.0.0/8", "192.0.2.0/24"],
    "externalTrafficPolicy": "Local",
    "healthCheckNodePort": 31000,
}


async def test_there_is_nothing_before_and_after(bench: Bench) -> None:
    provider, wanted = bench.provider(), balancer()
    empty = bench.snapshot()
    assert await provider.status(wanted) is None
    await provider.delete(wanted)
    made = await provider.ensure(wanted, bench.nodes)
    assert made
    assert all(each.ip or each.hostname for each in made)
    assert await bench.provider().status(wanted) == made
    await provider.delete(wanted)
    assert await provider.status(wanted) is None
    assert bench.snapshot() == empty
    await provider.delete(wanted)


async def test_what_is_made_again_is_the_same(bench: Bench) -> None:
    made = await bench.provider().ensure(balancer(), bench.nodes)
    before = bench.snapshot()
    assert await bench.provider().ensure(balancer(), bench.nodes) == made
    assert await bench.provider().update_nodes(balancer(), bench.nodes) == made
    assert bench.snapshot() == before


async def test_a_change_leaves_what_would_have_been_made_of_it_at_once(bench: Bench) -> None:
    await bench.provider().ensure(balancer(**CHANGED), bench.nodes)
    wanted = bench.snapshot()
    await bench.provider().delete(balancer())
    await bench.provider().ensure(balancer(), bench.nodes)
    await bench.provider().ensure(balancer(**CHANGED), bench.nodes)
    assert _stable(bench.snapshot()) == _stable(wanted)


async def test_nodes_come_and_go(bench: Bench) -> None:
    provider = bench.provider()
    await provider.ensure(balancer(), bench.nodes[:2])
    two = bench.snapshot()
    await provider.update_nodes(balancer(), bench.nodes)
    if not isinstance(bench, LocalBench):
        assert bench.snapshot() != two
    await provider.update_nodes(balancer(), bench.nodes[:2])
    assert bench.snapshot() == two


async def test_services_do_not_meet(bench: Bench) -> None:
    provider = bench.provider()
    first = balancer("first")
    second = balancer("second", ports=[{"port": 81, "nodePort": 30090, "protocol": "TCP"}])
    await provider.ensure(second, bench.nodes)
    alone = bench.snapshot()
    await asyncio.gather(provider.ensure(first, bench.nodes), provider.update_nodes(second, bench.nodes))
    await provider.delete(first)
    assert bench.snapshot() == alone
    assert await provider.status(second)


async def test_a_crash_after_any_call_leaves_nothing_double_and_nothing_behind(bench: Bench) -> None:
    """Before the next call is the same: nothing happens in between."""
    wanted, empty = balancer(), bench.snapshot()
    await bench.provider().ensure(wanted, bench.nodes)
    whole = _stable(bench.snapshot())
    await bench.provider().delete(wanted)
    for at in range(1, CALLS_MAX):
        made = await _cut_off(bench, at, bench.provider().ensure(wanted, bench.nodes))
        await bench.provider().ensure(wanted, bench.nodes)
        assert _stable(bench.snapshot()) == whole, f"made after a crash at call {at}"
        removed = await _cut_off(bench, at, bench.provider().delete(wanted))
        await bench.provider().delete(wanted)
        assert bench.snapshot() == empty, f"removed after a crash at call {at}"
        if made and removed:
            assert await bench.provider().status(wanted) is None
            return
    raise AssertionError("it makes more calls than that")


async def test_a_crash_after_any_call_of_a_change_leaves_what_was_wanted(bench: Bench) -> None:
    empty = bench.snapshot()
    await bench.provider().ensure(balancer(**CHANGED), bench.nodes)
    whole = _stable(bench.snapshot())
    for at in range(1, CALLS_MAX):
        await bench.provider().ensure(balancer(), bench.nodes)
        made = await _cut_off(bench, at, bench.provider().ensure(balancer(**CHANGED), bench.nodes))
        await bench.provider().ensure(balancer(**CHANGED), bench.nodes)
        assert _stable(bench.snapshot()) == whole, f"after a crash at call {at}"
        if made:
            await bench.provider().delete(balancer())
            assert bench.snapshot() == empty
            return
    raise AssertionError("it makes more calls than that")


async def test_what_was_made_by_half_is_removed(bench: Bench) -> None:
    """A Service may be deleted before its load balancer ever was whole."""
    wanted, empty = balancer(), bench.snapshot()
    for at in range(1, CALLS_MAX):
        made = await _cut_off(bench, at, bench.provider().ensure(wanted, bench.nodes))
        await bench.provider().delete(wanted)
        assert bench.snapshot() == empty, f"after a crash at call {at}"
        if made:
            return
    raise AssertionError("it makes more calls than that")


async def _cut_off(bench: Bench, at: int, step: Awaitable[Any]) -> bool:
    """Die after call number `at`; answers whether the step had fewer calls, and so was done."""
    bench.account.faults.reset(at, after=True)
    try:
        await step
    except (Crash, ProviderFailure):  # a cloud over HTTP: its answer never comes
        return False
    finally:
        bench.account.faults.reset()
    return True


def _stable(snapshot: Any) -> Any:
    """Without what a cloud chooses anew each time."""
    if isinstance(snapshot, dict):
        return {key: value for key, value in snapshot.items() if not (isinstance(key, tuple) and key[0] == "address")}
    return snapshot
