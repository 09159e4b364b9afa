"""How a Deployment divides its pods among its ReplicaSets: the arithmetic of rolling updates and of scaling.

Pure functions. While a rollout runs there are never more than replicas + maxSurge pods, and never fewer than replicas −
maxUnavailable available ones; scaling in the middle of a rollout keeps the proportions.

A ReplicaSet that was told another size may still have the pods of the size before, or be about to make them. Where
upstream counts on the size that was told, here pods that are still there count too, and nothing grows until every
ReplicaSet has seen what it was told: so the bounds hold for pods, not for numbers in specs alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from knarr.api.apps.v1 import Deployment, ReplicaSet
from knarr.api.types import IntOrString
from knarr.controllers.pods import seconds

DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
"""On a ReplicaSet: spec.replicas of the Deployment when it was last scaled."""
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
"""On a ReplicaSet: that number with the surge."""


class Scale(Struct, frozen=True):
    """A ReplicaSet is to have so many pods."""

    replica_set: ReplicaSet
    replicas: int


def replicas_of(replica_set: ReplicaSet) -> int:
    assert replica_set.spec is not None
    return 1 if replica_set.spec.replicas is None else replica_set.spec.replicas


def available_of(replica_set: ReplicaSet) -> int:
    return (replica_set.status.available_replicas if replica_set.status else None) or 0


def stays_available(replica_set: ReplicaSet) -> int:
    """Of its available pods those that it may keep."""
    return min(available_of(replica_set), replicas_of(replica_set))


def pods_at_most(replica_set: ReplicaSet) -> int:
    """Pods that it has, or will have."""
    return max(replicas_of(replica_set), replica_set.status.replicas if replica_set.status else 0)


def is_settled(replica_set: ReplicaSet) -> bool:
    """Its loop has seen the size that it was told last."""
    observed = replica_set.status.observed_generation if replica_set.status else None
    return (observed or 0) >= (replica_set.metadata.generation or 0)


def wanted(deployment: Deployment) -> int:
    assert deployment.spec is not None
    return 1 if deployment.spec.replicas is None else deployment.spec.replicas


def is_rolling(deployment: Deployment) -> bool:
    """RollingUpdate is the default."""
    assert deployment.spec is not None
    strategy = deployment.spec.strategy
    return strategy is None or strategy.type in (None, "", "RollingUpdate")


def fenceposts(deployment: Deployment) -> tuple[int, int]:
    """maxSurge rounded up and maxUnavailable rounded down; if both come to 0, one may be unavailable."""
    assert deployment.spec is not None
    rolling = deployment.spec.strategy.rolling_update if deployment.spec.strategy else None
    replicas = wanted(deployment)
    surge = part_of("25%" if rolling is None else rolling.max_surge, replicas, up=True)
    unavailable = part_of("25%" if rolling is None else rolling.max_unavailable, replicas, up=False)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def max_surge(deployment: Deployment) -> int:
    return fenceposts(deployment)[0] if is_rolling(deployment) else 0


def max_unavailable(deployment: Deployment) -> int:
    if not is_rolling(deployment) or not wanted(deployment):
        return 0
    return min(fenceposts(deployment)[1], wanted(deployment))


def new_replicas(deployment: Deployment, everything: Sequence[ReplicaSet], current: int) -> int:
    """How many pods the new ReplicaSet, that has `current`, may have now."""
    if not is_rolling(deployment):
        return wanted(deployment)
    if not all(map(is_settled, everything)):
        return current
    pods = sum(map(pods_at_most, everything))
    room = wanted(deployment) + max_surge(deployment) - pods
    if room <= 0:
        return current
    return current + min(room, wanted(deployment) - current)


def scale_new(deployment: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> Scale | None:
    """The next step of the new ReplicaSet in a rolling update, if there is one."""
    current = replicas_of(new)
    if current == wanted(deployment):
        return None
    if current > wanted(deployment):
        return Scale(new, wanted(deployment))
    target = new_replicas(deployment, [*old, new], current)
    return Scale(new, target) if target != current else None


def scale_old(deployment: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> list[Scale]:
    """The next steps of the old ReplicaSets in a rolling update.

    Pods that aren't available go first, in any ReplicaSet, for they serve nobody; then available ones, as far as there
    are more than must be. New pods that are not available yet count as if they might never be.
    """
    at_least = wanted(deployment) - max_unavailable(deployment)
    sizes = {id(replica_set): replicas_of(replica_set) for replica_set in old}
    pods = sum(sizes.values()) + replicas_of(new)
    budget = pods - at_least - (replicas_of(new) - stays_available(new))
    if not sum(sizes.values()) or budget <= 0:
        return []
    by_age = sorted(old, key=creation)

    unhealthy = budget
    for replica_set in by_age:
        size = sizes[id(replica_set)]
        down = max(0, min(unhealthy, size - stays_available(replica_set)))
        sizes[id(replica_set)] = size - down
        unhealthy -= down

    spare = sum(map(stays_available, [*old, new])) - at_least
    for replica_set in by_age:
        size = sizes[id(replica_set)]
        down = max(0, min(spare, size))
        sizes[id(replica_set)] = size - down
        spare -= down

    return [Scale(rs, sizes[id(rs)]) for rs in by_age if sizes[id(rs)] != replicas_of(rs)]


def scale_all(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> list[Scale]:
    """The steps after somebody changed spec.replicas, or while the Deployment is paused."""
    only = active_or_latest(new, old)
    if only is not None:
        # Of the right size already, it still has to remember the size: else scaling never ends (upstream's doesn't).
        right = replicas_of(only) == wanted(deployment) and not is_scaling(deployment, [only])
        return [] if right else [Scale(only, wanted(deployment))]
    if new is not None and is_saturated(deployment, new):
        return [Scale(replica_set, 0) for replica_set in old if replicas_of(replica_set)]
    if is_rolling(deployment):
        return proportionally(deployment, new, old)
    # A Recreate has no proportions: each remembers the size, scaling is over, and the old ones go (upstream's stay).
    return [Scale(replica_set, replicas_of(replica_set)) for replica_set in ([*old, new] if new else old)]


def active_or_latest(new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> ReplicaSet | None:
    """The one ReplicaSet that has pods; the newest when none has; None when several have."""
    active = [rs for rs in ([*old, new] if new else old) if replicas_of(rs)]
    if len(active) > 1:
        return None
    if active:
        return active[0]
    if new is not None or not old:
        return new
    return max(old, key=creation)


def is_saturated(deployment: Deployment, new: ReplicaSet) -> bool:
    """The new ReplicaSet does all of the Deployment's work."""
    return replicas_of(new) == available_of(new) == wanted(deployment) and new.metadata.annotations.get(
        DESIRED_REPLICAS
    ) == str(wanted(deployment))


