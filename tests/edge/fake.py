"""A cloud in memory, and a provider over it: several calls for each step, each of which may be the last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from knarr.api.core.v1 import LoadBalancerIngress
from knarr.edge.providers.contract import Ingress, LoadBalancer, Note, Target, Wake


class Crash(BaseException):
    """The process dies here: nothing after it runs."""


class Faults:
    """Dies before or after the call of a number; counts them."""

    def __init__(self) -> None:
        self.calls = 0
        self.at = 0
        self.after = False
        self.error: Callable[[], BaseException] = Crash

    def reset(self, at: int = 0, *, after: bool = False) -> None:
        self.calls, self.at, self.after = 0, at, after

    def before_call(self) -> None:
        self.calls += 1
        if self.calls == self.at and not self.after:
            raise self.error()

    def after_call(self) -> None:
        if self.calls == self.at and self.after:
            raise self.error()


class Cloud:
    """What an account holds: parts by kind and name."""

    def __init__(self) -> None:
        self.parts: dict[tuple[str, str], Any] = {}
        self.faults = Faults()
        self.log: list[str] = []
        self._addresses = 0

    async def put(self, kind: str, name: str, value: Any) -> None:
        self.faults.before_call()
        self.log.append(f"put {kind}")
        self.parts[kind, name] = value
        self.faults.after_call()

    async def take_away(self, kind: str, name: str) -> None:
        self.faults.before_call()
        self.log.append(f"delete {kind}")
        self.parts.pop((kind, name), None)
        self.faults.after_call()

    async def address(self, name: str) -> str:
        """Reserve one, once for each name."""
        self.faults.before_call()
        if ("address", name) not in self.parts:
            self._addresses += 1
            self.parts["address", name] = f"203.0.113.{self._addresses}"
        self.faults.after_call()
        address: str = self.parts["address", name]
        return address


class FakeProvider:
    """By the contract, over `Cloud`."""

    name = "fake"
    load_balancer_class = "example.com/fake"
    sees_readiness = False

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.wake: Wake = lambda keys: None

    def begin(self, wake: Wake, note: Note) -> None:
        self.wake = wake

    async def status(self, balancer: LoadBalancer) -> Ingress | None:
        if not any(name == balancer.unique_name for _, name in self.cloud.parts):
            return None
        address = self.cloud.parts.get(("address", balancer.unique_name))
        return (LoadBalancerIngress(ip=address, ip_mode="VIP"),) if address else ()

    async def ensure(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress:
        address = await self.cloud.address(balancer.unique_name)
        await self.cloud.put("ranges", balancer.unique_name, balancer.source_ranges)
        await self.cloud.put("ports", balancer.unique_name, balancer.ports)
        await self.update_nodes(balancer, nodes)
        return (LoadBalancerIngress(ip=address, ip_mode="VIP"),)

    async def update_nodes(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress:
        await self.cloud.put("targets", balancer.unique_name, tuple(node.name for node in nodes))
        return await self.status(balancer) or ()

    async def delete(self, balancer: LoadBalancer) -> None:
        for kind in ("ports", "targets", "ranges", "address"):
            await self.cloud.take_away(kind, balancer.unique_name)

    async def close(self) -> None:
        return
