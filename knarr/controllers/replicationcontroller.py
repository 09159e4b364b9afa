"""ReplicationControllers: the elders of ReplicaSets, with the same loop.

They select by plain labels, know nothing of terminating pods, and no Deployment stands above them.
"""

from __future__ import annotations

from typing import Any

from knarr.api.core.v1 import ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus
from knarr.api.meta.owners import selector_for
from knarr.api.meta.v1 import LabelSelector
from knarr.api.selectors import Selector
from knarr.controllers.replicaset import ReplicaSets, Seen, conditions_of, counts_of


class ReplicationControllers(ReplicaSets):
    """v1 ReplicationController."""

    name = "replication-controller"
    kind = ReplicationController

    def selector(self, replica_set: Any) -> Selector | None:
        return selector_for(LabelSelector(match_labels=replica_set.spec.selector))

    def status(self, replica_set: Any, seen: Seen) -> Any:
        now_s = self.clock.time_s()
        conditions = conditions_of(replica_set, ReplicationControllerCondition, seen.failure, now_s)
        return ReplicationControllerStatus(**counts_of(replica_set, seen, now_s), conditions=conditions)
