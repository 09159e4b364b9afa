"""Real containers: an OCI runtime (crun or runc) under conmon, on overlayfs, in namespaces of their pod.

On disk, below one folder that belongs to this runtime alone:

    sandboxes/<id>/    record.json, the bound namespaces (net, ipc, uts), shm/, hostname
    containers/<id>/   record.json, config.json, the file tree, and conmon's own files
    exits/<id>         the exit code, written by conmon
    images/            see images.py
    exec/              scratch of exec sessions
    runtime/           the OCI runtime's own state

Nothing runs in the agent: kill it, and containers run on, their logs are written and their exit codes kept.
`start` reads the records and watches what still runs.

    folders, tools    oci_ground.py
    what there is     oci_inventory.py
    sandboxes         oci_sandboxes.py
    containers        oci_containers.py
    their exits       oci_exits.py
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Sequence

from knarr.clock import Clock
from knarr.node.runtime import conmon, container_folder, images, processes
from knarr.node.runtime.contract import (
    Container,
    ContainerConfig,
    ContainerUsage,
    Credentials,
    ExecResult,
    Image,
    PodNetwork,
    Resources,
    Sandbox,
    SandboxConfig,
    Streams,
)
from knarr.node.runtime.oci_containers import OciContainers
from knarr.node.runtime.oci_exits import Exits
from knarr.node.runtime.oci_ground import Ground
from knarr.node.runtime.oci_inventory import Inventory
from knarr.node.runtime.oci_sandboxes import OciSandboxes
from knarr.node.runtime.records import ContainerPhase

_log = logging.getLogger(__name__)


class OciRuntime:
    """The runtime contract, for real. By default with the first of crun and runc that works here."""

    name = "knarr-oci"

    def __init__(
        self,
        root: str,
        clock: Clock,
        network: PodNetwork,
        runtime_binary: str | None = None,
    ) -> None:
        self.version = ""
        self._clock = clock
        self._wanted_binary = runtime_binary
        self._ground = Ground(root, clock)
        self._images = images.ImageStore(self._ground.path("images"), clock)
        self._inventory = Inventory(self._ground)
        self._exits = Exits(self._ground, self._inventory)
        self._containers = OciContainers(self._ground, self._inventory, self._exits, self._images)
        self._sandboxes = OciSandboxes(self._ground, self._inventory, self._containers, network)

    # -- life cycle

    async def start(self) -> None:
        await self._ground.begin()
        self.version, _ = await asyncio.gather(self._ground.choose(self._wanted_binary), self._images.start())
        await self._find_again()

    async def _find_again(self) -> None:
        """Take up what is on disk: watch what runs, note what has exited, remove what was half made."""
        inventory = self._inventory
        await asyncio.to_thread(inventory.read)
        taken_up = await asyncio.gather(
            *(self._containers.take_up(held) for held in list(inventory.containers.values())), return_exceptions=True
        )
        for failure in (result for result in taken_up if result is not None):
            _log.warning("a container of an earlier run: %s", failure)
        for sandbox in list(inventory.sandboxes.values()):
            await self._sandboxes.take_up(sandbox)
        await self._images.sweep(inventory.chains_in_use)

    async def close(self) -> None:
        self._exits.close()
        await self._images.close()
        await self._ground.settled()

    async def clear(self) -> None:
        """Stop and remove every sandbox, leaving nothing in the kernel; images stay: for `knarr down`."""
        await self._ground.settled()  # a sandbox half made would come after the others went
        await asyncio.gather(*(self.remove_sandbox(sandbox_id) for sandbox_id in list(self._inventory.sandboxes)))
        await asyncio.to_thread(self._ground.cgroups.remove_root)

    def remove_unrecorded(self) -> bool:
        """Kill processes that nothing on disk tells of; True once they are gone. After `clear`, in a thread."""
        return self._ground.cgroups.remove("")

    async def purge(self) -> None:
        """Stop and remove everything of this runtime, images too."""
        await self.clear()
        await self.close()
        await asyncio.to_thread(shutil.rmtree, self._ground.root, True)

    # -- sandboxes

    async def run_sandbox(self, config: SandboxConfig) -> Sandbox:
        return await self._ground.to_its_end(self._sandboxes.run(config))

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await self._ground.to_its_end(self._sandboxes.stop(sandbox_id))

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._ground.to_its_end(self._sandboxes.remove(sandbox_id))

    async def bound_sandbox(
        self,
        sandbox_id: str,
        *,
        cpu_shares: int | None,
        cpu_quota_us: int | None,
        memory_limit_bytes: int | None,
    ) -> None:
        await self._sandboxes.bound(
            sandbox_id, cpu_shares=cpu_shares, cpu_quota_us=cpu_quota_us, memory_limit_bytes=memory_limit_bytes
        )

    async def sandboxes(self) -> list[Sandbox]:
        return self._sandboxes.seen()

    # -- containers

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        return await self._ground.to_its_end(self._containers.create(sandbox_id, config))

    async def start_container(self, container_id: str) -> None:
        await self._ground.to_its_end(self._containers.start(container_id))

    async def stop_container(self, container_id: str, grace_period_s: float) -> None:
        await self._containers.stop(container_id, grace_period_s)

    async def update_container(self, container_id: str, resources: Resources) -> None:
        await self._containers.update(container_id, resources)

    async def remove_container(self, container_id: str) -> None:
        await self._ground.to_its_end(self._containers.remove(container_id))

    async def reopen_log(self, container_id: str) -> None:
        self._inventory.running(container_id)
        await conmon.reopen_log(self._ground.container_path(container_id))

    async def containers(self) -> list[Container]:
        return [held.record.seen() for held in self._inventory.containers.values()]

    async def container(self, container_id: str) -> Container | None:
        held = self._inventory.containers.get(container_id)
        return held.record.seen() if held is not None else None

    def exits(self) -> AsyncIterator[str]:
        return self._exits.told()

    # -- inside of containers

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        self._inventory.running(container_id)
        return await processes.run_to_end(
            self._ground.command.line, self._ground.path("exec"), container_id, command, timeout_s, self._clock
        )

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> Streams:
        self._inventory.running(container_id)
        return await processes.ExecStreams.begin(
            self._ground.command.line,
            self._ground.path("exec"),
            container_id,
            command,
            self._clock,
            terminal=tty,
            stdin=stdin,
        )

    async def attach(self, container_id: str) -> Streams:
        held = self._inventory.running(container_id)

        async def exit_code() -> int:
            await held.exited.wait()
            return held.record.exit_code if held.record.exit_code is not None else container_folder.EXIT_UNKNOWN

        return await conmon.AttachedStreams.connect(self._ground.container_path(container_id), exit_code)

    async def usage(self, container_id: str) -> ContainerUsage | None:
        held = self._inventory.containers.get(container_id)
        if held is None or held.record.phase is not ContainerPhase.RUNNING:
            return None
        used = await asyncio.to_thread(self._ground.cgroups.usage, held.record.cgroup)
        if used is None:
            return None
        return ContainerUsage(self._clock.time_s(), used.cpu_ns, used.memory_bytes, used.total_bytes, used.rss_bytes)

    # -- images

    async def pull_image(
        self, image: str, *, insecure: bool | None = None, credentials: Credentials | None = None
    ) -> str:
        return await self._images.pull(image, insecure, credentials)

    async def load_image(self, path: str) -> list[str]:
        return await self._ground.to_its_end(self._images.load(path))

    async def image(self, reference: str) -> Image | None:
        found = self._images.find(reference)
        return images.as_image(found) if found is not None else None

    async def images(self) -> list[Image]:
        return [images.as_image(image) for image in self._images.all()]

    async def remove_image(self, image_id: str) -> None:
        await self._ground.to_its_end(self._images.remove(image_id, self._inventory.chains_in_use))
