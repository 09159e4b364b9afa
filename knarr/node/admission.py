"""A node's own look at a pod that is given to it: what can't be here is rejected, whoever put it here.

The scheduler has looked already; but a pod may name its node itself, and another may have come meanwhile. As upstream's
kubelet: amounts, then nodeSelector and affinity, then hostPorts. A pod that is rejected has failed, and its controller
makes another one. A critical pod that lacks amounts only is not rejected: others give way to it (`room`). Taints are
not looked at: NoExecute taints are minded by the cluster's loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from knarr.api.core.node_affinity import matches
from knarr.api.core.pod_amounts import pod_requests
from knarr.api.core.v1 import Node, Pod, PodSpec
from knarr.api.quantity import milli, whole
from knarr.api.types import Quantity
from knarr.node.room import NoRoom, is_critical

EVERY_ADDRESS = "0.0.0.0"
Port = tuple[str, str, int]
"""Address, protocol, number."""


class Rejection(Struct, frozen=True):
    """Reason and message, as the event has them."""

    reason: str
    message: str
    doubtful: bool = False
    """It depends on the labels of the Node, which may have changed."""


def is_new(pod: Pod) -> bool:
    """No node has begun with it."""
    status = pod.status
    return status is None or (status.phase in (None, "Pending") and status.start_time is None)


def rejection(
    pod: Pod, others: Sequence[PodSpec], capacity: Mapping[str, Quantity], node: Node | None
) -> Rejection | None:
    """Why a pod can't be on a node that has these others; None when it can."""
    spec = pod.spec or PodSpec()
    for name, requested, used, most in () if is_critical(pod) else _amounts(spec, others, capacity):
        if requested and used + requested > most:
            about = f"Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {most}"
            return Rejection(f"OutOf{name}", about)
    if node is not None and not matches(spec, node):
        return _failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector", doubtful=True)
    taken = [port for other in others for port in _ports(other)]
    if any(_conflict(wanted, port) for wanted in _ports(spec) for port in taken):
        return _failed("NodePorts", "node(s) didn't have free ports for the requested pod ports")
    return None


def lacking(pod: Pod, others: Sequence[PodSpec], capacity: Mapping[str, Quantity]) -> dict[str, int]:
    """How much of what is too little for a pod beside these others."""
    amounts = _amounts(pod.spec or PodSpec(), others, capacity)
    return {
        name: used + requested - most
        for name, requested, used, most in amounts
        if requested and used + requested > most
    }


def no_room(why: NoRoom) -> Rejection:
    text = (
        "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods"
    )
    return Rejection("UnexpectedAdmissionError", f"{text} to preempt: {why}")


def failed(pod: Pod, found: Rejection) -> dict[str, Any]:
    """What makes the pod one that has failed: a patch of its status."""
    status = {"phase": "Failed", "reason": found.reason, "message": f"Pod was rejected: {found.message}"}
    return {"metadata": {"uid": pod.metadata.uid}, "status": status}


def _failed(predicate: str, why: str, *, doubtful: bool = False) -> Rejection:
    return Rejection(predicate, f"Predicate {predicate} failed: {why}", doubtful)


def _amounts(
    spec: PodSpec, others: Sequence[PodSpec], capacity: Mapping[str, Quantity]
) -> Iterator[tuple[str, int, int, int]]:
    """Resource, what is requested of it, used and there; of those that the node has."""
    if "pods" in capacity:
        yield "pods", 1, len(others), whole(capacity["pods"])
    wanted = pod_requests(spec)
    if not wanted:
        return
    used = [pod_requests(other) for other in others]
    for name, amount in wanted.items():
        if name in capacity:
            count = milli if name == "cpu" else whole
            yield name, count(amount), sum(count(each.get(name, 0)) for each in used), count(capacity[name])


def _ports(spec: PodSpec) -> Iterator[Port]:
    sidecars = (each for each in spec.init_containers if each.restart_policy == "Always")
    for container in (*spec.containers, *sidecars):
        for port in container.ports:
            if port.host_port:
                yield port.host_ip or EVERY_ADDRESS, port.protocol or "TCP", port.host_port


def _conflict(left: Port, right: Port) -> bool:
    return left[1:] == right[1:] and (left[0] == right[0] or EVERY_ADDRESS in (left[0], right[0]))
