"""The downward API: what a pod may learn about itself, in environment variables and in files.

fieldRef names a field of the pod, resourceFieldRef an amount of a container; an amount without a limit is the node's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING
from typing import Any

from knarr.api.core.v1 import Container, Pod, ResourceFieldSelector
from knarr.api.errors import shown
from knarr.api.quantity import parse_quantity

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")


class UnknownField(ValueError):
    """The pod has no such field."""


def field_value(pod: Pod, path: str, *, pod_ips: Sequence[str], host_ips: Sequence[str]) -> str:
    """The value of a fieldRef. UnknownField when there is no such field."""
    metadata, spec = pod.metadata, pod.spec
    assert spec
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        kept: Mapping[str, str] = getattr(metadata, subscript[1])
        return kept.get(subscript[2], "")
    values: dict[str, Any] = {
        "metadata.name": metadata.name,
        "metadata.namespace": metadata.namespace,
        "metadata.uid": metadata.uid,
        "spec.nodeName": spec.node_name,
        "spec.serviceAccountName": spec.service_account_name,
        "spec.restartPolicy": spec.restart_policy,
        "status.hostIP": host_ips[0] if host_ips else "",
        "status.hostIPs": ",".join(host_ips),
        "status.podIP": pod_ips[0] if pod_ips else "",
        "status.podIPs": ",".join(pod_ips),
    }
    if path == "metadata.labels":
        return _lines(metadata.labels)
    if path == "metadata.annotations":
        return _lines(metadata.annotations)
    if path not in values:
        raise UnknownField(f"unsupported fieldPath: {path}")
    return values[path] or ""


def resource_value(
    pod: Pod, selector: ResourceFieldSelector, container: Container | None, allocatable: Mapping[str, Any]
) -> str:
    """The value of a resourceFieldRef: whole multiples of its divisor, rounded up."""
    if selector.container_name:
        container = container_named(pod, selector.container_name)
    kind, _, resource = selector.resource.partition(".")
    if container is None or kind not in ("limits", "requests") or not resource:
        raise UnknownField(f"unsupported container resource : {selector.resource}")
    given = container.resources
    limit = given.limits.get(resource) if given else None
    amount = (given.requests.get(resource, limit) if given else None) if kind == "requests" else limit
    if amount is None:
        amount = allocatable.get(resource, 0) if kind == "limits" else 0
    divisor = parse_quantity(selector.divisor or 0) or parse_quantity(1)
    return str(int((parse_quantity(amount) / divisor).to_integral_value(ROUND_CEILING)))


def container_named(pod: Pod, name: str) -> Container | None:
    assert pod.spec
    every = (*pod.spec.containers, *pod.spec.init_containers)
    return next((container for container in every if container.name == name), None)


def _lines(pairs: Mapping[str, str]) -> str:
    """One `key="escaped value"` a line, sorted."""
    return "\n".join(f"{key}={shown(pairs[key])}" for key in sorted(pairs))
