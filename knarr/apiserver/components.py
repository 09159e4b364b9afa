"""componentstatuses (core/v1): whether scheduler, control loops and store are well; looked at when somebody asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import msgspec

from knarr.api.core.v1 import ComponentCondition, ComponentStatus
from knarr.api.errors import NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.apiserver.calls import Call
from knarr.apiserver.selection import Selection
from knarr.store.contract import Store, StoreFailure

Check = Callable[[], Awaitable[str | None]]
"""check(): None, or what is wrong."""


class Components:
    """Each component by name, with its check."""

    def __init__(self, store: Store, ready: Callable[[], bool]) -> None:
        self._store = store
        self._ready = ready
        self._checks: Mapping[str, Check] = {
            "controller-manager": self._running,
            "etcd-0": self._stored,
            "scheduler": self._running,
        }

    async def found(self, call: Call) -> list[bytes]:
        """All that a request is about, encoded. Raises NotFound."""
        selection = Selection.of(call.resource, call.kept, "", call.path.name, call.query)
        values = [msgspec.json.encode(_status(name, await check())) for name, check in self._checks.items()]
        values = [value for value in values if selection.holds(value)]
        if call.path.name and not values:
            raise NotFound.of("", call.resource.plural, call.path.name)
        return values

    async def _running(self) -> str | None:
        """They are parts of this process: it is ready once all of them run, and ends with any of them."""
        return None if self._ready() else "not yet running"

    async def _stored(self) -> str | None:
        try:
            await self._store.range("namespaces//", limit=1)
        except StoreFailure as failure:
            return str(failure)
        return None


def _status(name: str, fault: str | None) -> ComponentStatus:
    healthy = ComponentCondition(type="Healthy", status="False" if fault else "True", message=fault or "ok")
    return ComponentStatus(metadata=ObjectMeta(name=name), conditions=[healthy])
