"""Where pods stand in EndpointSlices: which lead new connections to them, and since which revision they no longer do.

Followed only for the pods that something waits for: a node has many changes of slices to see, and few of them matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct, field

from knarr.api.discovery.v1 import Endpoint, EndpointSlice
from knarr.client.informer import Informer, Informers, key_of, version_of

SERVICE_NAME = "kubernetes.io/service-name"


class Standing(Struct):
    """Of one pod."""

    leading: dict[str, str] = field(default_factory=dict)
    """The slices by which new connections come to it, and the Service of each."""
    revision: int = 0
    """The newest at which a slice named it, or stopped to; 0 when none ever did."""

    @property
    def services(self) -> set[str]:
        return set(self.leading.values())


class Endpoints:
    """The standings of pods, by uid."""

    def __init__(self, informers: Informers, changed: Callable[[str], None]) -> None:
        """`changed` is told the uid of a followed pod whose standing is another now."""
        self._slices: Informer[EndpointSlice] = informers.of(EndpointSlice)
        self.synced = self._slices.synced
        self._changed = changed
        self._followed: dict[str, Standing] = {}
        self._slices.add_handler(self._slice_changed)

    def follow(self, uid: str, namespace: str) -> Standing:
        """The standing, which is kept up to date until `forget`."""
        if uid not in self._followed:
            standing = self._followed[uid] = Standing()
            for slice_ in self._slices.by_index("namespace", namespace):
                if any(named == uid for named, _ in _pods_of(slice_)):
                    _take(standing, uid, slice_)
        return self._followed[uid]

    def forget(self, uid: str) -> None:
        self._followed.pop(uid, None)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if not self._followed:
            return
        # A deleted slice is told as it was last, with the revision of its deletion.
        concerned = {uid for slice_ in (old, new) if slice_ for uid, _ in _pods_of(slice_) if uid in self._followed}
        for uid in concerned:
            standing = self._followed[uid]
            before = (set(standing.leading), standing.revision > 0)
            if new is not None:
                _take(standing, uid, new)
            elif old is not None:
                standing.leading.pop(key_of(old), None)
                standing.revision = max(standing.revision, version_of(old))
            if before != (set(standing.leading), True):
                self._changed(uid)


def _take(standing: Standing, uid: str, slice_: EndpointSlice) -> None:
    key = key_of(slice_)
    if any(named == uid and leads(endpoint) for named, endpoint in _pods_of(slice_)):
        standing.leading[key] = slice_.metadata.labels.get(SERVICE_NAME, "")
    else:
        standing.leading.pop(key, None)
    standing.revision = max(standing.revision, version_of(slice_))


def _pods_of(slice_: EndpointSlice) -> Iterator[tuple[str, Endpoint]]:
    for endpoint in slice_.endpoints:
        if endpoint.target_ref is not None and endpoint.target_ref.uid:
            yield endpoint.target_ref.uid, endpoint


def leads(endpoint: Endpoint) -> bool:
    """Whether new connections are to come to it. One that is terminating has left, also where its Service publishes
    it whatever its state (publishNotReadyAddresses): who wants that waits for nothing."""
    conditions = endpoint.conditions
    return conditions is None or (conditions.ready is not False and conditions.terminating is not True)
