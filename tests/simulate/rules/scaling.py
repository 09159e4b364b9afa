"""Autoscalers follow what is asked, no further and no faster than allowed; rollbacks lead to what was complete once."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from knarr.api.apps.v1 import Deployment, ReplicaSet
from knarr.api.autoscaling.v2 import HorizontalPodAutoscaler
from tests.simulate.objects import bare_template, bounds_of, owner_uid, replicas_of, wanted_for
from tests.simulate.rules.rule import Broken, Past, Rule
from tests.simulate.world import Change, State

LOOK_S = 4.0
"""An autoscaler has looked twice in so long."""
HELD_S = 10.0
"""A load that stays for so long is seen in any case."""
WINDOW_DEFAULT_S = 300


class Scaling(Rule):
    """Within its bounds; up only for what is asked, down only when it is asked no more; by its policies."""

    kinds = (Deployment,)

    def __init__(self, state: State, past: Past) -> None:
        super().__init__(state, past)
        self.steps: dict[str, list[tuple[float, int]]] = defaultdict(list)
        """By uid of the autoscaler: when it added so many (less than 0: took away)."""

    def check(self, change: Change) -> None:
        old, new = change.old, change.new
        if change.part != "horizontal-pod-autoscaler-controller" or old is None or new is None:
            return
        before, after = replicas_of(old), replicas_of(new)
        autoscaler = self.state.get(HorizontalPodAutoscaler, change.key)
        if autoscaler is None or before == after:
            return
        known = list(self.past.known(autoscaler, change.now_s))
        bounds = [bounds_of(each) for each in known]
        if not any(least <= after <= most for least, most in bounds):
            raise Broken(f"{after} replicas, its bounds are {bounds[0]}")
        if after > before and before >= max(least for least, _ in bounds):
            self._up(known, after, change)
        elif after < before and before <= min(most for _, most in bounds):
            self._down(known, after, change)
        if self.past.certain:
            self._policies(known, after - before, change)
        self.steps[autoscaler.metadata.uid or ""].append((change.now_s, after - before))

    def _up(self, known: list[Any], after: int, change: Change) -> None:
        """Without a behavior, what was recommended in the last minutes brings replicas back too."""
        if any(each.spec.behavior is None for each in known):
            return
        load_m = self.state.loads.most_m(change.new.metadata.name, change.now_s - self.past.slack_s - LOOK_S)
        most = max(wanted_for(each, load_m)[1] for each in known)
        if after > most:
            raise Broken(f"{after} replicas, at most {most} are needed for {load_m}m")

    def _down(self, known: list[Any], after: int, change: Change) -> None:
        """Where what is measured and the pods that are known fit each other, and nothing is forgotten."""
        if not self.past.certain or not self.past.prompt:
            return
        window_s = min(window_of(each) for each in known)
        now_s, slack_s = change.now_s, self.past.slack_s
        load_m = self.state.loads.held_m(change.new.metadata.name, now_s - window_s + slack_s, now_s, HELD_S + slack_s)
        least = min(wanted_for(each, load_m)[0] for each in known)
        if after < least:
            raise Broken(f"{after} replicas, {load_m}m wanted {least} within {window_s} s")

    def _policies(self, known: list[Any], step: int, change: Change) -> None:
        up = step > 0
        rules = [
            (each.spec.behavior.scale_up if up else each.spec.behavior.scale_down)
            for each in known
            if each.spec.behavior
        ]
        if len(rules) < len(known):
            return
        if any(not bounds_of(each)[0] <= replicas_of(change.old) <= bounds_of(each)[1] for each in known):
            return  # out of bounds: it comes back at once
        (policy,) = rules[0].policies
        steps = self.steps[known[0].metadata.uid or ""]
        recent = [
            each
            for at_s, each in steps
            if at_s > change.now_s - policy.period_seconds + self.past.flight_s + LOOK_S / 2
        ]
        other = [
            each for at_s, each in steps if at_s > change.now_s - policy.period_seconds - self.past.flight_s - LOOK_S
        ]
        same = abs(step) + sum(abs(each) for each in recent if (each > 0) == up)
        back = sum(abs(each) for each in other if (each > 0) != up)
        if same - back > policy.value:
            raise Broken(f"{same} at once, {policy.value} in {policy.period_seconds} s at most")


class Rollbacks(Rule):
    """What a rollback restores was complete once, and what it leaves was not; it never goes to and fro by itself."""

    kinds = (Deployment,)

    def __init__(self, state: State, past: Past) -> None:
        super().__init__(state, past)
        self.left: dict[str, int] = defaultdict(int)
        """By uid: how often it was rolled back since a user changed its template."""

    def check(self, change: Change) -> None:
        old, new = change.old, change.new
        if old is None or new is None or old.spec.template == new.spec.template:
            return
        uid = new.metadata.uid
        if change.part != "rollback-controller":
            self.left[uid] = 0
            return
        self.left[uid] += 1
        if self.left[uid] > 1:
            raise Broken("rolled back again, though nobody has changed it")
        if old.metadata.annotations.get("knarr.dev/rollback-on-failure") != "true":
            raise Broken("rolled back, and did not ask for it")
        sets = [each for each in self.state.all(ReplicaSet, new.metadata.namespace) if owner_uid(each) == uid]
        done = [each for each in sets if "knarr.dev/rollout-completed" in each.metadata.annotations]
        if not any(bare_template(each)[2] == new.spec.template.spec for each in done):
            raise Broken("rolled back to what was never complete")
        if any(bare_template(each)[2] == old.spec.template.spec for each in done):
            raise Broken("rolled back from what was complete")


def window_of(autoscaler: Any) -> int:
    behavior = autoscaler.spec.behavior
    window_s = behavior.scale_down.stabilization_window_seconds if behavior else None
    return WINDOW_DEFAULT_S if window_s is None else int(window_s)
