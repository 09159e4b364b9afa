"""Back-off of crashing containers and failing pulls: 10 s, doubling to 5 minutes, anew after 10 quiet minutes.

The first repeat is immediate; it is the second failure that waits (client-go's flowcontrol.Backoff, as the kubelet
uses it).
"""

from __future__ import annotations

from msgspec import Struct

BACK_OFF_MIN_S = 10.0
BACK_OFF_MAX_S = 300.0
QUIET_S = 2 * BACK_OFF_MAX_S
"""Without a failure for so long, the count begins anew."""
RETRY_S = 2.0
"""Before a sandbox or volumes that could not be made are tried again; doubles up to 5 minutes."""


class BackOff(Struct):
    """One thing that may fail again and again."""

    delay_s: float = 0.0
    updated_s: float = float("-inf")

    def until_s(self, failed_s: float, now_s: float) -> float:
        """When the next try is due, after a failure at `failed_s`."""
        return failed_s if now_s - self.updated_s > QUIET_S else failed_s + self.delay_s

    def tried(self, now_s: float) -> None:
        """A try begins: the next wait is longer."""
        if now_s - self.updated_s > QUIET_S:
            self.delay_s = 0.0
        self.delay_s = min(max(self.delay_s * 2, BACK_OFF_MIN_S), BACK_OFF_MAX_S)
        self.updated_s = now_s


class Retry(Struct):
    """When what a pod needs before its containers is tried again."""

    at_s: float = 0.0
    delay_s: float = RETRY_S

    def later(self, now_s: float) -> None:
        """It has failed."""
        self.at_s = now_s + self.delay_s
        self.delay_s = min(self.delay_s * 2, BACK_OFF_MAX_S)

    def anew(self) -> None:
        self.delay_s = RETRY_S


def shown(delay_s: float) -> str:
    """A duration as Go prints it: 10s, 1m20s, 5m0s."""
    minutes, seconds = divmod(round(delay_s), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
