"""What must hold after every write to the store, whatever goes wrong: each rule is a class, and says when it is broken.

A rule judges who decided by what it could know. Caches lag, and a request is on its way for some time: so a decision is
right if it fits any version that an object had in the last `slack_s` seconds (0 would be a world without delay). Pods
and nodes that fail by themselves, and what users do to pods, are nobody's fault: availability is counted by pods that
were available at any moment of that time. Rules about the number of pods (`certain`) hold only where a loop knows what
became of its own writes: after an answer that was lost, or a crash, upstream too may create one pod more, and takes it
away again. The bounds are worked out here anew, not by the product's own functions.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from knarr.api.apps.v1 import DaemonSet, Deployment, ReplicaSet, StatefulSet
from knarr.api.batch.v1 import Job
from knarr.api.core.v1 import Node, Pod, ResourceQuota
from knarr.api.policy.v1 import PodDisruptionBudget
from knarr.api.quantity import parse_quantity
from knarr.simulate.clock import START_S
from tests.simulate.world import Change, State

AT_ONCE_S = 0.1
"""Where requests are not slow."""


class Broken(Exception):
    """A rule is broken."""


@dataclass(slots=True)
class Past:
    """The versions that objects had, and when pods were last available."""

    slack_s: float
    flight_s: float
    """How long a request may be on its way, or wait for others that came before it."""
    certain: bool
    versions: dict[str, deque[tuple[float, Any]]] = field(default_factory=lambda: defaultdict(deque))
    """By uid: when each version ended, and the version; the present one is not among them."""
    available_s: dict[str, float] = field(default_factory=dict)
    """By uid of a pod: when it was last seen ready and staying."""
    gone_s: dict[str, float] = field(default_factory=dict)
    """By uid: when it was deleted for good."""

    def note(self, change: Change) -> None:
        old, new = change.old, change.new
        if old is not None:
            versions = self.versions[old.metadata.uid]
            versions.append((change.now_s, old))
            while versions[0][0] < change.now_s - 60:
                versions.popleft()
            if change.kind is Pod and is_ready(old) and not is_going(old):
                self.available_s[old.metadata.uid] = change.now_s
            if new is None:
                self.gone_s[old.metadata.uid] = change.now_s

    def known(self, obj: Any, now_s: float) -> Iterator[Any]:
        """The version that is there, and those that somebody may have decided by."""
        yield obj
        for ended_s, version in self.versions.get(obj.metadata.uid, ()):
            if ended_s >= now_s - self.slack_s:
                yield version

    def was_available(self, pod: Pod, now_s: float) -> bool:
        """At some moment of the time that counts, and by nobody's decision taken away since."""
        if is_ready(pod) and not is_going(pod):
            return True
        return self.available_s.get(pod.metadata.uid or "", -1e9) >= now_s - self.slack_s

    def deleted_s(self, obj: Any) -> float:
        """When it was asked to go."""
        versions = reversed(self.versions[obj.metadata.uid])
        return next((ended_s for ended_s, version in versions if not is_going(version)), 0.0)


class Invariants:
    """All rules, over one run."""

    def __init__(self, state: State, *, slack_s: float, flight_s: float, certain: bool) -> None:
        self.state = state
        self.past = Past(slack_s, flight_s, certain)
        self.rules: list[Rule] = [
            rule(state, self.past)
            for rule in (Metadata, Collection, Adoption, Rollouts, Replicas, Ordinals, Daemons, Counting, Budgets)
        ]
        self.rules += [Quotas(state, self.past), Placement(state, self.past), Verdict(state, self.past)]

    def check(self, change: Change) -> None:
        """Raises Broken."""
        self.past.note(change)
        for rule in self.rules:
            if not rule.kinds or change.kind in rule.kinds:
                rule.check(change)


