"""Flow schemas and priority levels that every cluster has stay as they are meant; schemas tell of missing levels."""

from __future__ import annotations

from typing import Any

import msgspec

from knarr.api.flowcontrol.defaults import AUTO_UPDATE, LEVELS, SCHEMAS
from knarr.api.flowcontrol.v1 import FlowSchema, PriorityLevelConfiguration
from knarr.client.client import MERGE_PATCH
from knarr.controllers.flowcontrol import FlowControl
from tests.controllers.loops import Loops, play


def loop(loops: Loops) -> list[FlowControl]:
    return [FlowControl(loops.client, loops.informers, loops.clock)]


async def begin(loops: Loops) -> None:
    for each in (*LEVELS, *SCHEMAS):
        await loops.client.create(each)


async def dangling(loops: Loops, name: str) -> tuple[str | None, str | None] | None:
    schema = await loops.client.get(FlowSchema, name)
    conditions = schema.status.conditions if schema.status else []
    return next(((each.status, each.reason) for each in conditions if each.type == "Dangling"), None)


async def spec_of(loops: Loops, name: str) -> Any:
    level = await loops.client.get(PriorityLevelConfiguration, name)
    return level.spec.limited if level.spec else None


async def shares(loops: Loops, name: str, count: int) -> None:
    patch = {"spec": {"limited": {"nominalConcurrencyShares": count}}}
    await loops.client.patch(PriorityLevelConfiguration, name, patch, content_type=MERGE_PATCH)


def test_what_is_deleted_comes_back_and_what_is_changed_is_changed_back() -> None:
    async def scenario(loops: Loops) -> None:
        await begin(loops)
        before = await spec_of(loops, "system")
        await loops.client.delete(FlowSchema, "probes")
        await loops.client.delete(PriorityLevelConfiguration, "exempt")
        await shares(loops, "system", 7)

        async def mended() -> bool:
            schemas = (await loops.client.list(FlowSchema)).items
            levels = (await loops.client.list(PriorityLevelConfiguration)).items
            whole = (len(schemas), len(levels)) == (len(SCHEMAS), len(LEVELS))
            return whole and await spec_of(loops, "system") == before

        await loops.until(mended, within_s=5)

    play(loop, scenario)


def test_what_a_person_looks_after_is_left_alone() -> None:
    async def scenario(loops: Loops) -> None:
        await begin(loops)
        for name in ("system", "exempt"):
            patch = {"metadata": {"annotations": {AUTO_UPDATE: "false"}}}
            await loops.client.patch(PriorityLevelConfiguration, name, patch, content_type=MERGE_PATCH)
        await shares(loops, "system", 7)
        lends = {"spec": {"exempt": {"nominalConcurrencyShares": 10}}}
        await loops.client.patch(PriorityLevelConfiguration, "exempt", lends, content_type=MERGE_PATCH)
        await loops.clock.sleep(10)
        assert (await spec_of(loops, "system")).nominal_concurrency_shares == 7
        exempt = await loops.client.get(PriorityLevelConfiguration, "exempt")
        assert exempt.spec
        assert exempt.spec.exempt
        assert exempt.spec.exempt.nominal_concurrency_shares == 10

    play(loop, scenario)


def test_a_schema_tells_whether_its_level_is_there() -> None:
    async def scenario(loops: Loops) -> None:
        await begin(loops)
        spec = {"priorityLevelConfiguration": {"name": "mine"}}
        await loops.client.create(msgspec.convert({"metadata": {"name": "mine"}, "spec": spec}, FlowSchema))

        async def told(name: str, status: str, reason: str) -> None:
            async def holds() -> bool:
                return await dangling(loops, name) == (status, reason)

            await loops.until(holds, within_s=5)

        await told("system-nodes", "False", "Found")
        await told("mine", "True", "NotFound")
        limited = {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}
        level = {"metadata": {"name": "mine"}, "spec": limited}
        await loops.client.create(msgspec.convert(level, PriorityLevelConfiguration))
        await told("mine", "False", "Found")
        await loops.client.delete(PriorityLevelConfiguration, "mine")
        await told("mine", "True", "NotFound")

    play(loop, scenario)
