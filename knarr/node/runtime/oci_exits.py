"""Exits of real containers: noticed by conmon's end, at once, recorded, and told to the agent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial

from knarr.node.runtime import conmon, container_folder, records
from knarr.node.runtime.oci_ground import Ground
from knarr.node.runtime.oci_inventory import Held, Inventory
from knarr.node.runtime.records import ContainerPhase, ContainerRecord

_log = logging.getLogger(__name__)


class Exits:
    """The watch over what runs."""

    def __init__(self, ground: Ground, inventory: Inventory) -> None:
        self._ground = ground
        self._inventory = inventory
        self._untold: dict[str, None] = {}
        """Containers that exited since the agent last looked, oldest first; never more than there are."""
        self._changed = asyncio.Event()
        self._closing = False

    def close(self) -> None:
        """What runs is left to itself."""
        self._closing = True
        for held in self._inventory.containers.values():
            self.unwatch(held)

    def watch(self, held: Held) -> None:
        assert held.record.monitor is not None
        if not self._closing:
            held.watch = conmon.Watch(held.record.monitor, partial(self._noticed, held))

    def unwatch(self, held: Held) -> None:
        if held.watch is not None:
            held.watch.close()
            held.watch = None

    async def told(self) -> AsyncIterator[str]:
        while True:
            while self._untold:
                container_id = next(iter(self._untold))
                del self._untold[container_id]
                yield container_id
            self._changed.clear()
            await self._changed.wait()

    def tell(self, container_id: str) -> None:
        self._untold[container_id] = None
        self._changed.set()

    def forget(self, container_id: str) -> None:
        self._untold.pop(container_id, None)

    def _noticed(self, held: Held) -> None:
        if not self._closing:
            self._ground.spawn(self.note(held))

    async def note(self, held: Held) -> None:
        """A container that ran has exited: find out how."""
        async with held.lock:
            record = held.record
            if record.phase is not ContainerPhase.RUNNING:
                return
            await asyncio.to_thread(self._fill_in, record)
            record.phase = ContainerPhase.EXITED
            try:
                await asyncio.to_thread(records.write, self._ground.container_path(record.id), record)
            except OSError as error:  # the next agent learns it from conmon's file again
                _log.warning("container %s: its exit is not recorded: %s", record.id, error)
        held.exited.set()
        self.tell(record.id)

    def _fill_in(self, record: ContainerRecord) -> None:
        cgroups = self._ground.cgroups
        if self._inventory.shares_processes(record):
            # The kernel ended the others with the first only where the namespace was the container's own.
            cgroups.kill(record.cgroup)
        found = container_folder.read_exit(self._ground.path("exits", record.id), record, self._ground.boot_id)
        record.exit_code, record.message = found.code, found.message
        record.finished_at_s = found.at_s if found.at_s is not None else self._ground.clock.time_s()
        record.oom_killed = found.code != 0 and cgroups.oom_kills(record.cgroup) > 0