class Rule:
    """One rule. `kinds`: whose changes it is about; none: all."""

    kinds: tuple[type[Any], ...] = ()

    def __init__(self, state: State, past: Past) -> None:
        self.state = state
        self.past = past

    def check(self, change: Change) -> None:
        """Raises Broken."""
        raise NotImplementedError

    def pods_of(self, owner: Any) -> list[Pod]:
        return [pod for pod in self.state.all(Pod, owner.metadata.namespace) if owner_uid(pod) == owner.metadata.uid]

    def owner_of(self, kind: type[Any], obj: Any) -> Any | None:
        uid = owner_uid(obj)
        found = self.state.by_uid.get(uid) if uid else None
        return found if isinstance(found, kind) else None


class Metadata(Rule):
    """Revisions and generations rise; what is set once stays; nobody comes back from deletion."""

    def __init__(self, state: State, past: Past) -> None:
        super().__init__(state, past)
        self.revision = 0

    def check(self, change: Change) -> None:
        if change.revision < self.revision:
            raise Broken(f"revision {change.revision} after {self.revision}")
        self.revision = change.revision
        old, new = change.old, change.new
        if new is not None and new.metadata.resource_version != str(change.revision):
            raise Broken(f"resourceVersion {new.metadata.resource_version} at revision {change.revision}")
        if old is None or new is None:
            return
        before, after = old.metadata, new.metadata
        if before.uid != after.uid or before.creation_timestamp != after.creation_timestamp:
            raise Broken("uid or creationTimestamp changed")
        if (after.generation or 0) < (before.generation or 0):
            raise Broken(f"generation fell from {before.generation} to {after.generation}")
        if change.kind in (Deployment, ReplicaSet, StatefulSet, DaemonSet, Job):
            changed = old.spec != new.spec
            if changed and (after.generation or 0) == (before.generation or 0):
                raise Broken("spec changed, its generation did not")
        if before.deletion_timestamp is not None and after.deletion_timestamp is None:
            raise Broken("deletion was taken back")


class Collection(Rule):
    """Nothing is collected while an owner lives; who is orphaned outlives its owner."""

    def __init__(self, state: State, past: Past) -> None:
        super().__init__(state, past)
        self.let_go: set[tuple[str, str]] = set()
        """Whom the collector has let go of which owner, by their uids."""

    def check(self, change: Change) -> None:
        old, new = change.old, change.new
        if old is None:
            return
        if new is not None and change.part == "garbage-collector-controller":
            kept = {each.uid for each in new.metadata.owner_references}
            self.let_go |= {
                (new.metadata.uid, each.uid)
                for each in old.metadata.owner_references
                if each.uid not in kept and self._is_orphaning(each.uid)
            }
        marked = new is None or (is_going(new) and not is_going(old))
        if marked and change.part == "garbage-collector-controller" and not is_going(old):
            self._collected(old)
        if new is None and is_going(old) and change.part == "garbage-collector-controller":
            before = next((v for _, v in reversed(self.past.versions[old.metadata.uid]) if v is not old), None)
            if "orphan" in old.metadata.finalizers or (before and "orphan" in before.metadata.finalizers):
                self._orphaned(old, change)

    def _collected(self, obj: Any) -> None:
        references = obj.metadata.owner_references
        if not references:
            raise Broken(f"{obj.kind} {obj.metadata.name} has no owner, and was collected")
        for reference in references:
            # Who asks the server before it adopts comes too late for that only by a request's time on its way.
            if (obj.metadata.uid, reference.uid) in self.let_go and self.past.flight_s <= AT_ONCE_S:
                raise Broken(f"{obj.kind} {obj.metadata.name} was let go, taken back by the same owner, and collected")
            owner = self.state.by_uid.get(reference.uid)
            if owner is None or owner.metadata.namespace not in (None, obj.metadata.namespace):
                continue
            if not (is_going(owner) and "foregroundDeletion" in owner.metadata.finalizers):
                raise Broken(f"{obj.kind} {obj.metadata.name} was collected, its owner {owner.metadata.name} lives")

    def _is_orphaning(self, uid: str) -> bool:
        owner = self.state.by_uid.get(uid)
        return owner is not None and is_going(owner) and "orphan" in owner.metadata.finalizers

    def _orphaned(self, owner: Any, change: Change) -> None:
        for obj in list(self.state.by_uid.values()):
            if all(reference.uid != owner.metadata.uid for reference in obj.metadata.owner_references):
                continue
            versions = self.past.versions.get(obj.metadata.uid)
            first = versions[0][1] if versions else obj
            named_before = any(each.uid == owner.metadata.uid for each in first.metadata.owner_references)
            age_s = change.now_s - self.past.deleted_s(owner)
            if named_before and versions and versions[0][0] < change.now_s - age_s - self.past.slack_s:
                raise Broken(f"{owner.metadata.name} went before {obj.kind} {obj.metadata.name} was let go")


