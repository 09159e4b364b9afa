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

from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address

from msgspec import Struct

from knarr.api.core.pod_state import IN_SERVICE, condition_of, is_ready
from knarr.api.core.service_selection import has_pods, selects
from knarr.api.core.v1 import Pod, PodCondition, PodSpec, Service
from knarr.client.informer import Informers
from knarr.clock import Clock, utc
from knarr.node.data_planes import DataPlanes
from knarr.node.endpoints import Endpoints, Standing
from knarr.node.ephemeral import all_containers
from knarr.node.pod_health import Tell
from knarr.node.stopping import GRACE_MIN_S

SWITCH = "knarr.dev/acknowledged-drain"
"""Annotation of a pod: "false" for upstream's behaviour."""
DRAIN_S_MAX = 10.0
"""How long the data planes are waited for by default."""
UNSEEN_S_MAX = 1.0
"""How long a pod that was deleted just when it became ready may take to show up in an EndpointSlice."""

WAITING = "WaitingForDataPlanes"
ACKNOWLEDGED = "Acknowledged"
NOT_ACKNOWLEDGED = "NotAcknowledged"
DRAINING = "Draining"
DRAINED = "Drained"


class Traffic:
    """What leads connections to the pods of a node, and who waits for a change of it."""

    def __init__(
        self,
        informers: Informers,
        clock: Clock,
        services: Callable[[str], Iterable[Service]],
        wake: Callable[[str], None],
        bound_s: float = DRAIN_S_MAX,
    ) -> None:
        """`services` answers those of a namespace; `wake` has the pod of a uid look again."""
        self.clock = clock
        self.bound_s = bound_s
        self._services = services
        self._wake = wake
        self._waiting: dict[str, int] = {}
        """Pods that wait, by uid, and the revision that is to be acknowledged; 0 while that isn't known."""
        self.data_planes = DataPlanes(informers, clock, self._acknowledged)
        self.endpoints = Endpoints(informers, wake)

    def concerns(self, pod: Pod) -> bool:
        """Whether anybody could be waited for."""
        wanted = self.bound_s > 0 and pod.metadata.annotations.get(SWITCH) != "false"
        return wanted and self.data_planes.any()

    def services_of(self, pod: Pod, addresses: Collection[str]) -> frozenset[str]:
        """The names of the Services of which a pod with these addresses becomes an endpoint."""
        families = {f"IPv{ip_address(address).version}" for address in addresses}
        return frozenset(
            service.metadata.name or ""
            for service in self._services(pod.metadata.namespace or "")
            if service.metadata.namespace == pod.metadata.namespace
            and has_pods(service)
            and selects(service, pod.metadata.labels)
            and families & set((service.spec and service.spec.ip_families) or families)
        )

    def standing(self, pod: Pod, revision: int) -> Standing:
        """Of a pod that waits for `revision`: it is woken when that, or the standing, changes."""
        uid = pod.metadata.uid or ""
        self._waiting[uid] = revision
        return self.endpoints.follow(uid, pod.metadata.namespace or "")

    def release(self, uid: str) -> None:
        """It waits no more."""
        self._waiting.pop(uid, None)
        self.endpoints.forget(uid)

    def _acknowledged(self) -> None:
        for uid, revision in list(self._waiting.items()):
            if revision and not self.data_planes.lagging(revision):
                self._wake(uid)


class Wait(Struct):
    """A wait that has begun."""

    began_s: float
    bound_s: float
    grace_s: float = 0.0
    services: frozenset[str] = frozenset()
    revision: int = 0
    """That all data planes must show; 0 while no slice says it."""


class InService:
    """Of one pod. The worker asks at each look."""

    def __init__(self, traffic: Traffic | None, pod: Pod, tell: Tell) -> None:
        """Without `traffic` nothing is waited for."""
        self._traffic = traffic
        self._uid = pod.metadata.uid or ""
        self._tell = tell
        self.condition = condition_of(pod, IN_SERVICE)
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
        if not self._was_ready:
            self._was_ready = True
            services = traffic.services_of(pod, addresses) if traffic.concerns(pod) else frozenset()
            if services:
                self._entry = Wait(traffic.clock.monotonic_s(), traffic.bound_s, services=services)
        return self._entering(traffic, pod, self._entry) if self._entry is not None else None

    def _forget(self) -> None:
        self._was_ready, self._entry, self.condition = False, None, None
        self.close()

    def _entering(self, traffic: Traffic, pod: Pod, wait: Wait) -> float | None:
        standing = traffic.standing(pod, wait.revision)
        if not wait.revision and standing.leading and wait.services <= standing.services:
            wait.revision = standing.revision
            traffic.standing(pod, wait.revision)
        missing = traffic.data_planes.lagging(wait.revision) if wait.revision else ["the EndpointSlices"]
        rest_s = wait.began_s + wait.bound_s - traffic.clock.monotonic_s()
        if missing and rest_s > 0:
            self._show(pod, "False", WAITING, f"not yet led to by {', '.join(missing)}")
            return _sooner(rest_s, traffic.data_planes.next_death_s())
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
        if not traffic.data_planes.any():
            missing = []
        if missing and rest_s > 0:
            self._show(pod, "True", DRAINING, f"still led to by {', '.join(missing)}")
            return _sooner(rest_s, traffic.data_planes.next_death_s())
        if missing:
            text = f"not confirmed within {wait.bound_s:g} s by {', '.join(missing)}"
            self._show(pod, "False", NOT_ACKNOWLEDGED, text)
            self._tell("Warning", "NotDrained", f"Stopping, though new connections may still come: {text}")
        else:
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


def _sooner(rest_s: float, other_s: float | None) -> float:
    return rest_s if other_s is None else max(min(rest_s, other_s), 0.001)
