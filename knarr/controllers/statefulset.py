"""StatefulSets: pods with names and storage that they keep, started, updated and ended one after the other.

With OrderedReady a step is taken only when all pods before it are available: pods start from the lowest ordinal up, and
end from the highest down. Parallel doesn't wait, but for updates, which go from the highest ordinal down in both, so
many at once as maxUnavailable allows (KEP-961). A pod that is still there, on a silent node too, is never doubled: its
name is taken. As upstream's pkg/controller/statefulset decides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct, field

from knarr.api.apps.v1 import ControllerRevision, StatefulSet, StatefulSetStatus
from knarr.api.core.pod_state import is_ready, is_terminal, phase
from knarr.api.core.v1 import PersistentVolumeClaim, Pod
from knarr.api.errors import AlreadyExists, APIError, Conflict, NotFound
from knarr.api.meta.owners import selector_for
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.controllers.history import REVISION_LABEL, History, template_of
from knarr.controllers.ownership import claim, is_going, orphans, owner_index, owner_keys
from knarr.controllers.pods import available_in_s
from knarr.controllers.rolling import part_of
from knarr.controllers.statefulset_pods import (
    claim_names,
    claim_owners,
    has_identity,
    is_stale,
    make_claims,
    make_pod,
    name_of,
    ordinal_of,
    ordinals,
    spec_of,
    with_identity,
)
from knarr.controllers.together import together

BURST_MAX = 500
"""Pods that a look at a Parallel set creates or deletes."""


class Step(Struct):
    """What to do now: ordinals to create, pods to delete, pods (and their claims) to set right."""

    create: list[int] = field(default_factory=list)
    delete: list[Pod] = field(default_factory=list)
    mend: list[Pod] = field(default_factory=list)


class Revisions(Struct, frozen=True):
    """The template that pods had when the last rollout was complete, and the one that they are to have."""

    current: ControllerRevision
    update: ControllerRevision
    collisions: int


class StatefulSets(Controller):
    """apps/v1 StatefulSet."""

    name = "statefulset-controller"
    min_interval_s = 0.02

    def watch(self) -> None:
        self.stateful_sets = self.informer(StatefulSet)
        self.pods = self.informer(Pod)
        self.pods.add_index("owner", owner_index)
        self.claims = self.informer(PersistentVolumeClaim)
        revisions = self.informer(ControllerRevision)
        self.history = History(self.client, revisions, "controller.kubernetes.io/hash")
        self.on(self.stateful_sets, key_of)
        self.on(self.pods, owner_keys(self.stateful_sets))
        self.on(revisions, owner_keys(self.stateful_sets))

    async def reconcile(self, key: str) -> float | None:
        stateful_set = self.stateful_sets.get(key)
        if stateful_set is None or stateful_set.spec is None:
            return None
        selector = selector_for(stateful_set.spec.selector)
        loose = self.pods.by_index("owner", orphans(stateful_set.metadata.namespace or ""))
        owned = self.pods.by_index("owner", stateful_set.metadata.uid or "")
        pods = await claim(self.client, stateful_set, selector, owned, _members(stateful_set, loose))
        pods = list(_members(stateful_set, pods))
        known = await self.history.of(stateful_set, selector)
        revisions = await self._revisions(stateful_set, known)

        failure: APIError | None = None
        now_s = self.clock.time_s()
        if stateful_set.metadata.deletion_timestamp is None:
            step = plan(stateful_set, pods, revisions.update.metadata.name or "", now_s)
            failure = await self._carry_out(stateful_set, step, revisions)
        status = status_of(stateful_set, pods, revisions, now_s)
        if status != stateful_set.status:
            await self.client.update_status(replace(stateful_set, status=status))
        if failure:
            raise failure
        live = {status.current_revision, status.update_revision, *map(revision_of, pods)}
        limit = stateful_set.spec.revision_history_limit
        await self.history.truncate(known, live, 10 if limit is None else limit)
        min_ready_s = stateful_set.spec.min_ready_seconds or 0
        return min((wait for pod in pods if (wait := available_in_s(pod, min_ready_s, now_s))), default=None)

    async def _revisions(self, stateful_set: StatefulSet, known: Sequence[ControllerRevision]) -> Revisions:
        status = stateful_set.status or StatefulSetStatus()
        template, collisions = spec_of(stateful_set).template, status.collision_count or 0
        update, collisions = await self.history.newest(stateful_set, template, known, collisions)
        named = (revision for revision in known if revision.metadata.name == status.current_revision)
        return Revisions(next(named, update), update, collisions)

    async def _carry_out(self, stateful_set: StatefulSet, step: Step, revisions: Revisions) -> APIError | None:
        """All of the step; the first thing that went wrong."""
        errors = [await self._mend(stateful_set, pod) for pod in step.mend]
        errors += await together(self._create(stateful_set, revisions, ordinal) for ordinal in step.create)
        if not any(errors):
            errors += await together(self._delete(stateful_set, pod) for pod in step.delete)
        return next(filter(None, errors), None)

    async def _create(self, stateful_set: StatefulSet, revisions: Revisions, ordinal: int) -> APIError | None:
        namespace = stateful_set.metadata.namespace
        there = (self.claims.get(f"{namespace}/{name}") for name in claim_names(stateful_set, ordinal))
        if any(found and is_stale(stateful_set, found, ordinal) for found in there):
            return Conflict(f"a claim of {name_of(stateful_set, ordinal)} goes with the pod before it: not gone yet")
        old = is_held_back(stateful_set, ordinal)
        revision = revisions.current if old else revisions.update
        template = template_of(revision) if old else spec_of(stateful_set).template
        pod = make_pod(stateful_set, template, revision.metadata.name or "", ordinal)
        try:
            await self._create_claims(stateful_set, ordinal, None)
            await self.client.create(pod)
        except Conflict as error:
            return error  # a pod or a claim of that name has not gone yet
        except APIError as error:
            self._tell(stateful_set, "create", pod, error)
            return error
        self._tell(stateful_set, "create", pod)
        return None

    async def _create_claims(self, stateful_set: StatefulSet, ordinal: int, pod: Pod | None) -> None:
        """Those that are missing. Raises Conflict while one is being deleted."""
        pod_name, name = name_of(stateful_set, ordinal), stateful_set.metadata.name
        for wanted in make_claims(stateful_set, ordinal, pod):
            there = self.claims.get(key_of(wanted))
            if there is not None:
                if there.metadata.deletion_timestamp:
                    raise Conflict(f"pvc {wanted.metadata.name} is being deleted")
                continue
            about = f"Claim {wanted.metadata.name}"
            try:
                await self.client.create(wanted)
            except AlreadyExists:
                continue
            except APIError as error:
                message = f"create {about} for Pod {pod_name} in StatefulSet {name} failed error: {error}"
                self.events.warning(stateful_set, "FailedCreate", message)
                raise
            message = f"create {about} Pod {pod_name} in StatefulSet {name} success"
            self.events.normal(stateful_set, "SuccessfulCreate", message)

    async def _mend(self, stateful_set: StatefulSet, pod: Pod) -> APIError | None:
        """A pod's labels and claims, and who owns the claims."""
        ordinal = ordinal_of(stateful_set, pod.metadata.name)
        if ordinal is None:
            return None
        try:
            if ordinal in ordinals(stateful_set):
                if phase(pod) == "Pending":
                    await self._create_claims(stateful_set, ordinal, pod)
                if not has_identity(stateful_set, pod):
                    await self.client.update(with_identity(stateful_set, pod))
                    self._tell(stateful_set, "update", pod)
            for name in claim_names(stateful_set, ordinal):
                found = self.claims.get(f"{pod.metadata.namespace}/{name}")
                if found is None:
                    continue
                owners = claim_owners(stateful_set, found, ordinal, pod)
                if owners != found.metadata.owner_references:
                    metadata = replace(found.metadata, owner_references=owners)
                    await self.client.update(replace(found, metadata=metadata))
        except NotFound:
            return None
        except Conflict as error:
            return error
        except APIError as error:
            self._tell(stateful_set, "update", pod, error)
            return error
        return None

    async def _delete(self, stateful_set: StatefulSet, pod: Pod) -> APIError | None:
        try:
            await self.client.delete(Pod, pod.metadata.name or "", pod.metadata.namespace, uid=pod.metadata.uid)
        except NotFound:
            return None
        except APIError as error:
            self._tell(stateful_set, "delete", pod, error)
            return error
        self._tell(stateful_set, "delete", pod)
        return None

    def _tell(self, stateful_set: StatefulSet, verb: str, pod: Pod, error: APIError | None = None) -> None:
        about = f"{verb} Pod {pod.metadata.name} in StatefulSet {stateful_set.metadata.name}"
        if error is None:
            self.events.normal(stateful_set, f"Successful{verb.capitalize()}", f"{about} successful")
        else:
            self.events.warning(stateful_set, f"Failed{verb.capitalize()}", f"{about} failed error: {error}")


