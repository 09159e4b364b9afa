"""Which endpoints nobody reaches through Ingress, by what the Nodes tell."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Node
from knarr.client.informer import Informers
from knarr.clock import SystemClock
from knarr.edge.ingress.guard import Guard
from knarr.edge.ingress.model import Endpoint
from tests.network.feed import Feed


def node(name: str, port: int, *addresses: str, pods: str) -> Node:
    """`port` is that of its agent, 0 for none of its own."""
    status: dict[str, Any] = {"addresses": [{"type": "InternalIP", "address": each} for each in addresses]}
    if port:
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": port}}
    return msgspec.convert({"metadata": {"name": name}, "spec": {"podCIDRs": [pods]}, "status": status}, Node)


FIRST = node("first", 0, "192.0.2.1", "2001:db8::1", pods="10.244.0.0/24")
SECOND = node("second", 10350, "192.0.2.2", pods="10.244.1.0/24")


def guard(feed: Feed) -> tuple[Guard, Informers]:
    informers = Informers(feed.client, SystemClock())
    made = Guard(
        informers,
        api_server=("192.0.2.1", 6443),
        api_services=["10.96.0.1"],
        own_addresses=["10.96.0.10"],
        pod_ranges=["10.244.0.0/16"],
    )
    return made, informers


@pytest.mark.parametrize(
    ("address", "port", "refused"),
    [
        ("10.244.0.7", 8080, False),
        ("10.244.0.7", 10250, False),
        ("10.244.1.7", 10350, False),
        ("192.0.2.1", 8080, False),
        ("192.0.2.1", 6443, True),
        ("::ffff:192.0.2.1", 6443, True),
        ("2001:DB8::1", 6443, True),
        ("10.244.0.1", 6443, True),
        ("10.96.0.10", 6443, True),
        ("192.0.2.2", 6443, False),
        ("192.0.2.2", 10350, True),
        ("10.244.1.1", 10350, True),
        ("10.96.0.10", 10350, True),
        ("192.0.2.1", 10350, False),
        ("192.0.2.1", 10250, True),
        ("192.0.2.99", 10250, True),
        ("10.244.0.1", 10250, True),
        ("10.96.0.1", 443, True),
        ("10.96.0.1", 80, True),
        ("127.0.0.1", 8080, True),
        ("169.254.169.254", 80, True),
        ("::1", 80, True),
        ("::ffff:127.0.0.1", 80, True),
        ("not an address", 80, True),
    ],
)
async def test_which_endpoints_nobody_reaches_through_us(address: str, port: int, refused: bool) -> None:
    feed = Feed()
    for each in (FIRST, SECOND):
        feed.put(each)
    made, informers = guard(feed)
    running = asyncio.create_task(informers.run())
    await informers.of(Node).synced.wait()
    assert made.refuses(Endpoint(address, port)) is refused
    running.cancel()


async def test_before_any_node_is_known_the_api_server_is_no_backend() -> None:
    made, _ = guard(Feed())
    assert made.refuses(Endpoint("192.0.2.1", 6443))
    assert made.refuses(Endpoint("10.96.0.1", 443))


async def test_it_tells_when_a_node_comes_and_not_at_its_heartbeats() -> None:
    feed = Feed()
    feed.put(FIRST)
    made, informers = guard(feed)
    running = asyncio.create_task(informers.run())
    await informers.of(Node).synced.wait()
    told: list[bool] = []
    made.add_handler(lambda: told.append(made.refuses(Endpoint("192.0.2.2", 10350))))
    for change in (SECOND, SECOND, FIRST):
        await informers.of(Node).reached(feed.put(change))
    assert told == [True]
    await informers.of(Node).reached(feed.delete(SECOND))
    assert told == [True, False]
    running.cancel()
