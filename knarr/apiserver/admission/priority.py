"""Priority: a pod's priorityClassName becomes a number. Without classes: the two built-in ones, and 0."""

from __future__ import annotations

from knarr.api.core.v1 import Pod
from knarr.api.errors import Forbidden
from knarr.apiserver.admission import Attributes, Plugin

BUILT_IN = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


class Priority(Plugin):
    async def mutate(self, attributes: Attributes) -> None:
        if attributes.resource.kind != "Pod" or attributes.operation != "CREATE" or attributes.subresource:
            return
        pod: Pod = attributes.obj
        if pod.spec is None:
            return
        name = pod.spec.priority_class_name
        if name and name not in BUILT_IN:
            raise Forbidden(
                f'pods "{pod.metadata.name}" is forbidden: no PriorityClass with name {name} was found',
                kind="pods",
                name=pod.metadata.name or "",
            )
        pod.spec.priority = BUILT_IN[name] if name else 0
        pod.spec.preemption_policy = pod.spec.preemption_policy or "PreemptLowerPriority"
