"""DaemonSets: one pod on each node that fits.

Each look first puts right what is on the nodes, then takes the next step of a rolling update; with OnDelete a pod gets
the new template when somebody deletes it. What to do is decided by the plain functions of `daemonset_pods`.
"""

from __future__ import annotations

from collections.abc import Sequence

from knarr.api.apps.v1 import ControllerRevision, DaemonSet, DaemonSetStatus
from knarr.api.core.pod_state import phase
from knarr.api.core.v1 import Node, Pod
from knarr.api.errors import APIError, NotFound
from knarr.api.meta.owners import selector_for, selects_everything
from knarr.api.types import replace
from knarr.client.controller import Controller, is_namespace_terminating
from knarr.client.informer import key_of
from knarr.controllers.daemonset_pods import Step, View, by_node, make_pod, node_of, place, spec_of, status_of, update
from knarr.controllers.history import REVISION_LABEL, History
from knarr.controllers.ownership import claim, orphans, owner_index, owner_keys
from knarr.controllers.pods import available_in_s
from knarr.controllers.together import slow_start, together

BURST_MAX = 250
"""Pods created or deleted by one look at a DaemonSet."""
BACK_OFF_MIN_S = 1.0
BACK_OFF_MAX_S = 900.0
"""A pod that failed is replaced at once; one that fails on the same node again, after a time that doubles."""
REMEMBERED_MAX = 10_000
"""Nodes with failed pods."""


