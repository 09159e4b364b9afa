"""How far the data planes of the cluster have come: the service rules of each node, each Envoy.

Each tells by a Lease (`api/coordination/data_planes.py`). One that hasn't renewed it for its duration is dead, and
leads nobody anywhere that could be waited for. The time is measured here, from when the lease was seen to change: the
clocks of two machines are never compared.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from knarr.api.coordination import data_planes
from knarr.api.coordination.v1 import Lease
from knarr.client.informer import Informer, Informers
from knarr.clock import Clock

DURATION_DEFAULT_S = 15
DURATION_MAX_S = 60
"""Whatever a lease says: a dead data plane is not waited for longer than that."""


class DataPlane(Struct, frozen=True):
    """What one was heard to say last."""

    revision: int
    heard_s: float
    """When that was seen, by the monotonic clock."""
    duration_s: float


class DataPlanes:
    """Those that are alive, and what each has acknowledged."""

    def __init__(self, informers: Informers, clock: Clock, changed: Callable[[], None]) -> None:
        self._clock = clock
        self._changed = changed
        self._heard: dict[str, DataPlane] = {}
        leases: Informer[Lease] = informers.of(Lease, namespace=data_planes.NAMESPACE, label_selector=data_planes.LABEL)
        self.synced = leases.synced
        leases.add_handler(self._note)

    def any(self) -> bool:
        return bool(self._alive())

    def lagging(self, revision: int) -> list[str]:
        """The living ones that don't show `revision` of EndpointSlices yet."""
        return sorted(name for name, each in self._alive().items() if each.revision < revision)

    def next_death_s(self) -> float | None:
        """Seconds until one is dead that isn't heard of any more."""
        now_s = self._clock.monotonic_s()
        return min((each.heard_s + each.duration_s - now_s for each in self._alive().values()), default=None)

    def _alive(self) -> dict[str, DataPlane]:
        now_s = self._clock.monotonic_s()
        return {name: each for name, each in self._heard.items() if now_s < each.heard_s + each.duration_s}

    def _note(self, old: Lease | None, new: Lease | None) -> None:
        lease = new or old
        assert lease is not None
        name = lease.metadata.name or ""
        if new is None:
            self._heard.pop(name, None)
        else:
            self._heard[name] = DataPlane(revision_of(new), self._clock.monotonic_s(), _duration_s(new))
        self._changed()


def revision_of(lease: Lease) -> int:
    """0 where there is none that can be read: then nothing has been acknowledged."""
    written = lease.metadata.annotations.get(data_planes.APPLIED_REVISION, "")
    return int(written) if written.isascii() and written.isdigit() and len(written) < 20 else 0


def _duration_s(lease: Lease) -> float:
    written = (lease.spec.lease_duration_seconds if lease.spec else None) or DURATION_DEFAULT_S
    return float(min(max(written, 1), DURATION_MAX_S))
