"""Where the runtime of real containers works: its folder, its tools, and what is under way."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import Coroutine
from typing import Any, TypeVar

from knarr.clock import Clock
from knarr.node.runtime import probe, records, spec
from knarr.node.runtime.cgroups import ControlGroups
from knarr.node.runtime.oci_command import OciCommand

_Result = TypeVar("_Result")


def group_of(root: str) -> str:
    """The control group of a runtime: two on one machine must not share any; their folders tell them apart."""
    return f"/knarr-{hashlib.sha256(root.encode()).hexdigest()[:8]}"


class Ground:
    """What its sandboxes and containers stand on. Complete once `begin` and `choose` are through."""

    def __init__(self, root: str, clock: Clock) -> None:
        self.root = os.path.abspath(root)
        self.clock = clock
        self.cgroups = ControlGroups(group_of(self.root))
        self.conmon = ""
        self.command = OciCommand("", "", clock)
        self.boot_id = ""
        self.host: spec.Host | None = None
        self._under_way: set[asyncio.Task[Any]] = set()

    async def begin(self) -> None:
        await asyncio.to_thread(self._make_folders)
        self.boot_id = await asyncio.to_thread(records.boot_id)
        self.host = await asyncio.to_thread(
            spec.this_host, cgroup_v2=self.cgroups.is_v2, bounds_swap=self.cgroups.bounds_swap
        )

    async def choose(self, binary: str | None) -> str:
        """Find the OCI runtime and conmon; answers the version. `binary`: the one that is wanted."""
        chosen = await probe.choose(binary, self.root, self.cgroups.path("probe"), self.boot_id)
        self.conmon = chosen.conmon
        self.command = OciCommand(chosen.binary, self.path("runtime"), self.clock)
        return chosen.version

    def _make_folders(self) -> None:
        os.makedirs(self.root, mode=0o711, exist_ok=True)
        for name in ("sandboxes", "containers", "exits", "runtime", "images"):
            os.makedirs(self.path(name), mode=0o711, exist_ok=True)
        # Sessions end with the agent; what a killed one left of them is of no use.
        shutil.rmtree(self.path("exec"), ignore_errors=True)
        os.mkdir(self.path("exec"), 0o700)

    # -- folders

    def path(self, *parts: str) -> str:
        return os.path.join(self.root, *parts)

    def sandbox_path(self, sandbox_id: str) -> str:
        return self.path("sandboxes", sandbox_id)

    def container_path(self, container_id: str) -> str:
        return self.path("containers", container_id)

    # -- what is under way

    async def to_its_end(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """A change is made wholly, also when the one who asked goes away: nothing is left half made."""
        return await asyncio.shield(self.spawn(work))

    def spawn(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # the one who asked has it, if still there