def proportionally(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> list[Scale]:
    """Share what is to be added or removed by size; what rounding leaves over goes to the largest.

    Upstream stops when the largest has come to nothing, and keeps a pod too many; here the next one takes the rest.
    """
    active = [rs for rs in ([*old, new] if new else old) if replicas_of(rs)]
    allowed = wanted(deployment) + max_surge(deployment) if wanted(deployment) else 0
    change = allowed - sum(replicas_of(replica_set) for replica_set in active)
    if change > 0 and not all(map(is_settled, active)):
        return []
    # The largest first; among equals the newest when pods are added, the oldest when they are removed.
    active.sort(key=creation, reverse=change > 0)
    active.sort(key=replicas_of, reverse=True)

    done = 0
    sizes: list[int] = []
    for replica_set in active:
        share = _share(deployment, replica_set, change, change - done) if change else 0
        sizes.append(replicas_of(replica_set) + share)
        done += share
    left = change - done
    for place, size in enumerate(sizes):
        sizes[place] = max(0, size + left)
        left -= sizes[place] - size
    return [Scale(replica_set, size) for replica_set, size in zip(active, sizes, strict=True)]


def is_scaling(deployment: Deployment, replica_sets: Sequence[ReplicaSet]) -> bool:
    """spec.replicas was changed since a ReplicaSet with pods was last scaled."""
    for replica_set in replica_sets:
        desired = _number(replica_set, DESIRED_REPLICAS)
        if replicas_of(replica_set) and desired is not None and desired != wanted(deployment):
            return True
    return False


def size_annotations(deployment: Deployment) -> dict[str, str]:
    """What a ReplicaSet remembers of the Deployment's size."""
    replicas = wanted(deployment)
    return {DESIRED_REPLICAS: str(replicas), MAX_REPLICAS: str(replicas + max_surge(deployment))}


def creation(replica_set: ReplicaSet) -> tuple[float, str]:
    """Sorts by age, the oldest first."""
    created = replica_set.metadata.creation_timestamp
    return (seconds(created) if created else 0.0, replica_set.metadata.name or "")


def _share(deployment: Deployment, replica_set: ReplicaSet, change: int, left: int) -> int:
    """The part of `change` that falls to one ReplicaSet, at most what is `left` of it."""
    size = replicas_of(replica_set)
    if not size or not left:
        return 0
    if not wanted(deployment):
        fraction = -size
    else:
        before = _number(replica_set, MAX_REPLICAS) or (deployment.status.replicas if deployment.status else None)
        if not before:
            return 0
        scaled = size * (wanted(deployment) + max_surge(deployment)) / before
        fraction = int(scaled + 0.5) - size
    return min(fraction, left) if change > 0 else max(fraction, left)


def _number(replica_set: ReplicaSet, annotation: str) -> int | None:
    written = replica_set.metadata.annotations.get(annotation, "")
    return int(written) if written.isascii() and written.isdigit() else None


def part_of(written: IntOrString | None, whole: int, *, up: bool) -> int:
    """A number, or a percentage of `whole`."""
    if written is None:
        return 0
    if isinstance(written, int):
        return written
    if not written.endswith("%") or not written[:-1].isdigit():
        return 0
    scaled = whole * int(written[:-1])
    return -(-scaled // 100) if up else scaled // 100
