"""Nobody is brought to a node that does not want them, and nobody is sent away who may stay."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from knarr.api.core.v1 import Node, Pod
from tests.simulate.objects import is_going, is_terminal, node_name
from tests.simulate.rules.rule import Broken, Past, Rule, is_deletion
from tests.simulate.world import Change, State

STAY_MAX_S = 30.0
"""A pod is away from a node that sends all away no later, beside what the weather takes."""


class NodeRanges(Rule):
    """No two nodes have one range of addresses."""

    kinds = (Node,)

    def check(self, change: Change) -> None:
        node = change.new
        if node is None or not node.spec.pod_cidr:
            return
        for other in self.state.all(Node):
            if other.metadata.uid != node.metadata.uid and other.spec.pod_cidr == node.spec.pod_cidr:
                raise Broken(f"it has {node.spec.pod_cidr}, as {other.metadata.name} has")


class Taints(Rule):
    kinds = (Pod, Node)

    def __init__(self, state: State, past: Past) -> None:
        super().__init__(state, past)
        self.tainted_s: dict[tuple[str, str], float] = defaultdict(float)
        """Node and taint that sends away: since when."""

    def check(self, change: Change) -> None:
        if change.kind is Node:
            self._node(change)
        elif change.part == "scheduler" and change.new is not None and node_name(change.new):
            if change.old is None or not node_name(change.old):
                self._brought(change)
        elif change.part == "taint-eviction-controller" and is_deletion(change):
            self._sent_away(change)
        for (name, key), since_s in self.tainted_s.items():
            if change.now_s - since_s > STAY_MAX_S + self.past.slack_s + self.past.flight_s:
                self._staying(name, key)

    def _node(self, change: Change) -> None:
        name = (change.new or change.old).metadata.name
        now = {(name, each.key) for each in taints(change.new, "NoExecute")} if change.new is not None else set()
        for entry in [each for each in self.tainted_s if each[0] == name and each not in now]:
            del self.tainted_s[entry]
        for entry in now:
            self.tainted_s.setdefault(entry, change.now_s)

    def _brought(self, change: Change) -> None:
        pod = change.new
        node = self.state.get(Node, node_name(pod))
        if node is None or not self.past.known_to_all(node, change.now_s):
            return  # the one that had its name before may be meant
        known = list(self.past.known(node, change.now_s))
        always = set.intersection(*(unwanted(pod, version) for version in known))
        if always:
            raise Broken(f"{pod.metadata.name} was brought to {node.metadata.name}, which has {sorted(always)}")
        daemon = any(each.key == "node.kubernetes.io/unschedulable" for each in pod.spec.tolerations)
        if all(version.spec.unschedulable for version in known) and not daemon:
            raise Broken(f"{pod.metadata.name} was brought to {node.metadata.name}, which is unschedulable")

    def _sent_away(self, change: Change) -> None:
        pod = change.old
        node = self.state.get(Node, node_name(pod))
        known = self.past.known(node, change.now_s) if node is not None else ()
        if node is not None and not any(taints(each, "NoExecute") for each in known):
            raise Broken(f"{pod.metadata.name} was sent away from {node.metadata.name}, which has no taint")

    def _staying(self, name: str, key: str) -> None:
        node = self.state.get(Node, name)
        for pod in self.state.all(Pod):
            if node_name(pod) != name or is_going(pod) or is_terminal(pod):
                continue
            if any(each.key == key and not tolerates(pod, each) for each in taints(node, "NoExecute")):
                raise Broken(f"{pod.metadata.name} stays on {name}, which has {key}")


def unwanted(pod: Pod, node: Any) -> set[str]:
    """The taints of a node by which it does not want a pod."""
    found = (*taints(node, "NoSchedule"), *taints(node, "NoExecute"))
    return {each.key for each in found if not tolerates(pod, each)}


def taints(node: Any, effect: str) -> list[Any]:
    return [each for each in node.spec.taints if each.effect == effect] if node is not None and node.spec else []


def tolerates(pod: Pod, taint: Any) -> bool:
    """Stories write tolerations by key and effect, with Exists."""
    return any(
        (not each.key or each.key == taint.key) and (not each.effect or each.effect == taint.effect)
        for each in pod.spec.tolerations
    )