class Adoption(Rule):
    """Who is adopted gets a living owner that selects it, and no second one."""

    def check(self, change: Change) -> None:
        old, new = change.old, change.new
        if new is None or change.part in ("user", "garbage-collector-controller"):
            return
        uid = owner_uid(new)
        if not uid or (old is not None and owner_uid(old) == uid):
            return
        controllers = [each for each in new.metadata.owner_references if each.controller]
        if len(controllers) > 1:
            raise Broken("two controllers")
        gone_s = self.past.gone_s.get(uid)
        if old is not None and gone_s is not None and gone_s < change.now_s - self.past.flight_s:
            raise Broken(f"adopted by an owner that is gone for {change.now_s - gone_s:.1f} s")
        owner = self.state.by_uid.get(uid)
        if old is not None and owner is not None and is_going(owner):
            going_s = change.now_s - self.past.deleted_s(owner)
            if going_s > self.past.flight_s:
                raise Broken(f"adopted by an owner that is on its way out for {going_s:.1f} s")
        if owner is None or not getattr(owner.spec, "selector", None) or is_pod_of_job(new):
            return
        if not any(selects(version, new) for version in self.past.known(owner, change.now_s)):
            raise Broken(f"{owner.metadata.name} does not select it")


class Rollouts(Rule):
    """A Deployment has one ReplicaSet a template, and stays within maxUnavailable and maxSurge of its replicas."""

    kinds = (ReplicaSet,)

    def check(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.part != "deployment-controller" or new is None:
            return
        deployment = self.owner_of(Deployment, new)
        if deployment is None:
            return
        siblings = [
            each
            for each in self.state.all(ReplicaSet, new.metadata.namespace)
            if owner_uid(each) == deployment.metadata.uid
        ]
        if old is None:
            self._one_a_template(new, siblings)
        before, after = (old.spec.replicas or 0) if old else 0, new.spec.replicas or 0
        known = list(self.past.known(deployment, change.now_s))
        if after > before:
            self._surge(known, siblings, new, change)
        elif after < before:
            self._available(known, siblings, change)

    def _one_a_template(self, new: ReplicaSet, siblings: Iterable[ReplicaSet]) -> None:
        for sibling in siblings:
            if sibling.metadata.uid != new.metadata.uid and bare_template(sibling) == bare_template(new):
                raise Broken(f"{sibling.metadata.name} has the same template")

    def _surge(self, known: list[Deployment], siblings: list[ReplicaSet], new: ReplicaSet, change: Change) -> None:
        total = sum(each.spec.replicas or 0 for each in siblings if each.spec)
        most = max(replicas_of(each) + surge_and_unavailable(each)[0] for each in known)
        if total > most:
            raise Broken(f"{total} replicas wanted, at most {most}")
        if all(each.spec.strategy and each.spec.strategy.type == "Recreate" for each in known if each.spec):
            others = [each for each in siblings if each.metadata.uid != new.metadata.uid]
            left = [
                pod.metadata.name
                for each in others
                for pod in self.pods_of(each)
                if not is_terminal(pod) and created_before(self.past, pod, change.now_s)
            ]
            if left and all((each.spec.replicas or 0) == 0 for each in others if each.spec):
                raise Broken(f"new pods beside old ones: {left}")

    def _available(self, known: list[Deployment], siblings: list[ReplicaSet], change: Change) -> None:
        if any(each.spec is None or each.spec.paused for each in known):
            return
        if len({replicas_of(each) for each in known}) > 1 or is_recreate(known[0]):
            return  # while it is scaled, proportions count
        for each in siblings:
            if each.metadata.annotations.get("deployment.kubernetes.io/desired-replicas") != str(replicas_of(known[0])):
                return
        stay = sum(
            min(
                each.spec.replicas or 0,
                max(
                    version.status.available_replicas or 0 if version.status else 0
                    for version in self._known(each, change)
                ),
            )
            for each in siblings
            if each.spec
        )
        least = min(replicas_of(each) - surge_and_unavailable(each)[1] for each in known)
        if change.old.status and not (change.old.status.available_replicas or 0):
            return  # none of those that serve was taken away
        lost = (change.old.spec.replicas or 0) - (change.new.spec.replicas or 0)
        spare = (change.old.spec.replicas or 0) - max(
            version.status.available_replicas or 0 if version.status else 0
            for version in self._known(change.new, change)
        )
        if stay < least and lost > max(0, spare):
            raise Broken(f"{stay} stay available, at least {least}")

    def _known(self, replica_set: ReplicaSet, change: Change) -> Iterator[ReplicaSet]:
        return self.past.known(replica_set, change.now_s)


class Replicas(Rule):
    """A ReplicaSet makes no pod more than it is told to, where it knows of those that it made."""

    kinds = (Pod,)

    def check(self, change: Change) -> None:
        if change.part != "replicaset-controller" or change.old is not None or not self.past.certain:
            return
        replica_set = self.owner_of(ReplicaSet, change.new)
        if replica_set is None:
            return
        pods = [pod for pod in self.pods_of(replica_set) if not is_going(pod) and not is_terminal(pod)]
        most = max(each.spec.replicas or 0 for each in self.past.known(replica_set, change.now_s) if each.spec)
        if len(pods) > most:
            raise Broken(f"{len(pods)} pods of {most}")


class Ordinals(Rule):
    """A StatefulSet has one pod an ordinal; with OrderedReady it takes one step at a time, in order."""

    kinds = (Pod,)

    def __init__(self, state: State, past: Past) -> None:
        super().__init__(state, past)
        self.ours: set[str] = set()
        """Pods that the loop has deleted, by uid."""

    def check(self, change: Change) -> None:
        pod = change.new or change.old
        if change.part != "statefulset-controller":
            return
        stateful_set = self.owner_of(StatefulSet, pod)
        if stateful_set is None or stateful_set.spec is None:
            return
        known = [each for each in self.past.known(stateful_set, change.now_s) if each.spec]
        if change.old is None:
            self._created(known, pod, change)
        elif not is_going(change.old) and (change.new is None or is_going(change.new)):
            if not is_terminal(change.old):
                self._deleted(known, change.old, change)
            self.ours.add(change.old.metadata.uid or "")

    def _created(self, known: list[StatefulSet], pod: Pod, change: Change) -> None:
        ordinal = ordinal_of(pod)
        if not any(ordinal in ordinals(each) for each in known):
            raise Broken(f"ordinal {ordinal} is not wanted")
        if all(is_parallel(each) for each in known):
            return
        start = max(ordinals(each).start for each in known)
        there = {ordinal_of(each): each for each in self.pods_of(known[0])}
        for lower in range(start, ordinal):
            before = there.get(lower)
            lately = any(
                gone_s >= change.now_s - self.past.slack_s
                for uid, gone_s in self.past.gone_s.items()
                if uid in self.past.available_s
            )
            if (before is None or not self.past.was_available(before, change.now_s)) and not lately:
                raise Broken(f"ordinal {ordinal} before {lower}")

    def _deleted(self, known: list[StatefulSet], pod: Pod, change: Change) -> None:
        ordinal = ordinal_of(pod)
        others = [each for each in self.pods_of(known[0]) if each.metadata.uid != pod.metadata.uid]
        if any(is_parallel(each) and ordinal not in ordinals(each) for each in known):
            return  # all that are too many may go at once
        allowed = max(set_unavailable(each) for each in known)
        parallel = any(is_parallel(each) for each in known)
        out = [
            each.metadata.name
            for each in others
            if is_going(each)
            and not is_terminal(each)
            and each.metadata.uid in self.ours
            # Of a Parallel set those that are too many go beside the others.
            and not (parallel and any(ordinal_of(each) not in ordinals(version) for version in known))
        ]
        if len(out) >= allowed:
            raise Broken(f"deleted while {out} are still going, {allowed} at once")
        if all(ordinal in ordinals(each) for each in known):
            partition = min(partition_of(each) + ordinals(each).start for each in known)
            if ordinal < partition:
                raise Broken(f"ordinal {ordinal} is below the partition {partition}")
            there = {ordinal_of(each): each for each in others}
            wanted = set.intersection(*(set(ordinals(each)) for each in known)) - {ordinal}
            missing = [
                each for each in wanted if each in there and not self.past.was_available(there[each], change.now_s)
            ]
            if len(missing) >= allowed:
                raise Broken(f"deleted while {missing} are not available, {allowed} at once")


class Daemons(Rule):
    """A DaemonSet has one pod a node, with surge one old and one new; an update takes no more than it may."""

    kinds = (Pod,)

    def __init__(self, state: State, past: Past) -> None:
        super().__init__(state, past)
        self.ours: set[str] = set()
        """Pods that the loop has deleted, by uid."""

    def check(self, change: Change) -> None:
        if change.part != "daemonset-controller":
            return
        daemon_set = self.owner_of(DaemonSet, change.new or change.old)
        if daemon_set is None:
            return
        known = list(self.past.known(daemon_set, change.now_s))
        pods = [pod for pod in self.pods_of(daemon_set) if not is_going(pod) and not is_terminal(pod)]
        if change.old is None and self.past.certain:
            there = [pod for pod in pods if node_of(pod) == node_of(change.new)]
            most = 2 if any(daemon_bounds(each, 1)[1] for each in known) else 1
            if len(there) > most:
                raise Broken(f"{len(there)} pods on {node_of(change.new)}")
        old = change.old
        deleted = old is not None and not is_going(old) and (change.new is None or is_going(change.new))
        if deleted:
            self.ours.add(old.metadata.uid)
        surges = any(daemon_bounds(each, 1)[1] for each in known)
        min_ready_s = max(each.spec.min_ready_seconds or 0 for each in known)
        if deleted and not surges and available_for_s(old, change.now_s) >= min_ready_s + self.past.slack_s:
            self._unavailable(known, pods, change)

    def _unavailable(self, known: list[DaemonSet], pods: list[Pod], change: Change) -> None:
        nodes = {node.metadata.name for node in self.state.all(Node)}
        here = node_of(change.old)
        if here not in nodes or sum(node_of(pod) == here for pod in pods):
            return  # it goes because it is one too many
        served = {node_of(pod) for pod in pods if self.past.was_available(pod, change.now_s)}
        lost = {
            node_of(pod)
            for pod in self.pods_of(known[0])
            if is_going(pod)
            and node_of(pod) not in served
            and node_of(pod) in nodes
            # Others may have taken it away, and the loop not know of it yet.
            and pod.metadata.uid in self.ours
        } | {here}
        most = max(daemon_bounds(each, len(nodes))[0] for each in known)
        if len(lost) > most:
            raise Broken(f"without a pod: {sorted(lost)}, at most {most}")


class Counting(Rule):
    """A Job counts each pod once, never counts back, and runs no more than parallelism."""

    kinds = (Pod, Job)

    def __init__(self, state: State, past: Past) -> None:
        super().__init__(state, past)
        self.succeeded: dict[str, dict[str, float]] = defaultdict(dict)
        """By uid of the Job: its pods that have succeeded, and since when."""
        self.failed: dict[str, set[str]] = defaultdict(set)
        self.ended: set[str] = set()

    def check(self, change: Change) -> None:
        if change.kind is Pod:
            self._pod(change)
        elif change.new is not None:
            self._job(change)

    def _pod(self, change: Change) -> None:
        pod = change.new or change.old
        job = self.owner_of(Job, pod)
        if job is None or job.spec is None:
            return
        uid, job_uid = pod.metadata.uid or "", job.metadata.uid or ""
        if phase(pod) == "Succeeded":
            self.succeeded[job_uid].setdefault(uid, change.now_s)
        elif phase(pod) == "Failed" or is_going(pod) or change.new is None:
            self.failed[job_uid].add(uid)
        if change.new is None and is_terminal(pod) and not is_over(job) and not is_going(job):
            counted = job.status.uncounted_terminated_pods if job.status else None
            listed = {*(counted.succeeded if counted else ()), *(counted.failed if counted else ())}
            tally = ((job.status.succeeded or 0) + (job.status.failed or 0) if job.status else 0) + len(listed)
            gone = {
                each
                for each in self.failed[job_uid].union(self.succeeded[job_uid])
                if each in self.past.gone_s and each in self.ended
            }
            if tally < len(gone):
                raise Broken(f"{len(gone)} pods have ended and are gone, {tally} are counted")
        if is_terminal(pod):
            self.ended.add(uid)
        if change.part == "job-controller" and change.old is None and self.past.certain:
            running = [each for each in self.pods_of(job) if not is_terminal(each) and not is_going(each)]
            most = max(most_running(each) for each in self.past.known(job, change.now_s))
            if len(running) > most:
                raise Broken(f"{len(running)} pods run, at most {most}")

    def _job(self, change: Change) -> None:
        job, before = change.new, change.old.status if change.old else None
        status, uid = job.status, job.metadata.uid
        if status is None:
            return
        for name, seen in (("succeeded", self.succeeded[uid]), ("failed", self.failed[uid])):
            count = getattr(status, name) or 0
            if before and count < (getattr(before, name) or 0):
                raise Broken(f"{name} fell to {count}")
            if count > len(seen):
                raise Broken(f"{name} is {count}, {len(seen)} pods did")
        ended = any(each.type == "Complete" and each.status == "True" for each in status.conditions)
        long_ago = [each for each, at_s in self.succeeded[uid].items() if at_s < change.now_s - self.past.slack_s]
        if ended and not (before and is_over(change.old)) and len(long_ago) > (status.succeeded or 0):
            raise Broken(f"{len(long_ago)} pods have succeeded, {status.succeeded} are counted")


class Budgets(Rule):
    """An eviction leaves as many healthy pods as the budget says."""

    kinds = (Pod,)

    def __init__(self, state: State, past: Past) -> None:
        super().__init__(state, past)
        self.evicted: set[str] = set()

    def check(self, change: Change) -> None:
        old, new = change.old, change.new
        if old is None or change.part != "user" or is_going(old) or not (new is None or is_going(new)):
            return
        if not any(each.type == "DisruptionTarget" for each in old.status.conditions):
            return  # a plain deletion, which no budget holds up
        self.evicted.add(old.metadata.uid)
        if not is_ready(old):
            return
        for budget in self.state.all(PodDisruptionBudget, old.metadata.namespace):
            if budget.spec and selects(budget, old):
                self._holds(budget, change)

    def _holds(self, budget: PodDisruptionBudget, change: Change) -> None:
        spec = budget.spec
        assert spec is not None
        healthy = 0
        for pod in self.state.all(Pod, budget.metadata.namespace):
            if selects(budget, pod) and pod.metadata.uid not in self.evicted:
                healthy += self.past.was_available(pod, change.now_s)
        lately = self.past.slack_s
        healthy += sum(
            uid not in self.evicted
            and gone_s >= change.now_s - lately
            and self.past.available_s.get(uid, 0) >= gone_s - lately
            for uid, gone_s in self.past.gone_s.items()
        )
        if spec.min_available is not None:
            least = spec.min_available
            if isinstance(least, str):
                return
        else:
            owners = self.state.all(Deployment, budget.metadata.namespace) + self.state.all(
                StatefulSet, budget.metadata.namespace
            )
            wanted = [
                min(replicas_of(version) for version in self.past.known(owner, change.now_s))
                for owner in owners
                if owner.spec.selector == spec.selector
            ]
            if not wanted or isinstance(spec.max_unavailable, str):
                return
            least = sum(wanted) - (spec.max_unavailable or 0)
        if healthy < least:
            raise Broken(f"{budget.metadata.name} wants {least} healthy pods, {healthy} are left")


class Quotas(Rule):
    """No object is made that takes its namespace past a quota, counted from all objects anew."""

    kinds = (Pod,)

    def check(self, change: Change) -> None:
        if change.old is not None:
            return
        namespace = change.new.metadata.namespace
        for quota in self.state.all(ResourceQuota, namespace):
            hard = quota.status.hard if quota.status else {}
            pods = [pod for pod in self.state.all(Pod, namespace) if not is_terminal(pod) and not self._is_over(pod)]
            used = {"pods": len(pods), "requests.cpu": sum(request(pod, "cpu") for pod in pods)}
            for name, amount in used.items():
                if name in hard and amount > parse_quantity(hard[name]):
                    raise Broken(f"{quota.metadata.name}: {name} {float(amount):g} of {hard[name]}")

    def _is_over(self, pod: Pod) -> bool:
        """Its time to end is over: it takes nothing any more."""
        return is_going(pod)


class Placement(Rule):
    """No node has pods that ask for more than it has."""

    kinds = (Pod,)

    def check(self, change: Change) -> None:
        if change.part != "scheduler" or change.new is None or not change.new.spec.node_name:
            return
        if change.old is not None and change.old.spec.node_name:
            return
        node = self.state.get(Node, change.new.spec.node_name)
        if node is None:
            return
        here = [
            pod
            for pod in self.state.all(Pod)
            if pod.spec and pod.spec.node_name == node.metadata.name and not is_terminal(pod)
        ]
        for name in ("cpu", "memory"):
            asked, there = sum(request(pod, name) for pod in here), parse_quantity(node.status.allocatable[name])
            if asked > there:
                raise Broken(f"{node.metadata.name}: {name} {float(asked):g} of {float(there):g}")


class Verdict(Rule):
    """The scheduler doesn't say of a pod that is bound that it could not bind it: it has looked before."""

    kinds = (Pod,)

    def check(self, change: Change) -> None:
        if (
            change.part != "scheduler"
            or change.new is None
            or not change.new.spec.node_name
            or change.new.status is None
        ):
            return
        if change.old is None or change.old.spec.node_name is None or change.old.status is None:
            return
        before = {condition.type: condition.reason for condition in change.old.status.conditions}
        for condition in change.new.status.conditions:
            if condition.reason == "SchedulerError" != before.get(condition.type):
                raise Broken(f"{condition.message}, though it is on {change.new.spec.node_name}")


# What objects say


def is_going(obj: Any) -> bool:
    return obj.metadata.deletion_timestamp is not None


def phase(pod: Pod) -> str:
    return (pod.status.phase if pod.status else None) or "Pending"


def is_terminal(pod: Pod) -> bool:
    return phase(pod) in ("Succeeded", "Failed")


def is_ready(pod: Pod) -> bool:
    return bool(pod.status) and any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)


