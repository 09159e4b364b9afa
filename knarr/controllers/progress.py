"""What a Deployment says of itself: its status, and whether its rollout progresses, is complete or is stuck.

Pure functions. A rollout that has made no progress for progressDeadlineSeconds is reported, not undone: condition
Progressing is False with reason ProgressDeadlineExceeded, and the Deployment works on.
"""

from __future__ import annotations

from collections.abc import Sequence

from knarr.api.apps.v1 import Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet
from knarr.api.types import replace
from knarr.clock import utc
from knarr.controllers.pods import seconds
from knarr.controllers.revisions import REVISION, revision_of
from knarr.controllers.rolling import available_of, max_unavailable, replicas_of, wanted

AVAILABLE = "Available"
PROGRESSING = "Progressing"
REPLICA_FAILURE = "ReplicaFailure"

NEW_REPLICA_SET_AVAILABLE = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"
PAUSED = "DeploymentPaused"

DEADLINE_MARGIN_S = 1.0
"""Conditions hold whole seconds: the deadline is over for certain one second later."""


def has_deadline(deployment: Deployment) -> bool:
    assert deployment.spec is not None
    return deployment.spec.progress_deadline_seconds not in (None, 2**31 - 1)


def status_of(
    deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet], now_s: float
) -> DeploymentStatus:
    """The numbers, and whether enough is available; Progressing and ReplicaFailure stay as they are."""
    everything = [*old, new] if new else list(old)
    available = sum(map(available_of, everything))
    total = sum(map(replicas_of, everything))
    before = deployment.status or DeploymentStatus()
    status = DeploymentStatus(
        observed_generation=deployment.metadata.generation,
        replicas=sum(map(_actual, everything)) or None,
        updated_replicas=(_actual(new) if new else 0) or None,
        ready_replicas=sum((rs.status.ready_replicas or 0) for rs in everything if rs.status) or None,
        available_replicas=available or None,
        unavailable_replicas=max(0, total - available) or None,
        terminating_replicas=_terminating(everything),
        collision_count=before.collision_count,
        conditions=before.conditions,
    )
    if available >= wanted(deployment) - max_unavailable(deployment):
        condition = (AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    else:
        condition = (
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    return with_condition(status, *condition, now_s)


def rollout_status_of(
    deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet], now_s: float
) -> DeploymentStatus:
    """The whole status in the course of a rollout."""
    status = status_of(deployment, new, old, now_s)
    if not has_deadline(deployment):
        status = without_condition(status, PROGRESSING)
    elif not _was_complete(deployment, status):
        status = _with_progress(deployment, status, new, now_s)
    return _with_failures(status, new, old)


def next_check_s(deployment: Deployment, status: DeploymentStatus, now_s: float) -> float | None:
    """Seconds until the deadline of a rollout that doesn't progress."""
    condition = condition_of(status, PROGRESSING)
    if not has_deadline(deployment) or condition is None or condition.last_update_time is None:
        return None
    if is_complete(deployment, status) or condition.reason == TIMED_OUT:
        return None
    return max(0.0, _deadline_s(deployment, condition) - now_s) + DEADLINE_MARGIN_S


def is_unnoted(deployment: Deployment, new: ReplicaSet) -> bool:
    """The beginning of this rollout was never told: the loop died, or an answer was lost, after its ReplicaSet came."""
    condition = condition_of(deployment.status, PROGRESSING)
    noted = deployment.metadata.annotations.get(REVISION)
    told = condition is None or condition.reason != NEW_REPLICA_SET_AVAILABLE
    return not told and noted is not None and noted != str(revision_of(new))


def is_complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    """All pods are of the present template and available, and no other is left."""
    return (status.updated_replicas or 0) == (status.replicas or 0) == (status.available_replicas or 0) == wanted(
        deployment
    ) and (status.observed_generation or 0) >= (deployment.metadata.generation or 0)


def condition_of(status: DeploymentStatus | None, type_: str) -> DeploymentCondition | None:
    return next((c for c in status.conditions if c.type == type_), None) if status else None


def with_condition(
    status: DeploymentStatus, type_: str, value: str, reason: str, message: str, now_s: float
) -> DeploymentStatus:
    """The condition set; unchanged while status and reason stay, and with its transition time while status stays."""
    current = condition_of(status, type_)
    if current and current.status == value and current.reason == reason:
        return status
    now = utc(now_s)
    condition = DeploymentCondition(
        type=type_,
        status=value,
        reason=reason,
        message=message,
        last_update_time=now,
        last_transition_time=current.last_transition_time if current and current.status == value else now,
    )
    return _put(status, condition)


def without_condition(status: DeploymentStatus, type_: str) -> DeploymentStatus:
    return replace(status, conditions=[c for c in status.conditions if c.type != type_])


def _with_progress(
    deployment: Deployment, status: DeploymentStatus, new: ReplicaSet | None, now_s: float
) -> DeploymentStatus:
    subject = f'ReplicaSet "{new.metadata.name}"' if new else f'Deployment "{deployment.metadata.name}"'
    if is_complete(deployment, status):
        message = f"{subject} has successfully progressed."
        return with_condition(status, PROGRESSING, "True", NEW_REPLICA_SET_AVAILABLE, message, now_s)
    if _has_progressed(deployment.status or DeploymentStatus(), status):
        # Set anew each time, for its update time is what the deadline counts from.
        current = condition_of(status, PROGRESSING)
        condition = DeploymentCondition(
            type=PROGRESSING,
            status="True",
            reason="ReplicaSetUpdated",
            message=f"{subject} is progressing.",
            last_update_time=utc(now_s),
            last_transition_time=(current.last_transition_time if current and current.status == "True" else utc(now_s)),
        )
        return _put(status, condition)
    if _is_timed_out(deployment, status, now_s):
        message = f"{subject} has timed out progressing."
        return with_condition(status, PROGRESSING, "False", TIMED_OUT, message, now_s)
    return status


def _with_failures(status: DeploymentStatus, new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> DeploymentStatus:
    """The new ReplicaSet's failure to create pods, or else an old one's."""
    for replica_set in [new, *old] if new else old:
        for condition in replica_set.status.conditions if replica_set.status else ():
            if condition.type == REPLICA_FAILURE:
                failure = DeploymentCondition(
                    type=REPLICA_FAILURE,
                    status=condition.status,
                    reason=condition.reason,
                    message=condition.message,
                    last_update_time=condition.last_transition_time,
                    last_transition_time=condition.last_transition_time,
                )
                current = condition_of(status, REPLICA_FAILURE)
                if current and current.status == failure.status and current.reason == failure.reason:
                    return status
                return _put(status, failure)
    return without_condition(status, REPLICA_FAILURE)


def _put(status: DeploymentStatus, condition: DeploymentCondition) -> DeploymentStatus:
    return replace(status, conditions=[*(c for c in status.conditions if c.type != condition.type), condition])


def _was_complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    """An earlier look saw it complete, and no other template has pods since: availability may come and go."""
    condition = condition_of(deployment.status, PROGRESSING)
    return (
        (status.replicas or 0) == (status.updated_replicas or 0)
        and condition is not None
        and condition.reason == NEW_REPLICA_SET_AVAILABLE
    )


def _has_progressed(before: DeploymentStatus, after: DeploymentStatus) -> bool:
    """More new pods, fewer old ones, or more that are ready or available."""

    def old_pods(status: DeploymentStatus) -> int:
        return (status.replicas or 0) - (status.updated_replicas or 0)

    return (
        (after.updated_replicas or 0) > (before.updated_replicas or 0)
        or old_pods(after) < old_pods(before)
        or (after.ready_replicas or 0) > (before.ready_replicas or 0)
        or (after.available_replicas or 0) > (before.available_replicas or 0)
    )


def _is_timed_out(deployment: Deployment, status: DeploymentStatus, now_s: float) -> bool:
    condition = condition_of(status, PROGRESSING)
    if condition is None or condition.reason == NEW_REPLICA_SET_AVAILABLE:
        return False
    return condition.reason == TIMED_OUT or _deadline_s(deployment, condition) < now_s


def _deadline_s(deployment: Deployment, condition: DeploymentCondition) -> float:
    assert deployment.spec is not None
    assert condition.last_update_time is not None
    return seconds(condition.last_update_time) + (deployment.spec.progress_deadline_seconds or 0)


def _actual(replica_set: ReplicaSet) -> int:
    return replica_set.status.replicas if replica_set.status else 0


def _terminating(replica_sets: Sequence[ReplicaSet]) -> int | None:
    """None as long as one of them has not said."""
    total = 0
    for replica_set in replica_sets:
        count = replica_set.status.terminating_replicas if replica_set.status else None
        if count is None:
            return None
        total += count
    return total
