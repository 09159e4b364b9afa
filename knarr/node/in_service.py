"""A pod's way into service and out of it, as the data planes acknowledge it (docs/drain.md).

Upstream has no word for "the change has reached every proxy", so its users put a pause before the end of each pod. Here
the node knows: EndpointSlices tell when a pod has become, or is no longer, an endpoint, and each data plane tells which
revision of them is in force.

* The way out: a pod that is deleted is told to end (preStop, SIGTERM) only when no data plane leads new connections to
  it any more. Meanwhile it serves.
* The way in: a pod that has become ready is in service, and available for a rollout, once all data planes have it.

Both waits have a bound, after which things go on as upstream's do, with an event that says who did not confirm. The
condition knarr.dev/InService shows where a pod is. It is on pods that a Service selects, in clusters with data planes
that acknowledge; all others are as upstream's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from msgspec import Struct

from knarr.api.core.pod_state import IN_SERVICE, WAITING, condition_of, is_ready
from knarr.api.core.v1 import Pod, PodCondition, PodSpec
from knarr.clock import utc
from knarr.node.ephemeral import all_containers
from knarr.node.stopping import GRACE_MIN_S
from knarr.node.traffic import Traffic

Tell = Callable[[str, str, str], None]
"""An event of the pod: its kind, reason and message."""
LOOK_S = 1.0
"""A pod that waits tells so often for whom; the first time after so long, for most waits are over by then."""
ON_THE_WAY_S = 0.1
"""So long a connection that was led here just before all confirmed may still be on its way: on a busy machine, packets
wait for a processor like everybody else."""
UNSEEN_S_MAX = 1.0
"""How long a pod that was deleted just when it became ready may take to show up in an EndpointSlice."""

ACKNOWLEDGED = "Acknowledged"
NOT_ACKNOWLEDGED = "NotAcknowledged"
DRAINING = "Draining"
DRAINED = "Drained"


class Wait(Struct):
    """A wait that has begun."""

    began_s: float
    bound_s: float
    grace_s: float = 0.0
    revision: int = 0
    """That all data planes must show; 0 while no slice says it."""
    confirmed_s: float | None = None
    """When all of them did."""


class InService:
    """Of one pod. The worker asks at each look."""

    def __init__(self, traffic: Traffic | None, pod: Pod, tell: Tell) -> None:
        """Without `traffic` nothing is waited for."""
        self._traffic = traffic
        self._uid = pod.metadata.uid or ""
        self._tell = tell
        self.condition = condition_of(pod, IN_SERVICE) if traffic is not None else None
        """As it should be shown; None for none."""
        self._was_ready = is_ready(pod)
        self._entry: Wait | None = None
        self._exit: Wait | None = None
        self._left = False
        if traffic is not None and self.condition is not None and self.condition.reason == WAITING:
            self._entry = Wait(traffic.clock.monotonic_s(), traffic.bound_s)  # an agent before this one began it

    def close(self) -> None:
        if self._traffic is not None:
            self._traffic.release(self._uid)

    # -- the way in

    def enter(self, pod: Pod, addresses: Collection[str], *, ready: bool) -> float | None:
        """Note whether the pod is ready; answers in how many seconds to ask again, if at all."""
        traffic = self._traffic
        if traffic is None or pod.metadata.deletion_timestamp is not None:
            return None
        if not ready:
            if self._was_ready:
                self._forget()
            return None
        services = traffic.services_of(pod, addresses) if self._entry or not self._was_ready else frozenset()
        if services and not self._was_ready and traffic.concerns(pod):
            self._entry = Wait(traffic.clock.monotonic_s(), traffic.bound_s)
        self._was_ready = True
        if self._entry is None:
            return None
        if not services:
            self._forget(ready=True)
            return None
        return self._entering(traffic, pod, self._entry, services)

    def _forget(self, *, ready: bool = False) -> None:
        self._was_ready, self._entry, self.condition = ready, None, None
        self.close()

    def _entering(self, traffic: Traffic, pod: Pod, wait: Wait, services: frozenset[str]) -> float | None:
        standing = traffic.standing(pod, wait.revision)
        if not wait.revision and standing.leading and services <= standing.services:
            wait.revision = standing.revision
            traffic.standing(pod, wait.revision)
        missing = traffic.data_planes.lagging(wait.revision) if wait.revision else ["the EndpointSlices"]
        rest_s = wait.began_s + wait.bound_s - traffic.clock.monotonic_s()
        if missing and rest_s > 0:
            if wait.bound_s - rest_s >= LOOK_S:
                self._show(pod, "False", WAITING, f"not yet led to by {', '.join(missing)}")
            else:
                self._show(pod, "False", WAITING, "not yet led to by every data plane")
            return _again_s(rest_s, traffic.data_planes.next_death_s())
        self._entry = None
        self.close()
        if missing:
            text = f"not confirmed within {wait.bound_s:g} s by {', '.join(missing)}"
            self._show(pod, "True", NOT_ACKNOWLEDGED, text)
            self._tell("Warning", "NotInService", f"New connections may not come from everywhere yet: {text}")
        else:
            self._show(pod, "True", ACKNOWLEDGED, "every data plane leads new connections to it")
        return None

    # -- the way out

    def leave(self, pod: Pod, grace_s: float) -> float:
        """Of a pod that is being deleted: how many seconds to wait before it is told to end; 0 for no longer."""
        traffic = self._traffic
        if traffic is None or self._left:
            return 0.0
        now_s = traffic.clock.monotonic_s()
        if self._exit is None or grace_s < self._exit.grace_s:
            if self._exit is None and not traffic.concerns(pod):
                return self._go()
            assert pod.spec is not None
            begun = Wait(now_s, drain_bound_s(traffic.bound_s, grace_s, pod.spec), grace_s)
            if self._exit is not None:
                begun.revision = self._exit.revision
            self._exit = begun
        return self._leaving(traffic, pod, self._exit, now_s)

    def spent_s(self) -> float:
        """Of the grace period, with waiting."""
        if self._exit is None or self._traffic is None:
            return 0.0
        return self._traffic.clock.monotonic_s() - self._exit.began_s

    def _leaving(self, traffic: Traffic, pod: Pod, wait: Wait, now_s: float) -> float:
        standing = traffic.standing(pod, wait.revision)
        rest_s = wait.began_s + wait.bound_s - now_s
        if not wait.revision and not standing.leading:
            unseen_s = wait.began_s + UNSEEN_S_MAX - now_s
            if not standing.revision and self._entry is not None and min(unseen_s, rest_s) > 0:
                return min(unseen_s, rest_s)
            if not standing.revision:
                return self._go()  # no endpoint of anything
            wait.revision = standing.revision
            traffic.standing(pod, wait.revision)
        missing = traffic.data_planes.lagging(wait.revision) if wait.revision else ["the EndpointSlices"]
        if not traffic.data_planes.any() or wait.confirmed_s is not None:
            missing = []
        if missing and rest_s > 0:
            if wait.bound_s - rest_s >= LOOK_S:
                self._show(pod, "True", DRAINING, f"still led to by {', '.join(missing)}")
            else:
                self._show(pod, "True", DRAINING, "perhaps still led to by some data plane")
            return _again_s(rest_s, traffic.data_planes.next_death_s())
        if not missing and self.condition is not None:
            wait.confirmed_s = wait.confirmed_s or now_s
            on_the_way_s = min(wait.confirmed_s + ON_THE_WAY_S - now_s, rest_s)
            if on_the_way_s > 0:
                return on_the_way_s
        if missing:
            text = f"not confirmed within {wait.bound_s:g} s by {', '.join(missing)}"
            self._show(pod, "False", NOT_ACKNOWLEDGED, text)
            self._tell("Warning", "NotDrained", f"Stopping, though new connections may still come: {text}")
        elif self.condition is not None:
            took_ms = round((now_s - wait.began_s) * 1000)
            self._show(pod, "False", DRAINED, "no data plane leads new connections to it")
            self._tell("Normal", "Drained", f"No data plane leads new connections here any more, after {took_ms} ms")
        return self._go()

    def _go(self) -> float:
        self._left = True
        self.close()
        return 0.0

    def _show(self, pod: Pod, status: str, reason: str, message: str) -> None:
        assert self._traffic is not None
        old = self.condition
        since = old.last_transition_time if old is not None and old.status == status else None
        self.condition = PodCondition(
            type=IN_SERVICE,
            status=status,
            reason=reason,
            message=message,
            last_transition_time=since or utc(self._traffic.clock.time_s()),
            observed_generation=pod.metadata.generation,
        )


def drain_bound_s(bound_s: float, grace_s: float, spec: PodSpec) -> float:
    """How much of the grace period may be spent with waiting: half of it, and never what a preStop pause needs."""
    hooks = [each.lifecycle.pre_stop for each in all_containers(spec) if each.lifecycle and each.lifecycle.pre_stop]
    pause_s = max((float(hook.sleep.seconds) for hook in hooks if hook.sleep is not None), default=0.0)
    return max(0.0, min(bound_s, grace_s / 2, grace_s - pause_s - GRACE_MIN_S if pause_s else grace_s / 2))


def _again_s(rest_s: float, death_s: float | None) -> float:
    """The pod is woken when all have confirmed; it looks by itself when time is up, and to tell whom it waits for."""
    return max(min(rest_s, LOOK_S if death_s is None else min(LOOK_S, death_s)), 0.001)
