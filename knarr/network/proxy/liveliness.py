"""Whether a proxy keeps its rules up to date, and whether its node is one to send new connections to (KEP-3836)."""

from __future__ import annotations

from knarr.api.core.v1 import Node
from knarr.clock import Clock

DELETION_TAINT = "ToBeDeletedByClusterAutoscaler"
"""What the cluster autoscaler puts on a node before it removes it."""
HEALTH_TIMEOUT_S = 60.0
"""A change that isn't in the rules for so long means that they aren't kept up to date: two checks, as upstream."""


class ProxyHealth:
    """What a proxy knows of itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pending_since_s: float | None = None
        self.updated_at_s = clock.time_s()
        self.node_eligible = True

    @property
    def is_healthy(self) -> bool:
        since_s = self._pending_since_s
        return since_s is None or self._clock.monotonic_s() - since_s < HEALTH_TIMEOUT_S

    def queued(self) -> None:
        """Something changed that the rules don't show yet."""
        if self._pending_since_s is None:
            self._pending_since_s = self._clock.monotonic_s()

    def updated(self) -> None:
        """The rules show all that was known when they were written."""
        self._pending_since_s = None
        self.updated_at_s = self._clock.time_s()


def is_eligible(node: Node | None) -> bool:
    """Not one that is gone, being deleted, or about to be."""
    if node is None or node.metadata.deletion_timestamp:
        return False
    return not any(each.key == DELETION_TAINT for each in (node.spec.taints if node.spec else []))
