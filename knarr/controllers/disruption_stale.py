"""Disruptions that did not happen: a pod that was said to go and is still there after two minutes may stay.

Whoever disrupts a pod writes the condition DisruptionTarget before deleting it (KEP-3329). When the deletion never
comes, the condition would count a later failure of the pod as a disruption: it is set to False. What the kubelet says
stays, as its pods may take any time to end, and so do the conditions of pods that have ended.
"""

from __future__ import annotations

from knarr.api.core.pod_state import is_terminal
from knarr.api.core.v1 import Pod, PodCondition
from knarr.api.errors import NotFound
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.clock import utc
from knarr.controllers.pods import seconds

STALE_AFTER_S = 120.0
TARGET = "DisruptionTarget"
BY_KUBELET = "TerminationByKubelet"


class StaleDisruptions(Controller):
    """Takes DisruptionTarget back from pods that nobody has deleted."""

    name = "stale-disruption-controller"

    def watch(self) -> None:
        self.pods = self.informer(Pod)
        self.on_change(self.pods, self._key_of_pod)

    async def reconcile(self, key: str) -> float | None:
        pod = self.pods.get(key)
        condition = pending_disruption(pod) if pod else None
        if pod is None or condition is None:
            return None
        now_s = self.clock.time_s()
        since_s = seconds(condition.last_transition_time) if condition.last_transition_time else 0.0
        left_s = since_s + STALE_AFTER_S - now_s
        if left_s > 0:
            return left_s
        told = {"type": TARGET, "status": "False", "reason": None, "message": None, "lastTransitionTime": utc(now_s)}
        metadata = {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version}
        patch = {"metadata": metadata, "status": {"conditions": [told]}}
        try:
            await self.client.patch(Pod, pod.metadata.name or "", patch, pod.metadata.namespace, subresource="status")
        except NotFound:
            pass
        return None

    def _key_of_pod(self, old: Pod | None, new: Pod | None) -> str | None:
        return key_of(new) if new is not None and pending_disruption(new) else None


def pending_disruption(pod: Pod) -> PodCondition | None:
    """The condition that says of a living pod that it is about to be deleted."""
    if pod.status is None or pod.metadata.deletion_timestamp is not None or is_terminal(pod):
        return None
    for condition in pod.status.conditions:
        if condition.type == TARGET:
            return condition if condition.status == "True" and condition.reason != BY_KUBELET else None
    return None
