"""Where Ingress is served now: the addresses of the nodes whose Envoy says so.

Each tells by its Lease (`edge.<node>`), with the ports at which it listens. A node counts until its Lease is no longer
renewed, so one that is restarted, or not heard of for a moment, doesn't come and go in the status of every Ingress; one
that ends in order takes its Lease with it. The time is measured here, from when the Lease was seen to change: clocks of
machines are never compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from msgspec import Struct

from knarr.api.coordination import data_planes
from knarr.api.coordination.v1 import Lease
from knarr.api.core.node_addresses import ip_addresses
from knarr.api.core.v1 import Node
from knarr.client.informer import Informer, Informers
from knarr.clock import Clock

LEASE_DEFAULT_S, LEASE_MAX_S = 15, 60
EPOCH = datetime.fromtimestamp(0, UTC)
PREFIX = data_planes.lease_name(data_planes.EDGE, "")


class _Heard(Struct, frozen=True):
    """What an Envoy said last."""

    until_s: float
    """By the monotonic clock."""
    listens: bool


class ServingNodes:
    """`run` until cancelled."""

    def __init__(
        self, informers: Informers, clock: Clock, serves: Callable[[Node], bool], changed: Callable[[], None]
    ) -> None:
        """`serves` says which nodes are to serve; `changed` is called when `addresses` may be others."""
        self._clock = clock
        self._serves = serves
        self._changed = changed
        self._heard: dict[str, _Heard] = {}
        self._told: list[str] | None = None
        self._wake = asyncio.Event()
        self._nodes: Informer[Node] = informers.of(Node)
        self._leases: Informer[Lease] = informers.of(
            Lease, namespace=data_planes.NAMESPACE, label_selector=data_planes.LABEL
        )
        self._nodes.add_handler(lambda old, new: self._wake.set())
        self._leases.add_handler(self._lease_changed)

    def addresses(self) -> list[str] | None:
        """Of the oldest node first: its external ones, or else its own in the network. None while nothing is known."""
        if not self._nodes.synced.is_set() or not self._leases.synced.is_set():
            return None
        now_s = self._clock.monotonic_s()
        alive = {name for name, each in self._heard.items() if each.listens and now_s < each.until_s}
        return addresses_of(node for node in self._nodes.all() if node.metadata.name in alive and self._serves(node))

    async def run(self) -> None:
        for informer in (self._nodes, self._leases):
            await informer.synced.wait()
        while True:
            self._wake.clear()
            addresses = self.addresses()
            if addresses != self._told:
                self._told = addresses
                self._changed()
            try:
                async with self._clock.timeout(self._next_death_s()):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _next_death_s(self) -> float | None:
        now_s = self._clock.monotonic_s()
        return min((each.until_s - now_s for each in self._heard.values() if each.until_s > now_s), default=None)

    def _lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        either = new or old
        assert either is not None
        lease = either.metadata.name or ""
        if not lease.startswith(PREFIX):
            return
        name = lease.removeprefix(PREFIX)
        if new is None:
            self._heard.pop(name, None)
        else:
            listens = bool(new.metadata.annotations.get(data_planes.SERVED_PORTS))
            self._heard[name] = _Heard(self._clock.monotonic_s() + _duration_s(new), listens)
        self._wake.set()


def addresses_of(nodes: Iterable[Node]) -> list[str]:
    found: dict[str, None] = {}
    for node in sorted(nodes, key=_age):
        for kind in ("ExternalIP", "InternalIP"):
            if addresses := ip_addresses(node, kind):
                found |= dict.fromkeys(addresses)
                break
    return list(found)


def _age(node: Node) -> tuple[datetime, str]:
    return node.metadata.creation_timestamp or EPOCH, node.metadata.name or ""


def _duration_s(lease: Lease) -> float:
    written = (lease.spec.lease_duration_seconds if lease.spec else None) or LEASE_DEFAULT_S
    return float(min(max(written, 1), LEASE_MAX_S))
