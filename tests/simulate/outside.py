"""What is outside of the cluster: what is asked of its workloads, as metrics APIs tell it, and the data on its nodes.

Neither is in the store: autoscalers measure the one, and local volumes hold the other.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from knarr.api.core.v1 import PersistentVolumeClaim, Pod
from knarr.api.errors import ServiceUnavailable
from knarr.client.transport import Answer, Request, Transport
from knarr.clock import utc
from knarr.simulate.faults import CALM, Weather
from tests.simulate.objects import is_going, is_ready

API_PREFIXES = ("/apis/metrics.k8s.io/", "/apis/custom.metrics.k8s.io", "/apis/external.metrics.k8s.io/")
GROUP = {"versions": [{"groupVersion": "custom.metrics.k8s.io/v1beta2", "version": "v1beta2"}]}
"""What the group of custom metrics says of itself."""

CUSTOM_GROUP = "/apis/custom.metrics.k8s.io"
"""Asked for the versions that there are."""


class Objects(Protocol):
    """Those of the cluster, as they are."""

    def all(self, kind: type[Any], namespace: str | None = None) -> list[Any]: ...


class Loads:
    """How much is asked of each workload: by its label `app`, in thousandths of a CPU, and since when."""

    def __init__(self) -> None:
        self.history: dict[str, list[tuple[float, int]]] = {}

    def set(self, app: str, load_m: int, now_s: float) -> None:
        self.history.setdefault(app, []).append((now_s, load_m))

    def now_m(self, app: str) -> int:
        return self.history[app][-1][1]

    def most_m(self, app: str, since_s: float) -> int:
        """The most that there was at any time since."""
        last = self.history[app]
        ends = [*(at_s for at_s, _ in last[1:]), float("inf")]
        return max(load for (_, load), end_s in zip(last, ends, strict=True) if end_s >= since_s)

    def held_m(self, app: str, from_s: float, to_s: float, hold_s: float) -> int:
        """The most that there was for `hold_s` seconds on end within a time; 0 if that is too short."""
        last = self.history[app]
        ends = [*(at_s for at_s, _ in last[1:]), float("inf")]
        spans = ((min(end_s, to_s) - max(at_s, from_s), load) for (at_s, load), end_s in zip(last, ends, strict=True))
        return max((load for held_s, load in spans if held_s >= hold_s), default=0)


class MeasuredTransport:
    """The way to the API server, and to the metrics APIs behind it: the ready pods share what is asked of them."""

    def __init__(self, inner: Transport, state: Any, weather: Weather) -> None:
        self._inner = inner
        self._state = state
        self._weather = weather

    async def send(self, request: Request) -> Answer:
        if request.path == CUSTOM_GROUP:
            group = {"versions": [{"groupVersion": "custom.metrics.k8s.io/v1beta2", "version": "v1beta2"}]}
            return Answer(200, {"content-type": "application/json"}, msgspec.json.encode(group))
        if not request.path.startswith(API_PREFIXES):
            return await self._inner.send(request)
        odds = self._weather.odds
        if odds is not CALM and self._weather.strikes(odds.refused):
            raise ServiceUnavailable("the metrics are away")
        told = GROUP if request.path.count("/") == 2 else {"items": self._items(request)}
        return Answer(200, {"content-type": "application/json"}, msgspec.json.encode(told))

    async def close(self) -> None:
        await self._inner.close()

    def _items(self, request: Request) -> list[dict[str, Any]]:
        _, _, group, _, _, namespace, what, *_ = request.path.split("/")
        app = request.query.get("labelSelector", "").removeprefix("app=")
        now = utc(self._weather.clock.time_s())
        total_m = self._state.loads.now_m(what if group.startswith("external") else app)
        if group.startswith("external"):
            return [{"metricName": what, "timestamp": now, "value": f"{total_m}m"}]
        pods = [
            pod
            for pod in self._state.all(Pod, namespace)
            if pod.metadata.labels.get("app") == app and is_ready(pod) and not is_going(pod)
        ]
        told = []
        for number, pod in enumerate(pods):
            value = f"{total_m * (number + 1) // len(pods) - total_m * number // len(pods)}m"
            name = {"name": pod.metadata.name, "namespace": namespace}
            if group.startswith("custom"):
                told.append({"describedObject": name, "timestamp": now, "windowSeconds": 1, "value": value})
            else:
                usage = [{"name": each.name, "usage": {"cpu": value}} for each in pod.spec.containers]
                told.append({"metadata": name, "timestamp": now, "window": "1s", "containers": usage})
        return told


class Folders:
    """The data of local volumes (see knarr.node.local_volumes.Folders): none is removed while a claim has it."""

    def __init__(self, objects: Objects, broken: list[str]) -> None:
        self.there: set[str] = set()
        self._objects = objects
        self._broken = broken

    def path(self, name: str) -> str:
        return f"/hollow/{name}"

    async def make(self, name: str) -> None:
        self.there.add(name)

    async def remove(self, name: str) -> None:
        for claim in self._objects.all(PersistentVolumeClaim):
            if claim.spec.volume_name == name:
                self._broken.append(f"the data of claim {claim.metadata.name} was removed")
        self.there.discard(name)

    async def empty(self) -> list[str]:
        return sorted(self.there)
