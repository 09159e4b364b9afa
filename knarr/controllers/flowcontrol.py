"""The flow schemas and priority levels that every cluster has are there and stay as they are meant (KEP-1040).

The mandatory ones always; the suggested ones unless their annotation says that a person looks after them. And each flow
schema says in its status whether the priority level that it names exists.
"""

from __future__ import annotations

from typing import Any

from knarr.api.errors import AlreadyExists
from knarr.api.flowcontrol.defaults import AUTO_UPDATE, EXEMPT, LEVELS, MANDATORY, SCHEMAS
from knarr.api.flowcontrol.v1 import (
    FlowSchema,
    FlowSchemaCondition,
    FlowSchemaStatus,
    PriorityLevelConfiguration,
)
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.clock import utc

WANTED: dict[tuple[type[Any], str], Any] = {
    **{(PriorityLevelConfiguration, str(each.metadata.name)): each for each in LEVELS},
    **{(FlowSchema, str(each.metadata.name)): each for each in SCHEMAS},
}
DANGLING = "Dangling"


class FlowControl(Controller):
    """v1 FlowSchemas (keys `schema/name`) and PriorityLevelConfigurations (`level/name`)."""

    name = "api-priority-and-fairness-config-producer-v1"
    needs = (FlowSchema, PriorityLevelConfiguration)

    def watch(self) -> None:
        self.levels = self.informer(PriorityLevelConfiguration)
        self.schemas = self.informer(FlowSchema)
        self.on(self.schemas, lambda schema: f"schema/{schema.metadata.name}")
        self.on(self.levels, lambda level: (f"level/{level.metadata.name}", *self._naming(level.metadata.name or "")))
        for kind, name in WANTED:  # What is missing from the beginning wakes nobody.
            self.queue.add(f"{'schema' if kind is FlowSchema else 'level'}/{name}")

    def _naming(self, level: str) -> list[str]:
        """The keys of the schemas that name a level."""
        return [f"schema/{each.metadata.name}" for each in self.schemas.all() if _level_of(each) == level]

    async def reconcile(self, key: str) -> None:
        kind, _, name = key.partition("/")
        if kind == "level":
            await self._keep(PriorityLevelConfiguration, name, self.levels.get(name))
            return
        schema = self.schemas.get(name)
        if await self._keep(FlowSchema, name, schema) and schema is not None:
            await self._report(schema)

    async def _keep(self, kind: type[Any], name: str, found: Any) -> bool:
        """Whether the object is as it should be already."""
        wanted = WANTED.get((kind, name))
        if wanted is None or (found is not None and found.metadata.deletion_timestamp):
            return True
        if found is None:
            try:
                await self.client.create(replace(wanted, metadata=_metadata(wanted)))
            except AlreadyExists:
                pass
            return False
        kept = kept_spec(name, found, wanted.spec)
        if found.spec == kept:
            return True
        await self.client.update(replace(found, spec=kept))
        return False

    async def _report(self, schema: FlowSchema) -> None:
        level = _level_of(schema)
        condition = dangling(level, exists=self.levels.get(level) is not None)
        before = schema.status.conditions if schema.status else []
        old = next((each for each in before if each.type == DANGLING), None)
        if old and (old.status, old.reason, old.message) == (condition.status, condition.reason, condition.message):
            return
        same = old is not None and old.status == condition.status
        condition.last_transition_time = old.last_transition_time if same and old else utc(self.clock.time_s())
        others = [each for each in before if each.type != DANGLING]
        await self.client.update_status(replace(schema, status=FlowSchemaStatus(conditions=[*others, condition])))


def kept_spec(name: str, found: Any, wanted: Any) -> Any:
    """What the spec of an object that every cluster has should be."""
    by_us = found.metadata.annotations.get(AUTO_UPDATE, "true" if found.metadata.generation == 1 else "") == "true"
    if name not in MANDATORY:
        return wanted if by_us else found.spec
    if name == EXEMPT and isinstance(found, PriorityLevelConfiguration) and not by_us and found.spec:
        return replace(wanted, exempt=found.spec.exempt)  # How much it lends may be said by a person.
    return wanted


def dangling(level: str, *, exists: bool) -> FlowSchemaCondition:
    """Whether what a flow schema names is missing."""
    start = f'This FlowSchema references the PriorityLevelConfiguration object named "{level}"'
    if exists:
        return FlowSchemaCondition(type=DANGLING, status="False", reason="Found", message=f"{start} and it exists")
    message = f"{start} but there is no such object"
    return FlowSchemaCondition(type=DANGLING, status="True", reason="NotFound", message=message)


def _level_of(schema: FlowSchema) -> str:
    return schema.spec.priority_level_configuration.name if schema.spec else ""


def _metadata(wanted: Any) -> ObjectMeta:
    return ObjectMeta(name=wanted.metadata.name, annotations=dict(wanted.metadata.annotations))
