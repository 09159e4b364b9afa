"""Pod garbage: pods whose node is gone for good, which no agent will ever delete.

A node that vanishes gets QUARANTINE_S to come back, and its absence is asked of the API server itself, before its pods
are failed and deleted by force. Pods that are being deleted and never had a node are failed and go at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knarr.api.core.pod_state import is_terminal
from knarr.api.core.v1 import Node, Pod
from knarr.api.errors import NotFound
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.clock import utc
from knarr.controllers.nodelifecycle import node_index

QUARANTINE_S = 40.0


class PodGarbageCollector(Controller):
    """Deletes pods that belong to no node any more."""

    name = "pod-garbage-collector-controller"

    def watch(self) -> None:
        self._missed_since_s: dict[str, float] = {}
        """Nodes that pods name and that aren't there, since when."""
        self.nodes = self.informer(Node)
        self.pods = self.informer(Pod)
        self.pods.add_index("node", node_index)
        self.on_change(self.nodes, self._keys_of_node)
        self.on_change(self.pods, self._key_of_pod)

    async def reconcile(self, key: str) -> float | None:
        pod = self.pods.get(key)
        if pod is None or pod.spec is None:
            return None
        name = pod.spec.node_name
        if not name:
            if pod.metadata.deletion_timestamp is not None:
                await self._fail(pod)  # nobody else will, and a Job may hold it until it has ended
                await self._delete(pod)
            return None
        if self.nodes.get(name) is not None:
            self._missed_since_s.pop(name, None)
            return None
        now_s = self.clock.monotonic_s()
        left_s = self._missed_since_s.setdefault(name, now_s) + QUARANTINE_S - now_s
        if left_s > 0:
            return left_s
        try:
            await self.client.get(Node, name)
        except NotFound:
            condition = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists",
                "lastTransitionTime": utc(self.clock.time_s()),
            }
            await self._fail(pod, condition)
            await self._delete(pod)
        return None

    async def _fail(self, pod: Pod, *conditions: dict[str, Any]) -> None:
        if is_terminal(pod):
            return
        status = {"phase": "Failed", **({"conditions": list(conditions)} if conditions else {})}
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": status}
        try:
            await self.client.patch(Pod, pod.metadata.name or "", patch, pod.metadata.namespace, subresource="status")
        except NotFound:
            pass

    async def _delete(self, pod: Pod) -> None:
        name, namespace = pod.metadata.name or "", pod.metadata.namespace
        try:
            await self.client.delete(Pod, name, namespace, grace_period_s=0, uid=pod.metadata.uid)
        except NotFound:
            pass

    def _keys_of_node(self, old: Node | None, new: Node | None) -> Iterable[str]:
        """All pods of a node that came or went."""
        if (old is None) == (new is None):
            return ()
        node = new or old
        assert node is not None
        if new is not None:
            self._missed_since_s.pop(node.metadata.name or "", None)
            return ()
        return map(key_of, self.pods.by_index("node", node.metadata.name or ""))

    def _key_of_pod(self, old: Pod | None, new: Pod | None) -> str | None:
        if new is None or new.spec is None:
            return None
        if new.spec.node_name:
            return key_of(new) if self.nodes.get(new.spec.node_name) is None else None
        return key_of(new) if new.metadata.deletion_timestamp is not None else None
