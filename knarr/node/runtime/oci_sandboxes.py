"""Real sandboxes: the namespaces, shared memory, network and control group that the containers of a pod share."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable

import msgspec

from knarr.node.runtime import namespaces, records, sandbox_folder
from knarr.node.runtime.contract import PodNetwork, RuntimeFailure, Sandbox, SandboxConfig
from knarr.node.runtime.oci_containers import OciContainers
from knarr.node.runtime.oci_ground import Ground
from knarr.node.runtime.oci_inventory import Inventory
from knarr.node.runtime.records import SandboxPhase, SandboxRecord

_log = logging.getLogger(__name__)


class OciSandboxes:
    """The sandboxes of one runtime. `run`, `stop` and `remove` must not be broken off."""

    def __init__(self, ground: Ground, inventory: Inventory, containers: OciContainers, network: PodNetwork) -> None:
        self._ground = ground
        self._inventory = inventory
        self._containers = containers
        self._network = network
        self._locks: dict[str, asyncio.Lock] = {}

    def seen(self) -> list[Sandbox]:
        return [self._seen(record) for record in self._inventory.sandboxes.values()]

    async def run(self, config: SandboxConfig) -> Sandbox:
        record = SandboxRecord(self._inventory.new_id(), config, self._ground.boot_id, self._ground.clock.time_s())
        folder = self._ground.sandbox_path(record.id)
        try:
            await asyncio.to_thread(sandbox_folder.create, folder, record)
            await _all(
                namespaces.create(
                    folder,
                    hostname=config.hostname,
                    host_network=config.host_network,
                    host_ipc=config.host_ipc,
                    sysctls=config.sysctls,
                ),
                asyncio.to_thread(sandbox_folder.mount_shared_memory, folder),
                asyncio.to_thread(self._bound_pod, config),
            )
            if config.share_processes:
                groups = self._ground.cgroups.make(_first_process_group(record))
                await asyncio.to_thread(namespaces.share_processes, folder, groups)
            if not config.host_network:
                # hostPort: whoever makes the rules reads config.port_mappings and ips from `sandboxes()`.
                record.ips = await self._network.attach(record.id, self._network_namespace(record) or "")
            record.phase = SandboxPhase.READY
            await asyncio.to_thread(records.write, folder, record)
        except Exception as error:
            await self._free(record)
            if isinstance(error, RuntimeFailure):
                raise
            raise RuntimeFailure("FailedCreatePodSandBox", f"failed to create pod sandbox: {error}") from error
        self._inventory.sandboxes[record.id] = record
        return self._seen(record)

    async def bound(
        self,
        sandbox_id: str,
        *,
        cpu_shares: int | None,
        cpu_quota_us: int | None,
        memory_limit_bytes: int | None,
    ) -> None:
        async with self._lock(sandbox_id):
            record = self._inventory.ready(sandbox_id, "NotRunning")
            record.config = msgspec.structs.replace(
                record.config,
                cpu_shares=cpu_shares,
                cpu_quota_us=cpu_quota_us,
                memory_limit_bytes=memory_limit_bytes,
            )
            try:
                await asyncio.to_thread(self._bound_pod, record.config)
            except OSError as error:
                raise RuntimeFailure("UpdateContainerError", f"the pod's control group: {error.strerror}") from error
            await asyncio.to_thread(records.write, self._ground.sandbox_path(sandbox_id), record)

    def _bound_pod(self, config: SandboxConfig) -> None:
        self._ground.cgroups.create(
            config.cgroup_parent,
            cpu_shares=config.cpu_shares,
            cpu_quota_us=config.cpu_quota_us,
            memory_limit_bytes=config.memory_limit_bytes,
        )

    # -- ending

    async def stop(self, sandbox_id: str) -> None:
        async with self._lock(sandbox_id):
            record = self._inventory.sandboxes.get(sandbox_id)
            if record is None:
                return
            # Not ready first: no container may be started in it any more.
            record.phase = SandboxPhase.STOPPED
            held_here = self._inventory.of_sandbox(sandbox_id)
            await asyncio.gather(*(self._containers.kill(held) for held in held_here))
            await self._detach(record)
            if record.config.share_processes:
                await asyncio.to_thread(self._ground.cgroups.remove, _first_process_group(record))
            folder = self._ground.sandbox_path(sandbox_id)
            await asyncio.to_thread(namespaces.release, folder)
            await asyncio.to_thread(records.write, folder, record)

    async def remove(self, sandbox_id: str) -> None:
        await self.stop(sandbox_id)
        held_here = self._inventory.of_sandbox(sandbox_id)
        await asyncio.gather(*(self._containers.remove(held.record.id) for held in held_here))
        async with self._lock(sandbox_id):
            record = self._inventory.sandboxes.get(sandbox_id)
            if record is not None:
                await self._free(record)
                del self._inventory.sandboxes[sandbox_id]
        self._locks.pop(sandbox_id, None)

    async def _free(self, record: SandboxRecord) -> None:
        """Leave nothing of a sandbox whose containers are gone."""
        await self._detach(record)
        cgroups = self._ground.cgroups
        if record.config.share_processes:
            await asyncio.to_thread(cgroups.remove, _first_process_group(record))
        await asyncio.to_thread(sandbox_folder.remove, self._ground.sandbox_path(record.id))
        others = (other for other in self._inventory.sandboxes.values() if other.id != record.id)
        if record.config.cgroup_parent not in {other.config.cgroup_parent for other in others}:
            await asyncio.to_thread(cgroups.remove, record.config.cgroup_parent)

    async def _detach(self, record: SandboxRecord) -> None:
        path = self._network_namespace(record)
        # Unbinding removes the file, so once it is gone there is nothing left to take back.
        if path is not None and await asyncio.to_thread(os.path.lexists, path):
            await self._network.detach(record.id, path)

    # -- finding again

    async def take_up(self, record: SandboxRecord) -> None:
        """One of an earlier run: removed if it was half made, stopped if it is no longer whole."""
        try:
            if record.phase is SandboxPhase.CREATING:
                await self.remove(record.id)
            elif record.phase is SandboxPhase.READY and not await asyncio.to_thread(self._whole, record):
                await self.stop(record.id)
        except Exception as error:
            # One that won't go must not keep the node from starting; it is not ready, and is tried again.
            record.phase = SandboxPhase.STOPPED
            _log.warning("sandbox %s of an earlier run: %s", record.id, error)

    def _whole(self, record: SandboxRecord) -> bool:
        config = record.config
        expected = set(namespaces.of_sandbox(host_network=config.host_network, host_ipc=config.host_ipc))
        if config.share_processes:
            expected.add(namespaces.PROCESSES)
        present = set(namespaces.present(self._ground.sandbox_path(record.id)))
        return record.boot_id == self._ground.boot_id and expected <= present

    # -- small things

    def _network_namespace(self, record: SandboxRecord) -> str | None:
        if record.config.host_network:
            return None
        return namespaces.path(self._ground.sandbox_path(record.id), namespaces.NETWORK)

    def _seen(self, record: SandboxRecord) -> Sandbox:
        return record.seen(self._network_namespace(record))

    def _lock(self, sandbox_id: str) -> asyncio.Lock:
        return self._locks.setdefault(sandbox_id, asyncio.Lock())


def _first_process_group(record: SandboxRecord) -> str:
    """The control group of the process that keeps a pod's shared processes."""
    return f"{record.config.cgroup_parent}/{record.id}"


async def _all(*work: Awaitable[object]) -> None:
    """Wait for all of them, then raise the first error: nothing still runs when the clean-up begins."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
