"""Rollback by itself: a Deployment whose rollout fails returns to its last complete revision. Opt-in, by annotations:

    knarr.dev/rollback-on-failure: "true"     when progressDeadlineSeconds pass without progress, or a check fails
    knarr.dev/rollback-max-restarts: "2"      check: containers of the new pods restart no more often than that
    knarr.dev/rollback-check: "8080/healthz"  check: new pods that are ready answer this port and path with a 2xx

Checks run until the rollout is complete. The condition RolledBack and an event tell what failed and where it went. A
template that failed is rolled back once: who declares it again means it, and sees it fail as upstream would show it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from knarr.api.apps.v1 import Deployment, DeploymentStatus, ReplicaSet
from knarr.api.core.pod_state import is_active, is_ready
from knarr.api.core.v1 import Pod
from knarr.api.errors import APIError
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import replace
from knarr.client.client import MERGE_PATCH
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.controllers.ownership import owner_index, owner_keys
from knarr.controllers.progress import (
    NEW_REPLICA_SET_AVAILABLE,
    PROGRESSING,
    TIMED_OUT,
    condition_of,
    is_complete,
    with_condition,
    without_condition,
)
from knarr.controllers.revisions import FAILED_TEMPLATE, HASH_LABEL, ROLLED_BACK_TO, find_new, revision_of

OPT_IN = "knarr.dev/rollback-on-failure"
MAX_RESTARTS = "knarr.dev/rollback-max-restarts"
CHECK = "knarr.dev/rollback-check"
COMPLETED = "knarr.dev/rollout-completed"
"""On a ReplicaSet: its template was rolled out wholly once."""
ROLLED_BACK = "RolledBack"
CHECK_PERIOD_S = 5.0
CHECK_FAILURES_MAX = 3
"""So many failed looks in a row, and the check has failed."""


class Failure(Struct, frozen=True):
    """Why a rollout failed: a reason for the condition, and what happened."""

    reason: str
    message: str


class Rollbacks(Controller):
    """apps/v1 Deployment, as far as it asks to be rolled back."""

    name = "rollback-controller"

    def watch(self) -> None:
        self.deployments = self.informer(Deployment)
        self.replica_sets = self.informer(ReplicaSet)
        self.replica_sets.add_index("owner", owner_index)
        self.pods = self.informer(Pod)
        self.pods.add_index("owner", owner_index)
        self._failed_looks: dict[str, int] = {}
        self.ask = self.client.get_text
        self.on(self.deployments, lambda deployment: key_of(deployment) if opted_in(deployment) else None)
        self.on(self.replica_sets, owner_keys(self.deployments))
        self.on(self.pods, self._key_of_pod)

    async def reconcile(self, key: str) -> float | None:
        deployment = self.deployments.get(key)
        if deployment is None or deployment.spec is None or not opted_in(deployment):
            self._failed_looks.pop(key, None)
            return None
        if deployment.metadata.deletion_timestamp is not None or deployment.spec.paused:
            return None
        replica_sets = self.replica_sets.by_index("owner", deployment.metadata.uid or "")
        new = find_new(deployment, replica_sets)
        if (
            new is None
            or (deployment.status or DeploymentStatus()).observed_generation != deployment.metadata.generation
        ):
            return None
        await self._forget_other(deployment, new)
        condition = condition_of(deployment.status, PROGRESSING)
        if condition and condition.reason == NEW_REPLICA_SET_AVAILABLE:
            self._failed_looks.pop(key, None)
            # Recreate says so of the old pods still, while they go.
            if not is_completed(new) and is_complete(deployment, deployment.status or DeploymentStatus()):
                await self._annotate(ReplicaSet, new.metadata, {COMPLETED: "true"})
            return None
        if is_completed(new) or deployment.metadata.annotations.get(FAILED_TEMPLATE) == hash_of(new):
            return None
        pods = [pod for pod in self.pods.by_index("owner", new.metadata.uid or "") if is_active(pod)]
        failure = failure_of(deployment, pods) or await self._check(key, deployment, pods)
        if failure:
            await self._roll_back(deployment, new, last_complete(replica_sets, new), failure)
            return None
        return CHECK_PERIOD_S if CHECK in deployment.metadata.annotations else None

    async def _roll_back(
        self, deployment: Deployment, new: ReplicaSet, target: ReplicaSet | None, failure: Failure
    ) -> None:
        assert deployment.spec is not None
        what = f"Revision {revision_of(new)} (replica set {new.metadata.name}) failed: {failure.message}"
        if target is None or target.spec is None or target.spec.template is None:
            self.events.warning(deployment, "RollbackImpossible", f"{what}; no revision was ever complete")
            await self._annotate(Deployment, deployment.metadata, {FAILED_TEMPLATE: hash_of(new)})
            return
        message = f"{what}; rolled back to revision {revision_of(target)} (replica set {target.metadata.name})"
        template = target.spec.template
        metadata = template.metadata or ObjectMeta()
        labels = {key: value for key, value in metadata.labels.items() if key != HASH_LABEL}
        annotations = {FAILED_TEMPLATE: hash_of(new), ROLLED_BACK_TO: hash_of(target)}
        changed = await self.client.update(
            replace(
                deployment,
                metadata=replace(deployment.metadata, annotations={**deployment.metadata.annotations, **annotations}),
                spec=replace(deployment.spec, template=replace(template, metadata=replace(metadata, labels=labels))),
            )
        )
        self.events.warning(deployment, ROLLED_BACK, message)
        status = changed.status or DeploymentStatus()
        status = with_condition(
            without_condition(status, ROLLED_BACK), ROLLED_BACK, "True", failure.reason, message, self.clock.time_s()
        )
        await self.client.update_status(replace(changed, status=status))

    async def _forget_other(self, deployment: Deployment, new: ReplicaSet) -> None:
        """What was rolled back is past when there is another template than that and the one before."""
        annotations = deployment.metadata.annotations
        known = {annotations.get(FAILED_TEMPLATE), annotations.get(ROLLED_BACK_TO)}
        if hash_of(new) in known or known == {None}:
            return
        await self._annotate(Deployment, deployment.metadata, {FAILED_TEMPLATE: None, ROLLED_BACK_TO: None})
        status = without_condition(deployment.status or DeploymentStatus(), ROLLED_BACK)
        if status != deployment.status:
            metadata = replace(deployment.metadata, resource_version=None)
            await self.client.update_status(replace(deployment, metadata=metadata, status=status))

    async def _annotate(
        self, kind: type[Deployment | ReplicaSet], metadata: ObjectMeta, annotations: dict[str, str | None]
    ) -> None:
        patch = {"metadata": {"uid": metadata.uid, "annotations": annotations}}
        await self.client.patch(kind, metadata.name or "", patch, metadata.namespace, content_type=MERGE_PATCH)

    async def _check(self, key: str, deployment: Deployment, pods: Iterable[Pod]) -> Failure | None:
        """Ask every new pod that is ready, by way of the API server."""
        written = deployment.metadata.annotations.get(CHECK)
        if written is None:
            return None
        parsed = re.fullmatch(r"(\d{1,5})/(.*)", written)
        if parsed is None:
            self.events.warning(deployment, "InvalidRollbackCheck", f"{CHECK} must be PORT/PATH, not {written!r}")
            return None
        faults = []
        for pod in filter(is_ready, pods):
            namespace, name = pod.metadata.namespace, pod.metadata.name
            try:
                await self.ask(f"/api/v1/namespaces/{namespace}/pods/{name}:{parsed[1]}/proxy/{parsed[2]}")
            except APIError as error:
                faults.append(f"pod {name}: {error}")
        if not faults:
            self._failed_looks.pop(key, None)
            return None
        looks = self._failed_looks[key] = self._failed_looks.get(key, 0) + 1
        if looks < CHECK_FAILURES_MAX:
            return None
        return Failure("CheckFailed", f"check {written} failed {looks} times in a row, last of {faults[0]}")

    def _key_of_pod(self, pod: Pod) -> str | None:
        """Restarts of the new pods matter to those that limit them."""
        for reference in pod.metadata.owner_references:
            replica_set = self.replica_sets.get(f"{pod.metadata.namespace}/{reference.name}")
            for owner in replica_set.metadata.owner_references if replica_set else ():
                key = f"{pod.metadata.namespace}/{owner.name}"
                deployment = self.deployments.get(key)
                if deployment and MAX_RESTARTS in deployment.metadata.annotations:
                    return key
        return None


def opted_in(deployment: Deployment) -> bool:
    return deployment.metadata.annotations.get(OPT_IN) == "true"


def is_completed(replica_set: ReplicaSet) -> bool:
    return COMPLETED in replica_set.metadata.annotations


def hash_of(replica_set: ReplicaSet) -> str:
    return replica_set.metadata.labels.get(HASH_LABEL, "")


def last_complete(replica_sets: Sequence[ReplicaSet], new: ReplicaSet) -> ReplicaSet | None:
    """The newest revision that was rolled out wholly once, but for the present one."""
    others = (each for each in replica_sets if is_completed(each) and each.metadata.uid != new.metadata.uid)
    return max(others, key=revision_of, default=None)


def failure_of(deployment: Deployment, pods: Iterable[Pod]) -> Failure | None:
    """The deadline, or too many restarts of the new pods."""
    condition = condition_of(deployment.status, PROGRESSING)
    if condition and condition.reason == TIMED_OUT:
        return Failure(TIMED_OUT, condition.message or "")
    written = deployment.metadata.annotations.get(MAX_RESTARTS, "")
    if not (written.isascii() and written.isdigit()):
        return None
    for pod in pods:
        for status in pod.status.container_statuses if pod.status else ():
            if status.restart_count > int(written):
                where = f"container {status.name} of pod {pod.metadata.name}"
                return Failure("TooManyRestarts", f"{where} restarted {status.restart_count} times")
    return None
