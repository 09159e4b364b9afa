"""What must hold after every write to the store, whatever goes wrong: each rule is a class, and says when it is broken.

A rule judges who decided by what it could know. Caches lag, and a request is on its way for some time: so a decision is
right if it fits any version that an object had in the last `slack_s` seconds (0 would be a world without delay). Pods
and nodes that fail by themselves, and what users do to pods, are nobody's fault: availability is counted by pods that
were available at any moment of that time. Rules about the number of pods (`certain`) hold only where a loop knows what
became of its own writes: after an answer that was lost, or a crash, upstream too may create one pod more, and takes it
away again. The bounds are worked out here anew, not by the product's own functions.
"""

from __future__ import annotations

from tests.simulate.rules.jobs import Counting
from tests.simulate.rules.limits import Budgets, Disruptions, Placement, Preemption, Quotas, Verdict
from tests.simulate.rules.nodes import NodeRanges, Taints
from tests.simulate.rules.owners import Adoption, Collection, Metadata
from tests.simulate.rules.rule import Broken, Past, Rule
from tests.simulate.rules.scaling import Rollbacks, Scaling
from tests.simulate.rules.schedules import Expiry, Schedules, Tokens
from tests.simulate.rules.services import Addresses, Endpoints
from tests.simulate.rules.volumes import Retention, Volumes
from tests.simulate.rules.workloads import Daemons, Ordinals, Replicas, Rollouts
from tests.simulate.world import Change, State

__all__ = ["Broken", "Invariants", "Past"]


RULES: tuple[type[Rule], ...] = (
    Metadata,
    Collection,
    Adoption,
    Rollouts,
    Rollbacks,
    Replicas,
    Ordinals,
    Daemons,
    Scaling,
    Counting,
    Schedules,
    Expiry,
    Tokens,
    Budgets,
    Endpoints,
    Addresses,
    NodeRanges,
    Taints,
    Volumes,
    Retention,
    Quotas,
    Placement,
    Verdict,
    Preemption,
    Disruptions,
)


class Invariants:
    """All rules, over one run."""

    def __init__(self, state: State, past: Past) -> None:
        self.past = past
        self.rules = [rule(state, past) for rule in RULES]

    def check(self, change: Change) -> None:
        """Raises Broken."""
        self.past.note(change)
        for rule in self.rules:
            if not rule.kinds or change.kind in rule.kinds:
                rule.check(change)