def plan(stateful_set: StatefulSet, pods: Sequence[Pod], update_revision: str, now_s: float) -> Step:
    """The next step: first for pods that are missing or have ended, then for those too many, then for outdated ones."""
    spec, wanted = spec_of(stateful_set), ordinals(stateful_set)
    by_ordinal = {ordinal_of(stateful_set, pod.metadata.name): pod for pod in pods}
    replicas = [by_ordinal.get(ordinal) for ordinal in wanted]
    condemned = [by_ordinal[n] for n in sorted(n for n in by_ordinal if n is not None and n not in wanted)][::-1]
    min_ready_s = spec.min_ready_seconds or 0

    def available(pod: Pod | None) -> bool:
        return pod is not None and is_available(pod, min_ready_s, now_s)

    ordered = spec.pod_management_policy != "Parallel"
    step = Step()
    for ordinal, pod in zip(wanted, replicas, strict=True):
        if len(step.create) + len(step.delete) >= BURST_MAX:
            return step
        if pod is None:
            step.create.append(ordinal)
        elif is_terminal(pod):
            step.delete += [] if is_going(pod) else [pod]
        else:
            step.mend.append(pod)
        if ordered and not available(pod):
            return step
    step.mend += condemned
    # Of a set that can't become available, the lowest pod in the way may go all the same.
    first = next((pod for pod in (*replicas, *reversed(condemned)) if not available(pod)), None)
    for pod in condemned[:BURST_MAX]:
        if not is_going(pod) and (not ordered or available(pod) or pod is first):
            step.delete.append(pod)
        if ordered:
            return step
    if spec.update_strategy and spec.update_strategy.type == "OnDelete":
        return step
    step.delete += _outdated(stateful_set, replicas, update_revision, sum(not available(pod) for pod in replicas))
    return step


