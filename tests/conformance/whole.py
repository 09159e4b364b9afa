"""A whole virtual cluster and requests to its API server, for tests of workloads; and what they all ask of a kind."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from tests.apiserver.pipeline.door import Asking, Events
from tests.cluster import Cluster, simulate
from tests.conformance.operations import MERGE

T = TypeVar("T")

STRATEGIC = "application/strategic-merge-patch+json"
TOLD_MAX = 300


class Whole(Asking):
    """One cluster of hollow nodes; paths are of the namespace default where they begin with a plural."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.server)
        self.cluster = cluster
        self.until = cluster.until

    async def get(self, path: str, **query: str) -> Any:
        return await self.done("GET", path, **query)

    async def make(self, path: str, obj: dict[str, Any]) -> Any:
        return await self.done("POST", path, obj)

    async def merge(self, path: str, patch: dict[str, Any]) -> Any:
        return await self.done("PATCH", path, patch, content_type=MERGE)

    async def items(self, path: str, **query: str) -> list[Any]:
        found: list[Any] = (await self.get(path, **query))["items"]
        return found

    async def reach(self, path: str, holds: Callable[[Any], object], within_s: float = 300.0) -> Any:
        """Read again until something holds of it."""
        began_s = self.cluster.clock.monotonic_s()
        while not holds(found := await self.get(path)):
            assert self.cluster.clock.monotonic_s() - began_s < within_s, found
            await self.cluster.clock.sleep(0.1)
        return found

    async def until_async(
        self, ask: Callable[[], Awaitable[T]], holds: Callable[[T], object], within_s: float = 300.0
    ) -> T:
        """Ask again until something holds of the answer."""
        began_s = self.cluster.clock.monotonic_s()
        while not holds(found := await ask()):
            assert self.cluster.clock.monotonic_s() - began_s < within_s, found
            await self.cluster.clock.sleep(0.1)
        return found

    async def gone(self, path: str, within_s: float = 300.0) -> None:
        began_s = self.cluster.clock.monotonic_s()
        while (await self("GET", path))[0] != 404:
            assert self.cluster.clock.monotonic_s() - began_s < within_s
            await self.cluster.clock.sleep(0.1)


def whole(scenario: Callable[[Whole], Awaitable[None]], *, nodes: int = 3, **hollow: Any) -> None:
    async def main(cluster: Cluster) -> None:
        await scenario(Whole(cluster))

    simulate(main, nodes=nodes, **hollow)


async def told(events: Events, kind: str, holds: Callable[[Any], object] = lambda _: True) -> Any:
    """The first event of that kind of which it holds."""
    for _ in range(TOLD_MAX):
        happened, obj = await events.next()
        if happened == kind and holds(obj):
            return obj
    raise AssertionError(f"no such {kind} among {TOLD_MAX} events")


def workload(kind: str, name: str, *, image: str = "one", template: dict[str, Any] | None = None, **spec: Any) -> Any:
    """An object of apps/v1 whose pods carry the label app=name."""
    labels = {"app": name}
    pods = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}], **(template or {})}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": pods, **spec},
    }


def plain_pod(name: str, labels: dict[str, str]) -> dict[str, Any]:
    spec = {"containers": [{"name": name, "image": "one"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def ready(obj: Any) -> int:
    found: int = obj.get("status", {}).get("readyReplicas", 0)
    return found


def controller_of(obj: Any) -> str | None:
    """The uid of the owner that controls it."""
    owners = obj["metadata"].get("ownerReferences", ())
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def has(condition: dict[str, str]) -> Callable[[Any], bool]:
    """An object's status shows a condition with these values."""

    def holds(obj: Any) -> bool:
        shown: Iterable[Any] = obj.get("status", {}).get("conditions", ())
        return any(condition.items() <= each.items() for each in shown)

    return holds


async def status_endpoints(ask: Whole, path: str, name: str) -> None:
    """The status is read, updated and patched by its subresource; watches tell each."""
    one = f"{path}/{name}"
    read = await ask.get(f"{one}/status")
    assert read["metadata"]["name"] == name
    updated = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}
    patched = {"type": "StatusPatched", "status": "True"}
    revision = read["metadata"]["resourceVersion"]
    async with ask.watch(path, labelSelector=f"app={name}", resourceVersion=revision) as events:
        read.setdefault("status", {}).setdefault("conditions", []).append(updated)
        assert has(updated)(await ask.done("PUT", f"{one}/status", read))
        assert has(updated)(await told(events, "MODIFIED", has(updated)))
        assert has(patched)(await ask.merge(f"{one}/status", {"status": {"conditions": [patched]}}))
        await told(events, "MODIFIED", has(patched))


async def scale_subresource(ask: Whole, path: str, name: str, ready: Callable[[Any], int]) -> None:
    """One replica becomes two by an update of the scale, and four by a patch of it."""
    one = f"{path}/{name}"
    await ask.reach(one, lambda obj: ready(obj) == 1)
    scale = await ask.get(f"{one}/scale")
    assert (scale["apiVersion"], scale["kind"]) == ("autoscaling/v1", "Scale")
    assert scale["spec"]["replicas"] == 1
    scale["spec"]["replicas"] = 2
    scale["metadata"].pop("resourceVersion")
    assert (await ask.done("PUT", f"{one}/scale", scale))["spec"]["replicas"] == 2
    assert (await ask.get(one))["spec"]["replicas"] == 2
    patch = {"spec": {"replicas": 4}}
    assert (await ask.merge(f"{one}/scale", patch))["spec"]["replicas"] == 4
    assert (await ask.get(one))["spec"]["replicas"] == 4
    await ask.reach(one, lambda obj: ready(obj) == 4)
    assert (await ask.get(f"{one}/scale"))["status"]["replicas"] == 4


async def one_collection(ask: Whole, path: str, name: str, *, everywhere: str) -> None:
    """Listed by a label over all namespaces, and deleted as a collection by it."""
    selector = f"app={name}"
    assert [each["metadata"]["name"] for each in await ask.items(everywhere, labelSelector=selector)] == [name]
    await ask.done("DELETE", path, labelSelector=selector)
    assert await ask.items(everywhere, labelSelector=selector) == []
