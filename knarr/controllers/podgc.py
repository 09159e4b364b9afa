"""Pod garbage: pods whose node is gone for good, which no agent will ever delete.

A node that vanishes gets QUARANTINE_S to come back, and its absence is asked of the API server itself, before its pods
are failed and deleted by force. So are at once pods that are being deleted and never had a node, or whose silent node
somebody has declared out of service (a taint: it surely runs nothing any more, so a StatefulSet may go on elsewhere).
Of pods that have ended, TERMINATED_MAX may lie about; beyond that the evicted and the oldest go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from knarr.api.core.pod_state import is_terminal
from knarr.api.core.v1 import Node, Pod
from knarr.api.errors import NotFound
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.clock import utc
from knarr.controllers.nodelifecycle import node_index, ready_status
from knarr.controllers.together import together

QUARANTINE_S = 40.0
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
TERMINATED_MAX = 12_500
"""--terminated-pod-gc-threshold"""
TERMINATED = "terminated"
"""The key that stands for all that have ended; a pod's has its namespace before it."""
REMOVED_AT_ONCE = 50


class PodGarbageCollector(Controller):
    """Deletes pods that belong to no node any more."""

    name = "pod-garbage-collector-controller"

    def watch(self) -> None:
        self._missed_since_s: dict[str, float] = {}
        """Nodes that pods name and that aren't there, since when."""
        self._terminated: set[str] = set()
        self.nodes = self.informer(Node)
        self.pods = self.informer(Pod)
        self.pods.add_index("node", node_index)
        self.on_change(self.nodes, self._keys_of_node)
        self.on_change(self.pods, self._key_of_pod)

    async def reconcile(self, key: str) -> float | None:
        if key == TERMINATED:
            await self._thin_out()
            return None
        pod = self.pods.get(key)
        if pod is None or pod.spec is None:
            return None
        name = pod.spec.node_name
        if not name:
            if pod.metadata.deletion_timestamp is not None:
                await self._fail(pod)  # nobody else will, and a Job may hold it until it has ended
                await self._delete(pod)
            return None
        node = self.nodes.get(name)
        if node is not None:
            self._missed_since_s.pop(name, None)
            if pod.metadata.deletion_timestamp is not None and is_out_of_service(node):
                await self._fail(pod)
                await self._delete(pod)
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

    async def _thin_out(self) -> None:
        ended = [pod for key in self._terminated if (pod := self.pods.get(key)) is not None]
        excess = expendable(ended, TERMINATED_MAX)
        for start in range(0, len(excess), REMOVED_AT_ONCE):
            await together(map(self._delete, excess[start : start + REMOVED_AT_ONCE]))

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
        """All pods of a node that went, or that is out of service now."""
        node = new or old
        assert node is not None
        if new is not None:
            self._missed_since_s.pop(node.metadata.name or "", None)
            if not is_out_of_service(new) or (old is not None and is_out_of_service(old)):
                return ()
        return map(key_of, self.pods.by_index("node", node.metadata.name or ""))

    def _key_of_pod(self, old: Pod | None, new: Pod | None) -> Iterable[str]:
        key = key_of(new or old)
        if new is None:
            self._terminated.discard(key)
            return
        if is_terminal(new):
            self._terminated.add(key)
            if len(self._terminated) > TERMINATED_MAX:
                yield TERMINATED
        else:
            self._terminated.discard(key)
        name = new.spec.node_name if new.spec else None
        node = self.nodes.get(name) if name else None
        if new.metadata.deletion_timestamp is not None:
            if node is None or is_out_of_service(node):
                yield key
        elif name and node is None:
            yield key


def is_out_of_service(node: Node) -> bool:
    """It is not ready, and somebody vouches that nothing runs there."""
    declared = any(taint.key == OUT_OF_SERVICE for taint in (node.spec.taints if node.spec else ()))
    return declared and ready_status(node) != "True"


def expendable(ended: Sequence[Pod], most: int) -> list[Pod]:
    """Those beyond `most`: the evicted first, then the oldest."""

    def rank(pod: Pod) -> tuple[bool, Any, str]:
        evicted = pod.status is not None and pod.status.reason == "Evicted"
        return not evicted, pod.metadata.creation_timestamp, pod.metadata.name or ""

    return sorted(ended, key=rank)[: max(0, len(ended) - most)]