def _outdated(
    stateful_set: StatefulSet, replicas: Sequence[Pod | None], update_revision: str, unavailable: int
) -> list[Pod]:
    """Pods of another template that may go now: from the highest ordinal down to the partition."""
    strategy = spec_of(stateful_set).update_strategy
    rolling = strategy.rolling_update if strategy else None
    allowed, partition = 1, 0
    if rolling is not None:
        partition = rolling.partition or 0
        if rolling.max_unavailable is not None:
            allowed = max(1, part_of(rolling.max_unavailable, len(replicas), up=False))
    candidates = [
        pod
        for pod in reversed(replicas[partition:])
        if pod is not None and not is_going(pod) and not is_terminal(pod) and revision_of(pod) != update_revision
    ]
    return candidates[: max(0, allowed - unavailable)]


def status_of(stateful_set: StatefulSet, pods: Sequence[Pod], revisions: Revisions, now_s: float) -> StatefulSetStatus:
    """The status that these pods make. A rollout is complete when all pods are of the update revision and ready."""
    spec = spec_of(stateful_set)
    min_ready_s, wanted = spec.min_ready_seconds or 0, len(ordinals(stateful_set))
    ready = [pod for pod in pods if is_ready(pod) and not is_terminal(pod)]
    staying = [revision_of(pod) for pod in pods if not is_going(pod)]
    current, update = revisions.current.metadata.name or "", revisions.update.metadata.name or ""
    updated = staying.count(update)
    rolling = spec.update_strategy is None or spec.update_strategy.type != "OnDelete"
    if rolling and updated == len(pods) == len(ready) == wanted:
        current = update
    old = stateful_set.status or StatefulSetStatus()
    return StatefulSetStatus(
        replicas=len(pods),
        ready_replicas=len(ready) or None,
        available_replicas=sum(available_in_s(pod, min_ready_s, now_s) == 0 for pod in ready),
        current_replicas=staying.count(current) or None,
        updated_replicas=updated or None,
        current_revision=current,
        update_revision=update,
        collision_count=revisions.collisions,
        observed_generation=stateful_set.metadata.generation,
        conditions=old.conditions,
    )


def is_held_back(stateful_set: StatefulSet, ordinal: int) -> bool:
    """Below the partition of a rolling update: it keeps the template of the last complete rollout."""
    strategy = spec_of(stateful_set).update_strategy
    if strategy is None or strategy.type != "RollingUpdate" or strategy.rolling_update is None:
        return False
    return ordinal < ordinals(stateful_set).start + (strategy.rolling_update.partition or 0)


def is_available(pod: Pod, min_ready_s: int, now_s: float) -> bool:
    """Ready for long enough, and not on its way out."""
    return not is_terminal(pod) and not is_going(pod) and available_in_s(pod, min_ready_s, now_s) == 0


def revision_of(pod: Pod) -> str:
    return pod.metadata.labels.get(REVISION_LABEL, "")


def _members(stateful_set: StatefulSet, pods: Iterable[Pod]) -> Iterable[Pod]:
    """Those whose names are of this set."""
    return (pod for pod in pods if ordinal_of(stateful_set, pod.metadata.name) is not None)