def available_for_s(pod: Pod, now_s: float) -> float:
    """For how long it has been ready, as its status says; less than nothing when it isn't, or has ended."""
    if is_terminal(pod) or is_going(pod) or pod.status is None:
        return -1.0
    since = [c.last_transition_time for c in pod.status.conditions if c.type == "Ready" and c.status == "True"]
    return START_S + now_s - since[0].timestamp() if since and since[0] else -1.0


def owner_uid(obj: Any) -> str | None:
    return next((each.uid for each in obj.metadata.owner_references if each.controller), None)


def is_pod_of_job(obj: Any) -> bool:
    return any(each.kind == "Job" for each in obj.metadata.owner_references)


def selects(owner: Any, obj: Any) -> bool:
    selector = owner.spec.selector
    labels = selector.match_labels if hasattr(selector, "match_labels") else selector
    return labels.items() <= obj.metadata.labels.items()


def node_name(pod: Pod) -> str:
    return (pod.spec.node_name if pod.spec else None) or ""


def node_of(pod: Pod) -> str:
    """Where it is, or is meant to be by its affinity."""
    if node_name(pod):
        return node_name(pod)
    required = pod.spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution
    return str(required.node_selector_terms[0].match_fields[0].values[0])


def request(pod: Pod, name: str) -> Any:
    return sum(
        parse_quantity(container.resources.requests.get(name, "0")) if container.resources else 0
        for container in pod.spec.containers
    )