class DaemonSets(Controller):
    """apps/v1 DaemonSet."""

    name = "daemonset-controller"
    min_interval_s = 0.02

    def watch(self) -> None:
        self.daemon_sets = self.informer(DaemonSet)
        self.nodes = self.informer(Node)
        self.pods = self.informer(Pod)
        self.pods.add_index("owner", owner_index)
        revisions = self.informer(ControllerRevision)
        self.history = History(self.client, revisions, REVISION_LABEL)
        self._failures: dict[tuple[str, str], tuple[float, float]] = {}
        self.on(self.daemon_sets, key_of)
        self.on(self.pods, owner_keys(self.daemon_sets))
        self.on(revisions, owner_keys(self.daemon_sets))
        self.on_change(self.nodes, self._keys_of_node)

    async def reconcile(self, key: str) -> float | None:
        daemon_set = self.daemon_sets.get(key)
        if daemon_set is None or daemon_set.spec is None:
            return None
        if selects_everything(daemon_set.spec.selector):
            message = "This daemon set is selecting all pods. A non-empty selector is required."
            self.events.warning(daemon_set, "SelectingAll", message)
            return None
        if daemon_set.metadata.deletion_timestamp is not None:
            return None
        selector = selector_for(daemon_set.spec.selector)
        loose = self.pods.by_index("owner", orphans(daemon_set.metadata.namespace or ""))
        owned = self.pods.by_index("owner", daemon_set.metadata.uid or "")
        pods = await claim(self.client, daemon_set, selector, owned, loose)
        known = await self.history.of(daemon_set, selector)
        status = daemon_set.status or DaemonSetStatus()
        template = daemon_set.spec.template
        newest, collisions = await self.history.newest(daemon_set, template, known, status.collision_count or 0)
        revision = newest.metadata.labels.get(REVISION_LABEL, "")

        view = View(daemon_set, self.nodes.all(), by_node(pods), revision, self.clock.time_s())
        again_s: list[float] = []
        step = place(view, lambda node, pod: self._may_replace(view, node, pod, again_s))
        failure = await self._carry_out(view, step)
        strategy = daemon_set.spec.update_strategy
        if not failure and not step.create and not step.delete and not (strategy and strategy.type == "OnDelete"):
            failure = await self._carry_out(view, update(view))
        made = status_of(view, collisions)
        if made != daemon_set.status:
            await self.client.update_status(replace(daemon_set, status=made))
        if failure:
            raise failure
        await self._truncate(daemon_set, known, newest, pods)
        again_s += self._waits(view, pods)
        return min(again_s, default=None)

    async def _carry_out(self, view: View, step: Step) -> APIError | None:
        deleted = await together(self._delete(view, pod) for pod in step.delete[:BURST_MAX])
        nodes = iter(step.create[:BURST_MAX])
        error = await slow_start(min(len(step.create), BURST_MAX), lambda: self._create(view, next(nodes)))
        return error or next(filter(None, deleted), None)

    async def _create(self, view: View, node: str) -> APIError | None:
        daemon_set = view.daemon_set
        try:
            pod = await self.client.create(make_pod(daemon_set, view.revision, node))
        except APIError as error:
            if not is_namespace_terminating(error):
                self.events.warning(daemon_set, "FailedCreate", f"Error creating: {error}")
            return error
        self.events.normal(daemon_set, "SuccessfulCreate", f"Created pod: {pod.metadata.name}")
        return None

    async def _delete(self, view: View, pod: Pod) -> APIError | None:
        daemon_set, name, namespace = view.daemon_set, pod.metadata.name or "", pod.metadata.namespace
        if phase(pod) in ("Failed", "Succeeded"):
            ending, verb = ("failed", "kill") if phase(pod) == "Failed" else ("succeeded", "delete")
            message = f"Found {ending} daemon pod {namespace}/{name} on node {node_of(pod)}, will try to {verb} it"
            tell = self.events.warning if ending == "failed" else self.events.normal
            tell(daemon_set, f"{ending.capitalize()}DaemonPod", message)
        try:
            await self.client.delete(Pod, name, namespace, uid=pod.metadata.uid)
        except NotFound:
            return None
        except APIError as error:
            self.events.warning(daemon_set, "FailedDelete", f"Error deleting: {error}")
            return error
        self.events.normal(daemon_set, "SuccessfulDelete", f"Deleted pod: {name}")
        return None

    def _may_replace(self, view: View, node: str, pod: Pod, again_s: list[float]) -> bool:
        """Whether a pod that failed may be replaced now. If not, `again_s` gets the time to wait."""
        about = (view.daemon_set.metadata.uid or "", node)
        delay_s, last_s = self._failures.get(about, (0.0, 0.0))
        left_s = last_s + delay_s - view.now_s
        if left_s > 0:
            again_s.append(left_s)
            return False
        if view.now_s - last_s > 2 * BACK_OFF_MAX_S:
            delay_s = 0.0
        self._failures.pop(about, None)
        self._failures[about] = (min(max(2 * delay_s, BACK_OFF_MIN_S), BACK_OFF_MAX_S), view.now_s)
        if len(self._failures) > REMEMBERED_MAX:
            self._failures.pop(next(iter(self._failures)))
        return True

    async def _truncate(
        self,
        daemon_set: DaemonSet,
        known: Sequence[ControllerRevision],
        newest: ControllerRevision,
        pods: Sequence[Pod],
    ) -> None:
        used = {pod.metadata.labels.get(REVISION_LABEL) for pod in pods}
        live = {revision.metadata.name for revision in known if revision.metadata.labels.get(REVISION_LABEL) in used}
        limit = spec_of(daemon_set).revision_history_limit
        await self.history.truncate(known, live | {newest.metadata.name}, 10 if limit is None else limit)

    def _waits(self, view: View, pods: Sequence[Pod]) -> list[float]:
        """Seconds until ready pods become available."""
        min_ready_s = spec_of(view.daemon_set).min_ready_seconds or 0
        return [wait for pod in pods if (wait := available_in_s(pod, min_ready_s, view.now_s))]

    def _keys_of_node(self, old: Node | None, new: Node | None) -> list[str]:
        """Every DaemonSet, when a node comes, goes, or changes in what decides whether a pod fits."""
        if old and new and old.metadata.labels == new.metadata.labels and old.spec == new.spec:
            return []
        return [key_of(daemon_set) for daemon_set in self.daemon_sets.all()]
