"""Priority: a pod's priorityClassName becomes a number; without one it has that of the default class, or 0."""

from __future__ import annotations

from knarr.api.core.v1 import Pod
from knarr.api.scheduling.resources import SYSTEM
from knarr.api.scheduling.v1 import PriorityClass
from knarr.apiserver.admission import Attributes, Plugin
from knarr.apiserver.admission.index import Index

PREEMPTS = "PreemptLowerPriority"


class Priority(Plugin):
    kinds = (Pod, PriorityClass)
    operations = ("CREATE", "UPDATE", "DELETE")
    subresources = ("",)

    def __init__(self, classes: Index[PriorityClass]) -> None:
        self._classes = classes

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.resource.type is PriorityClass:
            if attributes.operation == "DELETE" and attributes.name in SYSTEM:
                raise attributes.refused("this is a system priority class and cannot be deleted")
            return
        if attributes.operation != "CREATE":
            return
        pod: Pod = attributes.obj
        spec = pod.spec
        if spec is None:
            return
        if spec.priority_class_name:
            found = await self._classes.get("", spec.priority_class_name)
            if found is None:
                about = f"no PriorityClass with name {spec.priority_class_name} was found"
                raise attributes.refused(about, named=False)
        else:
            found = await self._default()
            if found is not None:
                spec.priority_class_name = found.metadata.name
        value = (found.value if found else None) or 0
        policy = (found.preemption_policy if found else None) or PREEMPTS
        if spec.priority is not None and spec.priority != value:
            about = f"the integer value of priority ({spec.priority}) must not be provided in pod spec; priority "
            about += f"admission controller computed {value} from the given PriorityClass name"
            raise attributes.refused(about, named=False)
        if spec.preemption_policy is not None and spec.preemption_policy != policy:
            about = f"the string value of PreemptionPolicy ({spec.preemption_policy}) must not be provided in pod "
            about += f"spec; priority admission controller computed {policy} from the given PriorityClass name"
            raise attributes.refused(about, named=False)
        spec.priority = value
        spec.preemption_policy = policy

    async def validate(self, attributes: Attributes) -> None:
        """There is one default at most."""
        if attributes.resource.type is not PriorityClass or attributes.operation == "DELETE":
            return
        if not attributes.obj.global_default:
            return
        default = await self._default()
        if default is not None and default.metadata.name != attributes.obj.metadata.name:
            about = f"PriorityClass {default.metadata.name} is already marked as default. Only one default can exist"
            raise attributes.refused(about)

    async def _default(self) -> PriorityClass | None:
        """Of several, which only a race can make, that of the lowest value."""
        entries = await self._classes.entries()
        marked = [each for each in entries.values() if each.obj.global_default]
        found = min(marked, key=lambda each: (each.obj.value or 0, each.key), default=None)
        return found.obj if found else None
