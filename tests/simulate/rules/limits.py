"""Budgets, quotas and nodes are not overdrawn."""

from __future__ import annotations

from knarr.api.apps.v1 import Deployment, StatefulSet
from knarr.api.core.v1 import Node, Pod, ResourceQuota
from knarr.api.policy.v1 import PodDisruptionBudget
from knarr.api.quantity import parse_quantity
from knarr.simulate.clock import START_S
from tests.simulate.objects import is_going, is_ready, is_terminal, node_name, replicas_of, request, selects
from tests.simulate.rules.rule import Broken, Past, Rule, is_deletion
from tests.simulate.world import Change, State


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


class Preemption(Rule):
    """The scheduler sends nobody away but for a pod that matters more, and that does not wait in patience."""

    kinds = (Pod,)

    def check(self, change: Change) -> None:
        if change.part != "scheduler" or not is_deletion(change):
            return
        victim = change.old
        lately = change.now_s - self.past.slack_s - self.past.flight_s
        gone = [uid for uid, gone_s in self.past.gone_s.items() if gone_s >= lately and self.past.versions.get(uid)]
        last = [self.past.versions[uid][-1][1] for uid in gone]
        pods = [*self.state.all(Pod), *(each for each in last if isinstance(each, Pod))]
        if not any(self._may_preempt(pod, victim, change) for pod in pods):
            raise Broken(f"{victim.metadata.name} was sent away, and nobody who waits matters more")

    def _may_preempt(self, pod: Pod, victim: Pod, change: Change) -> bool:
        matters = (pod.spec.priority or 0) > (victim.spec.priority or 0)
        waits = any(not node_name(each) for each in self.past.known(pod, change.now_s))
        return matters and waits and pod.spec.preemption_policy != "Never"


class Disruptions(Rule):
    """That a pod is said to go is taken back only after two minutes in which nobody has deleted it."""

    kinds = (Pod,)

    def check(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.part != "stale-disruption-controller" or old is None or new is None:
            return
        for before in old.status.conditions:
            if before.type == "DisruptionTarget" and before.status == "True":
                age_s = START_S + change.now_s - before.last_transition_time.timestamp()
                if age_s < 120:
                    raise Broken(f"taken back after {age_s:.0f} s")
