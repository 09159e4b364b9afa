"""What loops ask of pods: when is one available; which of several can best be spared; how one is made.

Pure functions over values; the rules are upstream's (pkg/api/v1/pod, controller_utils.go).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from heapq import nsmallest
from typing import Any

from knarr.api.core.pod_state import is_active, is_entering, phase, ready_condition
from knarr.api.core.v1 import Pod, PodTemplateSpec
from knarr.api.meta.owners import owner_reference
from knarr.api.meta.v1 import ObjectMeta

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def available_in_s(pod: Pod, min_ready_s: int, now_s: float) -> float | None:
    """Seconds until a pod has been ready for `min_ready_s`: 0 when it is available, None when it isn't even ready.

    Ours beyond upstream's: one that a Service selects must be in the rules of every data plane, too (docs/drain.md).
    """
    condition = ready_condition(pod)
    if condition is None or condition.status != "True" or is_entering(pod):
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
    younger. Times are compared by order of magnitude only, so that the choice among pods of similar age is left to
    their uids, that is, to chance (KEP-2185).
    """
    if count >= len(pods):
        return list(pods)
    on_node = Counter(pod.spec.node_name for pod in related if pod.spec and pod.spec.node_name and is_active(pod))

    def rank(pod: Pod) -> tuple[object, ...]:
        node = (pod.spec.node_name if pod.spec else None) or ""
        condition = ready_condition(pod)
        ready = condition is not None and condition.status == "True"
        return (
            bool(node),
            _PHASES.get(phase(pod), 2),
            ready,
            deletion_cost(pod) if pod.metadata.annotations else 0,
            -on_node[node],
            _magnitude(condition.last_transition_time, now_s) if condition and ready else 0,
            *restarts(pod),
            _magnitude(pod.metadata.creation_timestamp, now_s),
            pod.metadata.uid or "",
        )

    return nsmallest(count, pods, key=rank)


_PHASES = {"Pending": 0, "Unknown": 1}
"""All others come last."""


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


def restarts(pod: Pod) -> tuple[int, int]:
    """The most restarts of a container, and of a sidecar; negative, as more go first."""
    if pod.status is None or pod.spec is None:
        return 0, 0
    containers = max((status.restart_count for status in pod.status.container_statuses), default=0)
    if not pod.status.init_container_statuses:
        return -containers, 0
    sidecars = {container.name for container in pod.spec.init_containers if container.restart_policy == "Always"}
    return -containers, -max(
        (status.restart_count for status in pod.status.init_container_statuses if status.name in sidecars), default=0
    )


def _magnitude(since: datetime | None, now_s: float) -> int:
    """Of an age, as the power of two of its nanoseconds; an unknown one is the youngest."""
    if since is None:
        return -2
    age_s = now_s - seconds(since)
    return int(math.log2(age_s * 1e9)) if age_s > 0 else -1
