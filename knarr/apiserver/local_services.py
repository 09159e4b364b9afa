"""At each start every version that this server answers for itself has its APIService (upstream's autoregister).

One that carries the label kube-aggregator.kubernetes.io/automanaged=onstart is put right; one without it is somebody
else's, who serves that version instead.
"""

from __future__ import annotations

import asyncio

from knarr.api.apiregistration.priorities import FIRST
from knarr.api.apiregistration.services import AT_START, MANAGED, local_service
from knarr.api.apiregistration.v1 import APIService
from knarr.api.errors import AlreadyExists, Conflict
from knarr.api.types import replace
from knarr.client.client import Client


async def register_local(client: Client) -> None:
    """Make what is missing. May be repeated."""
    found = {each.metadata.name: each for each in (await client.list(APIService)).items}
    versions = dict.fromkeys((each.group, each.version) for each in client.registry if each.group != FIRST)
    async with asyncio.TaskGroup() as group:  # Their writes share their commits.
        for each in versions:
            wanted = local_service(*each)
            group.create_task(_ensure(client, wanted, found.get(wanted.metadata.name)))


async def _ensure(client: Client, wanted: APIService, there: APIService | None) -> None:
    try:
        if there is None:
            await client.create(wanted)
        elif there.metadata.labels.get(MANAGED) == AT_START and there.spec != wanted.spec:
            await client.update(replace(there, spec=wanted.spec))
    except (AlreadyExists, Conflict):
        pass  # Somebody was faster.
