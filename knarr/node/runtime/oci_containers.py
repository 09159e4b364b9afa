"""Real containers: created from an image in a sandbox, started under conmon, bounded, stopped, removed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from functools import partial

import msgspec

from knarr.node.runtime import archives, conmon, container_folder, files, images, kernel, records, sandbox_folder, spec
from knarr.node.runtime.contract import ContainerConfig, ImageNotPresent, Resources, RuntimeFailure
from knarr.node.runtime.oci_exits import Exits
from knarr.node.runtime.oci_ground import Ground
from knarr.node.runtime.oci_inventory import Held, Inventory
from knarr.node.runtime.records import ContainerPhase, ContainerRecord, SandboxRecord

KILL_S_MAX = 30.0
"""SIGKILL takes effect at once, but for a process that waits for a disk; after this it is reported."""
EXIT_START_FAILED = 128
"""Exit code of a container that could not be started, as containerd's."""


class OciContainers:
    """The containers of one runtime. `create`, `start` and `remove` must not be broken off."""

    def __init__(self, ground: Ground, inventory: Inventory, exits: Exits, store: images.ImageStore) -> None:
        self._ground = ground
        self._inventory = inventory
        self._exits = exits
        self._images = store

    # -- creating

    async def create(self, sandbox_id: str, config: ContainerConfig) -> str:
        sandbox = self._inventory.ready(sandbox_id, "CreateContainerError")
        image = self._images.find(config.image)
        if image is None:
            raise ImageNotPresent(config.image)
        identity = self._inventory.new_id()
        record = ContainerRecord(
            id=identity,
            sandbox_id=sandbox_id,
            config=config,
            image_id=image.digests[0] if image.digests else image.id,
            chain=image.chain,
            stop_signal=signal.SIGTERM,
            log_path=os.path.join(sandbox.config.log_directory, config.name, f"{config.attempt}.log"),
            cgroup=f"{sandbox.config.cgroup_parent}/{identity}",
            boot_id=self._ground.boot_id,
            created_at_s=self._ground.clock.time_s(),
        )
        # Held from here on, without a pause since the image was found: its layers are in use.
        held = self._inventory.containers[identity] = Held(record)
        async with held.lock:
            try:
                settings = (await self._images.configuration(image)).config or archives.ImageSettings()
                record.stop_signal = spec.stop_signal(settings)
                await kernel.in_thread_of_its_own(partial(self._prepare, record, sandbox, settings))
            except Exception as error:
                await asyncio.to_thread(container_folder.remove, self._ground.container_path(identity))
                del self._inventory.containers[identity]
                if isinstance(error, RuntimeFailure):
                    raise
                raise RuntimeFailure("CreateContainerError", f"failed to create container: {error}") from error
        return identity

    def _prepare(self, record: ContainerRecord, sandbox: SandboxRecord, settings: archives.ImageSettings) -> None:
        ground = self._ground
        assert ground.host is not None
        place = sandbox_folder.place(
            ground.sandbox_path(sandbox.id),
            sandbox,
            record.config.name,
            ground.cgroups.path(record.cgroup),
            self._processes_of(record.config.target_id) if record.config.target_id else None,
        )
        layers = self._images.layer_paths(record.chain)
        container_folder.create(ground.container_path(record.id), record, layers, settings, place, ground.host)

    def _processes_of(self, container_id: str) -> str | None:
        """The process namespace of a container that runs. RuntimeFailure when it doesn't."""
        process = self._inventory.running(container_id).record.process
        return f"/proc/{process.pid}/ns/pid" if process is not None else None

    # -- starting

    async def start(self, container_id: str) -> None:
        held = self._inventory.held(container_id)
        ground = self._ground
        async with held.lock:
            record, folder = held.record, ground.container_path(container_id)
            if record.phase is not ContainerPhase.CREATED:
                raise RuntimeFailure("RunContainerError", f"container {container_id} is {record.phase}")
            self._inventory.ready(record.sandbox_id, "RunContainerError")
            record.phase = ContainerPhase.STARTING
            await asyncio.to_thread(records.write, folder, record)
            try:
                launched = await conmon.launch(self._launch(record))
                await asyncio.to_thread(ground.cgroups.adopt_monitor, launched.monitor.pid)
                await ground.command.run("start", container_id, reason="RunContainerError")
            except Exception as error:
                await self._give_up_starting(held, str(error))
                if isinstance(error, RuntimeFailure):
                    raise
                raise RuntimeFailure("RunContainerError", f"failed to start container: {error}") from error
            record.monitor, record.process = launched.monitor, launched.container
            record.started_at_s = ground.clock.time_s()
            record.phase = ContainerPhase.RUNNING
            await asyncio.to_thread(records.write, folder, record)
            self._exits.watch(held)

    def _launch(self, record: ContainerRecord) -> conmon.Launch:
        ground = self._ground
        return conmon.Launch(
            ground.conmon,
            ground.command.binary,
            ground.path("runtime"),
            record.id,
            ground.container_path(record.id),
            ground.path("exits"),
            record.log_path,
            record.config.tty,
            record.config.stdin,
            record.config.stdin_once,
        )

    async def _give_up_starting(self, held: Held, message: str) -> None:
        """Whatever came of it goes, and the container counts as exited."""
        record = held.record
        await self._forget(record)
        record.phase = ContainerPhase.EXITED
        record.exit_code = EXIT_START_FAILED
        record.finished_at_s = self._ground.clock.time_s()
        record.message = message
        await asyncio.to_thread(records.write, self._ground.container_path(record.id), record)
        held.exited.set()

    async def _forget(self, record: ContainerRecord) -> None:
        """The OCI runtime and the kernel know nothing of the container any more; its folder stays."""
        await self._ground.command.delete(record.id)
        await asyncio.to_thread(self._ground.cgroups.remove, record.cgroup)

    # -- bounding

    async def update(self, container_id: str, resources: Resources) -> None:
        held = self._inventory.running(container_id)
        ground = self._ground
        assert ground.host is not None
        async with held.lock:
            record, folder = held.record, ground.container_path(container_id)
            path = os.path.join(folder, "resources.json")
            wanted = spec.bounds(resources, ground.host)
            await asyncio.to_thread(files.write, path, json.dumps(wanted).encode())
            await ground.command.run("update", "--resources", path, container_id, reason="UpdateContainerError")
            record.config = msgspec.structs.replace(record.config, resources=resources)
            await asyncio.to_thread(records.write, folder, record)

    # -- ending

    async def stop(self, container_id: str, grace_period_s: float) -> None:
        held = self._inventory.held(container_id)
        async with held.lock:
            running = held.record.phase is ContainerPhase.RUNNING
        if not running:
            return
        if grace_period_s > 0 and held.record.process is not None:
            held.record.process.kill(held.record.stop_signal)
            with contextlib.suppress(TimeoutError):
                async with self._ground.clock.timeout(grace_period_s):
                    await held.exited.wait()
                    return
        await self.kill(held)

    async def kill(self, held: Held) -> None:
        """SIGKILL to its first process, with which the kernel ends all others of its PID namespace."""
        async with held.lock:
            if held.record.phase is not ContainerPhase.RUNNING or held.record.process is None:
                return
            held.record.process.kill(signal.SIGKILL)
        try:
            async with self._ground.clock.timeout(KILL_S_MAX):
                await held.exited.wait()
        except TimeoutError as error:
            text = f"container {held.record.id} does not end after SIGKILL"
            raise RuntimeFailure("KillContainerError", text) from error

    async def remove(self, container_id: str) -> None:
        held = self._inventory.containers.get(container_id)
        if held is None:
            return
        await self.kill(held)
        async with held.lock:
            if container_id not in self._inventory.containers:
                return
            self._exits.unwatch(held)
            await self._forget(held.record)
            await asyncio.to_thread(container_folder.remove, self._ground.container_path(container_id))
            await asyncio.to_thread(files.remove, self._ground.path("exits", container_id))
            del self._inventory.containers[container_id]
            self._exits.forget(container_id)

    # -- finding again

    async def take_up(self, held: Held) -> None:
        """One of an earlier run: watch it if it runs, note its exit if it doesn't, remove it if it was half made."""
        record = held.record
        if record.phase is ContainerPhase.EXITED:
            held.exited.set()
        elif record.boot_id != self._ground.boot_id and record.phase is not ContainerPhase.CREATING:
            record.phase = ContainerPhase.RUNNING
            await self._exits.note(held)
        elif record.phase is ContainerPhase.STARTING:
            # conmon and the OCI runtime may be at it still: they don't end with the agent that called them.
            await asyncio.to_thread(conmon.kill_all_of, record.id)
            await self._give_up_starting(held, "the node agent ended while the container was starting")
            self._exits.tell(record.id)
        elif record.phase is ContainerPhase.RUNNING:
            self._exits.watch(held)
        if record.phase is ContainerPhase.CREATING or record.sandbox_id not in self._inventory.sandboxes:
            await self.remove(record.id)
