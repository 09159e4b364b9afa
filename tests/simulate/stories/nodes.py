"""Those who look after nodes: they cordon and taint them, take them away and bring them back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from knarr.api.apps.v1 import DaemonSet, Deployment
from knarr.api.core.v1 import Node, Pod
from knarr.api.errors import APIError, NotFound
from knarr.client.client import MERGE_PATCH
from tests.simulate.objects import is_ready, node_name
from tests.simulate.stories.workloads import DeploymentStory

TAINT = "example.com/away"


class NodeStory(DeploymentStory):
    """A Deployment on nodes that come and go."""

    kinds = (Deployment, DaemonSet, Node)

    async def play(self) -> None:
        chance = self.chance
        self.replicas, self.image, self.there, self.orphans = chance.randint(1, 4), "one", True, False
        await self._create()
        await self.create(DaemonSet, {"spec": {"selector": self._everywhere(), "template": self._daemon()}})
        steps = (self._cordon, self._taint, self._taint, self._clear, self._leave, self._scale, self.trouble_a_pod)
        for _ in range(chance.randint(2, 6)):
            await self.rest()
            await chance.choice(steps)()
        await self.rest()
        for name in self.world.nodes.names:
            await self._mend(name)

    def _everywhere(self) -> dict[str, Any]:
        return {"matchLabels": {"daemon": self.name}}

    def _daemon(self) -> dict[str, Any]:
        return self.template("one") | {"metadata": {"labels": {"daemon": self.name}}}

    def _node(self) -> str:
        return self.chance.choice(self.world.nodes.names)

    async def _set(self, name: str, spec: dict[str, Any]) -> None:
        self.tell(f"node {name}: {spec}")
        try:
            await self.world.client.patch(Node, name, {"spec": spec}, content_type=MERGE_PATCH)
        except NotFound:
            pass

    async def _cordon(self) -> None:
        await self._set(self._node(), {"unschedulable": True})

    async def _taint(self) -> None:
        """Beside the taints that loops have put there."""
        name = self._node()
        node = self.world.state.get(Node, name)
        if node is not None:
            taint = {"key": TAINT, "effect": self.chance.choice(("NoSchedule", "NoExecute"))}
            await self._set(name, {"taints": [*_others(node), taint]})

    async def _clear(self) -> None:
        await self._clear_node(self._node())

    async def _clear_node(self, name: str) -> None:
        node = self.world.state.get(Node, name)
        if node is not None:
            await self._set(name, {"unschedulable": None, "taints": _others(node)})

    async def _leave(self) -> None:
        """The machine is gone, and its Node with it; another one of its name may come."""
        name = self._node()
        self.world.nodes.faults.silent_nodes.add(name)
        self.tell(f"node {name} leaves")
        try:
            await self.world.client.delete(Node, name)
        except NotFound:
            pass
        await self.rest()
        if self.chance.random() < 0.7:
            await self._come(name)

    async def _come(self, name: str) -> None:
        while self.world.state.get(Node, name) is None:
            try:
                await self.world.nodes.register()
            except APIError as error:
                self.tell(f"node {name} could not come: {error}")
                await self.world.clock.sleep(0.5)
        self.world.nodes.faults.silent_nodes.discard(name)
        self.world.nodes.look_again()

    async def _mend(self, name: str) -> None:
        await self._come(name)
        await self._clear_node(name)

    def wrong(self) -> Iterator[str]:
        yield from super().wrong()
        for name in self.world.nodes.names:
            node = self.world.state.get(Node, name)
            if node is None or node.spec.taints or node.spec.unschedulable:
                yield f"node {name} is not as it should be: {node.spec.taints if node is not None else 'gone'}"
            elif not node.spec.pod_cidr:
                yield f"node {name} has no range"
        on = sorted(node_name(pod) for pod in self._daemons() if is_ready(pod))
        if on != sorted(self.world.nodes.names):
            yield f"the daemons of {self.name} are on {on}"

    def _daemons(self) -> list[Any]:
        found = self.world.state.all(Pod, self.namespace)
        return [pod for pod in found if pod.metadata.labels.get("daemon") == self.name]


def _others(node: Any) -> list[dict[str, Any]]:
    return [{"key": each.key, "effect": each.effect} for each in node.spec.taints if each.key != TAINT]
