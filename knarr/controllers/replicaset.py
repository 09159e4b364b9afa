"""ReplicaSets: keep so many pods of one template alive.

Counts the active pods that it owns, creates what is missing and deletes what is too much, then tells in its status how
many there are, are ready and are available. Creation starts slowly (1, 2, 4, … at once), so that a pod that can't be
created is tried once, not 500 times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from knarr.api.apps.v1 import ReplicaSet, ReplicaSetCondition, ReplicaSetStatus
from knarr.api.core.pod_state import is_active, is_entering, is_ready, is_terminal
from knarr.api.core.v1 import Pod
from knarr.api.errors import APIError, NotFound
from knarr.api.meta.owners import controller_of, selector_for
from knarr.api.selectors import Selector
from knarr.api.types import replace
from knarr.client.controller import Controller, is_namespace_terminating
from knarr.client.informer import Informer, key_of
from knarr.clock import utc
from knarr.controllers import pods as of_pods
from knarr.controllers.ownership import claim, orphans, owner_index, owner_keys
from knarr.controllers.together import slow_start, together

BURST_MAX = 500
"""Pods created or deleted by one look at a ReplicaSet."""
HOLD_PER_POD_S = 20e-6
"""A look at n pods costs about n × 2 µs: so it takes no more than a tenth of the time."""


class Step(Struct, frozen=True):
    """What to do about the number of pods."""

    create: int = 0
    delete: Sequence[Pod] = ()


class ReplicaSets(Controller):
    """apps/v1 ReplicaSet; other kinds that are replicas of one template differ from it in what follows."""

    name = "replicaset-controller"
    min_interval_s = 0.02
    kind: type[Any] = ReplicaSet

    def selector(self, replica_set: Any) -> Selector | None:
        return selector_for(replica_set.spec.selector)

    def status(self, replica_set: Any, seen: Seen) -> Any:
        return status_of(replica_set, seen, self.clock.time_s())

    def watch(self) -> None:
        self.replica_sets: Informer[Any] = self.informer(self.kind)
        self.replica_sets.add_index("owner", owner_index)
        self.pods = self.informer(Pod)
        self.pods.add_index("owner", owner_index)
        self.pods.add_index("state", state_index)
        self.on(self.replica_sets, key_of)
        self.on(self.pods, owner_keys(self.replica_sets, self.selector))

    async def reconcile(self, key: str) -> float | None:
        replica_set = self.replica_sets.get(key)
        if replica_set is None or replica_set.spec is None:
            return None
        uid = replica_set.metadata.uid or ""
        loose = filter(is_active, self.pods.by_index("owner", orphans(replica_set.metadata.namespace or "")))
        selector = self.selector(replica_set)
        ready = await claim(self.client, replica_set, selector, self.pods.by_index("state", f"{uid} ready"), ())
        unready = await claim(self.client, replica_set, selector, self.pods.by_index("state", f"{uid} unready"), loose)

        failure: Failure | None = None
        if replica_set.metadata.deletion_timestamp is None:
            step = plan(replica_set, [*unready, *ready], self._related(replica_set), self.clock.time_s())
            failure = await self._carry_out(replica_set, step)

        self.queue.hold(key, HOLD_PER_POD_S * (len(ready) + len(unready)))
        terminating = self.pods.count("state", f"{uid} terminating")
        entering = self.pods.count("state", f"{uid} entering")
        status = self.status(replica_set, Seen(ready, unready, terminating, failure, entering))
        if status != replica_set.status:
            await self.client.update_status(replace(replica_set, status=status))
        if failure and not is_namespace_terminating(failure.error):
            raise failure.error
        return next_availability_s(replica_set, ready, self.clock.time_s())

    async def _carry_out(self, replica_set: Any, step: Step) -> Failure | None:
        if step.create:
            error = await slow_start(step.create, lambda: self._create_pod(replica_set))
            return Failure("FailedCreate", error) if error else None
        if step.delete:
            errors = await together(self._delete_pod(replica_set, pod) for pod in step.delete)
            error = next(filter(None, errors), None)
            return Failure("FailedDelete", error) if error else None
        return None

    async def _create_pod(self, replica_set: Any) -> APIError | None:
        try:
            pod = await self.client.create(of_pods.from_template(replica_set.spec.template, replica_set))
        except APIError as error:
            if not is_namespace_terminating(error):
                self.events.warning(replica_set, "FailedCreate", f"Error creating: {error}")
            return error
        self.events.normal(replica_set, "SuccessfulCreate", f"Created pod: {pod.metadata.name}")
        return None

    async def _delete_pod(self, replica_set: Any, pod: Pod) -> APIError | None:
        name = pod.metadata.name or ""
        try:
            await self.client.delete(Pod, name, pod.metadata.namespace, uid=pod.metadata.uid)
        except NotFound:
            return None
        except APIError as error:
            self.events.warning(replica_set, "FailedDelete", f"Error deleting: {error}")
            return error
        self.events.normal(replica_set, "SuccessfulDelete", f"Deleted pod: {name}")
        return None

    def _related(self, replica_set: Any) -> Callable[[], Iterable[Pod]]:
        """The pods of all ReplicaSets of the same owner; asked for only when some must go."""

        def find() -> Iterable[Pod]:
            owner = controller_of(replica_set)
            siblings = self.replica_sets.by_index("owner", owner.uid) if owner else [replica_set]
            for sibling in siblings:
                yield from self.pods.by_index("owner", sibling.metadata.uid or "")

        return find


def state_index(pod: Pod) -> tuple[str, ...]:
    """Index of owned pods by how they are, so that a look at thousands doesn't ask each of them.

    Those that are ready, but on their way into service, are also `entering`.
    """
    owner = controller_of(pod)
    if owner is None or is_terminal(pod):
        return ()
    if pod.metadata.deletion_timestamp is not None:
        return (f"{owner.uid} terminating",)
    if not is_ready(pod):
        return (f"{owner.uid} unready",)
    return (f"{owner.uid} ready", f"{owner.uid} entering") if is_entering(pod) else (f"{owner.uid} ready",)


class Failure(Struct, frozen=True):
    """Why the number of pods could not be brought about: `reason` of the condition ReplicaFailure."""

    reason: str
    error: APIError


class Seen(Struct, frozen=True):
    """The pods that are there, and what went wrong in changing them."""

    ready: Sequence[Pod]
    unready: Sequence[Pod]
    terminating: int = 0
    failure: Failure | None = None
    entering: int = 0
    """Of the ready ones, how many are not in service yet."""


def plan(replica_set: Any, active: Sequence[Pod], related: Callable[[], Iterable[Pod]], now_s: float) -> Step:
    """How to come from the active pods to the wanted number."""
    missing = _wanted(replica_set) - len(active)
    if missing > 0:
        return Step(create=min(missing, BURST_MAX))
    if missing < 0:
        return Step(delete=of_pods.spare(active, related(), min(-missing, BURST_MAX), now_s))
    return Step()


def status_of(replica_set: ReplicaSet, seen: Seen, now_s: float) -> ReplicaSetStatus:
    """The status that these active pods make. Without a change it equals the old one."""
    counts = counts_of(replica_set, seen, now_s)
    conditions = conditions_of(replica_set, ReplicaSetCondition, seen.failure, now_s)
    return ReplicaSetStatus(**counts, terminating_replicas=seen.terminating, conditions=conditions)


def counts_of(replica_set: Any, seen: Seen, now_s: float) -> dict[str, Any]:
    """The numbers of a status."""
    ready, unready, template = seen.ready, seen.unready, replica_set.spec.template
    labels = template.metadata.labels if template and template.metadata else {}
    min_ready_s = replica_set.spec.min_ready_seconds or 0
    if min_ready_s:
        available = sum(of_pods.available_in_s(pod, min_ready_s, now_s) == 0 for pod in ready)
    else:
        available = max(0, len(ready) - seen.entering)
    return {
        "replicas": len(ready) + len(unready),
        "fully_labeled_replicas": _fully_labeled(ready, labels) + _fully_labeled(unready, labels) or None,
        "ready_replicas": len(ready) or None,
        "available_replicas": available or None,
        "observed_generation": replica_set.metadata.generation,
    }


def next_availability_s(replica_set: Any, ready: Sequence[Pod], now_s: float) -> float | None:
    """Seconds until a ready pod becomes available, if one is to."""
    min_ready_s = (replica_set.spec.min_ready_seconds if replica_set.spec else None) or 0
    if not min_ready_s:
        return None
    waits = (of_pods.available_in_s(pod, min_ready_s, now_s) for pod in ready)
    return min((wait for wait in waits if wait), default=None)


def conditions_of(replica_set: Any, kind: type[Any], failure: Failure | None, now_s: float) -> list[Any]:
    """A failure stays as it was first seen until it is over."""
    old: list[Any] = replica_set.status.conditions if replica_set.status else []
    standing = any(condition.type == "ReplicaFailure" for condition in old)
    if failure is None or is_namespace_terminating(failure.error):
        return [condition for condition in old if condition.type != "ReplicaFailure"]
    if standing:
        return old
    condition = kind(
        type="ReplicaFailure",
        status="True",
        reason=failure.reason,
        message=str(failure.error),
        last_transition_time=utc(now_s),
    )
    return [*old, condition]


def _fully_labeled(pods: Sequence[Pod], labels: Mapping[str, str]) -> int:
    """Pods that have all labels of the template. Those from a cache share them, so that few are looked at."""
    known: dict[int, bool] = {}
    count = 0
    for pod in pods:
        its = pod.metadata.labels
        found = known.get(id(its))
        if found is None:
            found = known[id(its)] = labels.items() <= its.items()
        count += found
    return count


def _wanted(replica_set: Any) -> int:
    """Absent means 1, as the API server fills it in."""
    replicas: int | None = replica_set.spec.replicas
    return 1 if replicas is None else replicas
