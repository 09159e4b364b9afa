"""Taint eviction: pods leave a node with a NoExecute taint, at once or after the time that they tolerate it.

Every pod tolerates a silent or unready node for five minutes by default (admission DefaultTolerationSeconds), then it
is deleted, and its controller makes another one elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from knarr.api.core.pod_state import is_terminal
from knarr.api.core.taints import tolerates
from knarr.api.core.v1 import Node, Pod, Taint, Toleration
from knarr.api.errors import NotFound
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.clock import utc
from knarr.controllers.nodelifecycle import node_index
from knarr.controllers.pods import seconds


class TaintEviction(Controller):
    """Deletes pods that don't tolerate their node's NoExecute taints."""

    name = "taint-eviction-controller"

    def watch(self) -> None:
        self._marked: dict[str, str] = {}
        """Pods that are to be deleted later: key → uid."""
        self.nodes = self.informer(Node)
        self.pods = self.informer(Pod)
        self.pods.add_index("node", node_index)
        self.on_change(self.nodes, self._keys_of_node)
        self.on_change(self.pods, self._key_of_pod)

    async def reconcile(self, key: str) -> float | None:
        pod = self.pods.get(key)
        if pod is None or pod.spec is None or pod.metadata.deletion_timestamp is not None or is_terminal(pod):
            self._marked.pop(key, None)
            return None
        node = self.nodes.get(pod.spec.node_name or "")
        now_s = self.clock.time_s()
        left_s = stays_s(pod.spec.tolerations, no_execute(node), now_s)
        if left_s is None:
            if self._marked.pop(key, None) == pod.metadata.uid:
                self.events.normal(pod, "TaintManagerEviction", f"Cancelling deletion of Pod {key}")
            return None
        if left_s > 0:
            self._marked[key] = pod.metadata.uid or ""
            return left_s
        await self._evict(key, pod)
        return None

    async def _evict(self, key: str, pod: Pod) -> None:
        self.events.normal(pod, "TaintManagerEviction", f"Marking for deletion Pod {key}")
        name, namespace = pod.metadata.name or "", pod.metadata.namespace
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": utc(self.clock.time_s()),
        }
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}
        try:
            await self.client.patch(Pod, name, patch, namespace, subresource="status")
            await self.client.delete(Pod, name, namespace, uid=pod.metadata.uid)
        except NotFound:
            pass
        self._marked.pop(key, None)

    def _keys_of_node(self, old: Node | None, new: Node | None) -> Iterable[str]:
        node = new or old
        if node is None or no_execute(old) == no_execute(new):
            return ()
        return map(key_of, self.pods.by_index("node", node.metadata.name or ""))

    def _key_of_pod(self, old: Pod | None, new: Pod | None) -> str | None:
        """A pod that comes to a tainted node, or one that is marked."""
        if new is None:
            return key_of(old) if old and key_of(old) in self._marked else None
        key = key_of(new)
        if key in self._marked:
            return key
        if not new.spec or not new.spec.node_name:
            return None
        return key if no_execute(self.nodes.get(new.spec.node_name)) else None


def stays_s(tolerations: Sequence[Toleration], taints: Sequence[Taint], now_s: float) -> float | None:
    """How long a pod may stay: 0 for not at all, None for ever."""
    ends_s: list[float] = []
    for taint in taints:
        tolerating = [toleration for toleration in tolerations if tolerates(toleration, taint)]
        if not tolerating:
            return 0.0
        limits = [t.toleration_seconds for t in tolerating if t.toleration_seconds is not None]
        if limits:
            began_s = seconds(taint.time_added) if taint.time_added else now_s
            ends_s.append(began_s + max(0, min(limits)))
    return max(0.0, min(ends_s) - now_s) if ends_s else None


def no_execute(node: Node | None) -> list[Taint]:
    return [taint for taint in node.spec.taints if taint.effect == "NoExecute"] if node and node.spec else []
