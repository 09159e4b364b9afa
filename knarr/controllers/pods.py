"""What loops ask of pods: when is one available; which of several can best be spared; how one is made.

Pure functions over values; the rules are upstream's (pkg/api/v1/pod, controller_utils.go).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cmp_to_key
from typing import Any

from knarr.api.core.pod_state import is_active, is_ready, phase, ready_condition
from knarr.api.core.v1 import Pod, PodTemplateSpec
from knarr.api.meta.owners import owner_reference
from knarr.api.meta.v1 import ObjectMeta

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def available_in_s(pod: Pod, min_ready_s: int, now_s: float) -> float | None:
    """Seconds until a pod has been ready for `min_ready_s`: 0 when it is available, None when it isn't even ready."""
    condition = ready_condition(pod)
    if condition is None or condition.status != "True":
        return None
    if not min_ready_s:
        return 0.0
    if condition.last_transition_time is None:
        return None
    return max(0.0, seconds(condition.last_transition_time) + min_ready_s - now_s)


def from_template(template: PodTemplateSpec, owner: Any) -> Pod:
    """A pod for `owner` to create. Its spec is shared with the template and not to be changed."""
    metadata = template.metadata or ObjectMeta()
    return Pod(
        metadata=ObjectMeta(
            generate_name=f"{owner.metadata.name}-",
            namespace=owner.metadata.namespace,
            labels=metadata.labels,
            annotations=metadata.annotations,
            finalizers=metadata.finalizers,
            owner_references=[owner_reference(owner)],
        ),
        spec=template.spec,
    )


def spare(pods: Sequence[Pod], related: Iterable[Pod], count: int, now_s: float) -> list[Pod]:
    """The `count` pods that can best be spared.

    In order: not yet on a node, pending before unknown before running, not ready, of lower deletion cost, sharing a
    node with more `related` pods (all those that serve the same end), ready for a shorter time, restarted more often,
    younger. Times are compared by order of magnitude, then by uid, so that the choice among pods of similar age is
    random (KEP-2185).
    """
    if count >= len(pods):
        return list(pods)
    on_node = Counter(pod.spec.node_name for pod in related if is_active(pod) and pod.spec and pod.spec.node_name)

    def compare(left: Pod, right: Pod) -> int:
        for key in (_unassigned, _phase_rank, _readiness_rank, deletion_cost):
            difference = key(left) - key(right)
            if difference:
                return difference
        difference = on_node[_node(right)] - on_node[_node(left)]
        if difference:
            return difference
        if is_ready(left) and is_ready(right):
            difference = _by_age(left, right, _ready_since(left), _ready_since(right), now_s)
            if difference:
                return difference
        for more, fewer in zip(_restarts(right), _restarts(left), strict=True):
            if more != fewer:
                return more - fewer
        return _by_age(left, right, left.metadata.creation_timestamp, right.metadata.creation_timestamp, now_s)

    return sorted(pods, key=cmp_to_key(compare))[:count]


def deletion_cost(pod: Pod) -> int:
    """What its user says that deleting it costs, compared with its siblings; 0 by default (KEP-2255)."""
    written = pod.metadata.annotations.get(DELETION_COST, "")
    digits = written[1:] if written[:1] == "-" else written
    if not (digits.isascii() and digits.isdigit()) or (len(digits) > 1 and digits[0] == "0"):
        return 0
    cost = int(written) if len(digits) <= 10 else 0
    return cost if -(2**31) <= cost < 2**31 else 0


def seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _node(pod: Pod) -> str:
    return (pod.spec.node_name if pod.spec else None) or ""


def _unassigned(pod: Pod) -> int:
    return 1 if _node(pod) else 0


def _phase_rank(pod: Pod) -> int:
    return {"Pending": 0, "Unknown": 1}.get(phase(pod), 2)


def _readiness_rank(pod: Pod) -> int:
    return 1 if is_ready(pod) else 0


def _ready_since(pod: Pod) -> datetime | None:
    condition = ready_condition(pod)
    return condition.last_transition_time if condition else None


def _restarts(pod: Pod) -> tuple[int, int]:
    """The most restarts of a container, and of a sidecar."""
    if pod.status is None or pod.spec is None:
        return 0, 0
    sidecars = {container.name for container in pod.spec.init_containers if container.restart_policy == "Always"}
    return (
        max((status.restart_count for status in pod.status.container_statuses), default=0),
        max((s.restart_count for s in pod.status.init_container_statuses if s.name in sidecars), default=0),
    )


def _by_age(left: Pod, right: Pod, left_at: datetime | None, right_at: datetime | None, now_s: float) -> int:
    """Negative when `left` is younger by an order of magnitude (of two), or comes first by chance of its uid."""
    if left_at is None or right_at is None:
        if left_at == right_at:
            return 0
        return -1 if left_at is None else 1
    if left_at == right_at:
        return 0
    difference = _magnitude(now_s - seconds(left_at)) - _magnitude(now_s - seconds(right_at))
    if difference:
        return difference
    left_uid, right_uid = left.metadata.uid or "", right.metadata.uid or ""
    return (left_uid > right_uid) - (left_uid < right_uid)


def _magnitude(age_s: float) -> int:
    return int(math.log2(age_s * 1e9)) if age_s > 0 else -1
