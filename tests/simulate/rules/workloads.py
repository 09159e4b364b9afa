"""Deployments, ReplicaSets, StatefulSets and DaemonSets keep their bounds."""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api.apps.v1 import DaemonSet, Deployment, ReplicaSet, StatefulSet
from knarr.api.core.v1 import Node, Pod, ReplicationController
from tests.simulate.objects import (
    available_for_s,
    bare_template,
    daemon_bounds,
    is_going,
    is_on_delete,
    is_parallel,
    is_recreate,
    is_terminal,
    node_of,
    ordinal_of,
    ordinals,
    owner_uid,
    partition_of,
    replicas_of,
    set_unavailable,
    surge_and_unavailable,
)
from tests.simulate.rules.nodes import unwanted
from tests.simulate.rules.rule import Broken, Past, Rule
from tests.simulate.world import Change, State


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
        total = sum(
            each.spec.replicas or 0
            for each in siblings
            if each is new or not self.past.may_have_forgotten(change.part, each, change.now_s)
        )
        most = max(replicas_of(each) + surge_and_unavailable(each)[0] for each in known)
        if total > most:
            raise Broken(f"{total} replicas wanted, at most {most}")
        if all(each.spec.strategy and each.spec.strategy.type == "Recreate" for each in known if each.spec):
            others = [each for each in siblings if each.metadata.uid != new.metadata.uid]
            left = [
                pod.metadata.name
                for each in others
                for pod in self.pods_of(each)
                if not is_terminal(pod) and self.past.known_to_all(pod, change.now_s)
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
        least = min(replicas_of(each) - surge_and_unavailable(each)[1] for each in known)
        if change.old.status and not (change.old.status.available_replicas or 0):
            return  # none of those that serve was taken away
        others = sum(
            min(each.spec.replicas or 0, max(map(available_of, self.past.known(each, change.now_s))))
            for each in siblings
            if each.spec and each.metadata.uid != change.new.metadata.uid
        )
        after = change.new.spec.replicas or 0
        # By any of the versions it may have decided; and those that don't serve it may always take.
        served = all(available_of(each) > after for each in self.past.known(change.new, change.now_s))
        if served and others + after < least:
            raise Broken(f"{others + after} stay available, at least {least}")


def available_of(replica_set: ReplicaSet) -> int:
    return (replica_set.status.available_replicas or 0) if replica_set.status else 0


class Replicas(Rule):
    """A ReplicaSet or ReplicationController makes no pod more than it is to, where it knows of those that it made."""

    kinds = (Pod,)

    def check(self, change: Change) -> None:
        owning = {"replicaset-controller": ReplicaSet, "replication-controller": ReplicationController}
        if change.part not in owning or change.old is not None or not self.past.certain:
            return
        replica_set = self.owner_of(owning[change.part], change.new)
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
        if "orphan" in known[0].metadata.finalizers:
            return  # the collector takes its pods from it; this one was on its way before
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
        if all(is_on_delete(each) and ordinal in ordinals(each) for each in known):
            raise Broken("deleted, and its update strategy is OnDelete")
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
            # One that went for its update is not waited for, when it has become too many, as the last is.
            and not any({ordinal, ordinal_of(each)}.isdisjoint(ordinals(version)) for version in known)
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
        nodes = {
            node.metadata.name
            for node in self.state.all(Node)
            if not any(unwanted(change.old, version) for version in self.past.known(node, change.now_s))
        }
        here = node_of(change.old)
        if here not in nodes or sum(node_of(pod) == here for pod in pods):
            return  # it goes because it is one too many, or because its node does not want it
        if all(is_on_delete(each) for each in known):
            raise Broken("deleted, and its update strategy is OnDelete")
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
