"""What the providers of clouds have in common: their libraries block, so each call of the contract runs in a thread."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

from knarr.edge.providers.contract import Ingress, LoadBalancer, Note, Target, Wake

T = TypeVar("T")


class BlockingProvider(ABC):
    """A Provider by four blocking methods. A cloud finds out by its health checks which nodes are ready."""

    sees_readiness = False

    def begin(self, wake: Wake, note: Note) -> None:
        return

    async def status(self, balancer: LoadBalancer) -> Ingress | None:
        return await self._in_thread(lambda: self._status(balancer))

    async def ensure(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress:
        return await self._in_thread(lambda: self._ensure(balancer, nodes))

    async def update_nodes(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress:
        return await self._in_thread(lambda: self._update_nodes(balancer, nodes))

    async def delete(self, balancer: LoadBalancer) -> None:
        await self._in_thread(lambda: self._delete(balancer))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except Exception as error:
            told = self._told(error)
            if told is None:
                raise
            raise told from None

    @abstractmethod
    def _told(self, error: Exception) -> Exception | None:
        """An error of the library as a ProviderFailure without credentials; None for what is no error of its."""

    @abstractmethod
    def _status(self, balancer: LoadBalancer) -> Ingress | None: ...

    @abstractmethod
    def _ensure(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress: ...

    def _update_nodes(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress:
        """Where nodes are parts of what is made, such as a group for each zone, that is to make all anew."""
        return self._ensure(balancer, nodes)

    @abstractmethod
    def _delete(self, balancer: LoadBalancer) -> None: ...
