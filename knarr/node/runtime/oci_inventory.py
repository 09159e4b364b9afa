"""What the runtime of real containers has: its sandboxes and containers, as their records say."""

from __future__ import annotations

import asyncio
import os

from msgspec import Struct, field

from knarr.node.runtime import conmon, container_folder, records, sandbox_folder
from knarr.node.runtime.contract import RuntimeFailure
from knarr.node.runtime.oci_ground import Ground
from knarr.node.runtime.records import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord


class Held(Struct):
    """A container, and what this process holds of it."""

    record: ContainerRecord
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    watch: conmon.Watch | None = None


class Inventory:
    """By id. Sandboxes come and go in oci_sandboxes.py, containers in oci_containers.py."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.sandboxes: dict[str, SandboxRecord] = {}
        self.containers: dict[str, Held] = {}

    def read(self) -> None:
        """What an earlier run has left. In a thread: it reads the disk, and removes what has no record."""
        for entry in os.scandir(self._ground.path("sandboxes")):
            sandbox = records.read(entry.path, SandboxRecord)
            if sandbox is not None:
                self.sandboxes[sandbox.id] = sandbox
            else:
                sandbox_folder.remove(entry.path)
        for entry in os.scandir(self._ground.path("containers")):
            container = records.read(entry.path, ContainerRecord)
            if container is not None:
                self.containers[container.id] = Held(container)
            else:
                container_folder.remove(entry.path)
        self.sandboxes = dict(sorted(self.sandboxes.items(), key=lambda item: item[1].created_at_s))
        self.containers = dict(sorted(self.containers.items(), key=lambda item: item[1].record.created_at_s))

    def new_id(self) -> str:
        clock = self._ground.clock
        while (identity := f"{clock.random.getrandbits(256):064x}") in self.sandboxes.keys() | self.containers:
            pass
        return identity

    def ready(self, sandbox_id: str, reason: str) -> SandboxRecord:
        """A sandbox that may be worked in. RuntimeFailure for `reason` when it may not."""
        sandbox = self.sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.phase is not SandboxPhase.READY:
            raise RuntimeFailure(reason, f"sandbox {sandbox_id} is not ready")
        return sandbox

    def of_sandbox(self, sandbox_id: str) -> list[Held]:
        return [held for held in self.containers.values() if held.record.sandbox_id == sandbox_id]

    def held(self, container_id: str) -> Held:
        held = self.containers.get(container_id)
        if held is None:
            raise RuntimeFailure("NotFound", f"there is no container {container_id}")
        return held

    def running(self, container_id: str) -> Held:
        held = self.held(container_id)
        if held.record.phase is not ContainerPhase.RUNNING:
            raise RuntimeFailure("NotRunning", f"container {container_id} is not running")
        return held

    def shares_processes(self, record: ContainerRecord) -> bool:
        """Whether others see the container's processes: then they don't all end with its first."""
        sandbox = self.sandboxes.get(record.sandbox_id)
        config = sandbox.config if sandbox is not None else None
        return bool(record.config.target_id) or (config is not None and (config.share_processes or config.host_pid))

    def chains_in_use(self) -> list[tuple[str, ...]]:
        """The layers that containers stand on."""
        return [held.record.chain for held in self.containers.values()]