def created_before(past: Past, pod: Pod, now_s: float) -> bool:
    """So early that everybody knows of it."""
    versions = past.versions.get(pod.metadata.uid or "")
    return bool(versions) and versions[0][0] < now_s - past.slack_s


def replicas_of(workload: Any) -> int:
    return 1 if workload.spec.replicas is None else workload.spec.replicas


def share(written: int | str | None, whole: int, *, up: bool) -> int:
    if isinstance(written, str):
        parts = whole * int(written.rstrip("%"))
        return -(-parts // 100) if up else parts // 100
    return written or 0


def is_recreate(deployment: Deployment) -> bool:
    return bool(deployment.spec.strategy and deployment.spec.strategy.type == "Recreate")


def surge_and_unavailable(deployment: Deployment) -> tuple[int, int]:
    if is_recreate(deployment):
        return 0, replicas_of(deployment)
    rolling = deployment.spec.strategy.rolling_update
    surge = share(rolling.max_surge, replicas_of(deployment), up=True)
    unavailable = share(rolling.max_unavailable, replicas_of(deployment), up=False)
    return surge, unavailable if surge or unavailable else 1


def bare_template(replica_set: ReplicaSet) -> Any:
    template = replica_set.spec.template
    labels = {k: v for k, v in template.metadata.labels.items() if k != "pod-template-hash"}
    return labels, template.metadata.annotations, template.spec


def ordinal_of(pod: Pod) -> int:
    return int((pod.metadata.name or "").rpartition("-")[2])


def ordinals(stateful_set: StatefulSet) -> range:
    start = (stateful_set.spec.ordinals.start if stateful_set.spec.ordinals else 0) or 0
    return range(start, start + replicas_of(stateful_set))


def is_parallel(stateful_set: StatefulSet) -> bool:
    return stateful_set.spec.pod_management_policy == "Parallel"


def _rolling(workload: Any) -> Any:
    return workload.spec.update_strategy.rolling_update if workload.spec.update_strategy else None


def set_unavailable(stateful_set: StatefulSet) -> int:
    rolling = _rolling(stateful_set)
    if rolling is None or rolling.max_unavailable is None:
        return 1
    return max(1, share(rolling.max_unavailable, replicas_of(stateful_set), up=False))


def partition_of(stateful_set: StatefulSet) -> int:
    rolling = _rolling(stateful_set)
    return (rolling.partition if rolling else 0) or 0


def daemon_bounds(daemon_set: DaemonSet, nodes: int) -> tuple[int, int]:
    """Nodes that may be without a pod, and that may have two."""
    rolling = _rolling(daemon_set)
    if rolling is None:
        return nodes, 0
    surge = share(rolling.max_surge, nodes, up=True)
    unavailable = share(rolling.max_unavailable, nodes, up=True)
    return (unavailable, surge) if surge or unavailable else (1, 0)


def most_running(job: Job) -> int:
    spec, status = job.spec, job.status
    parallelism = 1 if spec.parallelism is None else spec.parallelism
    if spec.suspend:
        return 0
    if spec.completions is None:
        return parallelism
    return min(parallelism, spec.completions - ((status.succeeded or 0) if status else 0))


def is_over(job: Job) -> bool:
    return bool(job.status) and any(
        each.type in ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget") and each.status == "True"
        for each in job.status.conditions
    )
