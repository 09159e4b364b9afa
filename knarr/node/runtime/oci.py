"""Real containers: an OCI runtime (crun or runc) under conmon, on overlayfs, in namespaces of their pod.

On disk, below one folder that belongs to this runtime alone:

    sandboxes/<id>/    record.json, the bound namespaces (net, ipc, uts), shm/, hostname
    containers/<id>/   record.json, config.json, the file tree, and conmon's own files
    exits/<id>         the exit code, written by conmon
    images/            see images.py
    exec/              scratch of exec sessions
    runtime/           the OCI runtime's own state

Nothing runs in the agent: kill it, and containers run on, their logs are written and their exit codes kept.
`start` reads the records and watches what still runs. An exit is noticed by conmon's end, at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from knarr.clock import Clock
from knarr.node.runtime import (
    archives,
    conmon,
    container_folder,
    files,
    images,
    kernel,
    namespaces,
    probe,
    processes,
    records,
    sandbox_folder,
    spec,
)
from knarr.node.runtime.cgroups import ControlGroups
from knarr.node.runtime.contract import (
    Container,
    ContainerConfig,
    ContainerUsage,
    Credentials,
    ExecResult,
    Image,
    ImageNotPresent,
    PodNetwork,
    Resources,
    RuntimeFailure,
    Sandbox,
    SandboxConfig,
    Streams,
)
from knarr.node.runtime.oci_command import OciCommand
from knarr.node.runtime.records import ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord

KILL_S_MAX = 30.0
"""SIGKILL takes effect at once, but for a process that waits for a disk; after this it is reported."""
EXIT_START_FAILED = 128
"""Exit code of a container that could not be started, as containerd's."""

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class _Held(Struct):
    """A container, and what this process holds of it."""

    record: ContainerRecord
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    watch: conmon.Watch | None = None


class OciRuntime:
    """The runtime contract, for real. By default with the first of crun and runc that works here."""

    name = "knarr-oci"

    def __init__(
        self,
        root: str,
        clock: Clock,
        network: PodNetwork,
        runtime_binary: str | None = None,
        *,
        cgroup_root: str | None = None,
    ) -> None:
        self._root = os.path.abspath(root)
        self._clock = clock
        self._network = network
        self._wanted_binary = runtime_binary
        self._conmon = ""
        self._command = OciCommand("", "", clock)
        self.version = ""
        # Two runtimes on one machine must not share groups; their folders tell them apart.
        digest = hashlib.sha256(self._root.encode()).hexdigest()
        self._cgroups = ControlGroups(cgroup_root or f"/knarr-{digest[:8]}")
        self._host: spec.Host | None = None
        self._boot_id = ""
        self._images = images.ImageStore(self._path("images"), clock)
        self._sandboxes: dict[str, SandboxRecord] = {}
        self._sandbox_locks: dict[str, asyncio.Lock] = {}
        self._containers: dict[str, _Held] = {}
        self._under_way: set[asyncio.Task[Any]] = set()
        self._exits: dict[str, None] = {}
        """Containers that exited since the agent last looked, oldest first; never more than there are."""
        self._exits_changed = asyncio.Event()
        self._closing = False

    # -- life cycle

    async def start(self) -> None:
        await asyncio.to_thread(self._make_folders)
        self._boot_id = await asyncio.to_thread(records.boot_id)
        self._host = await asyncio.to_thread(
            spec.this_host, cgroup_v2=self._cgroups.is_v2, bounds_swap=self._cgroups.bounds_swap
        )
        chosen, _ = await asyncio.gather(
            probe.choose(self._wanted_binary, self._root, self._cgroups.path("probe"), self._boot_id),
            self._images.start(),
        )
        self.version, self._conmon = chosen.version, chosen.conmon
        self._command = OciCommand(chosen.binary, self._path("runtime"), self._clock)
        await self._find_again()

    async def close(self) -> None:
        self._closing = True
        for held in self._containers.values():
            self._unwatch(held)
        await self._images.close()
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def clear(self) -> None:
        """Stop and remove every sandbox, leaving nothing in the kernel; images stay: for `knarr down`."""
        while self._under_way:  # a sandbox half made would come after the others went
            await asyncio.wait(self._under_way)
        await asyncio.gather(*(self.remove_sandbox(sandbox_id) for sandbox_id in list(self._sandboxes)))
        await asyncio.to_thread(self._cgroups.remove_root)

    async def purge(self) -> None:
        """Stop and remove everything of this runtime, images too."""
        await self.clear()
        await self.close()
        await asyncio.to_thread(shutil.rmtree, self._root, True)

    # -- sandboxes

    async def run_sandbox(self, config: SandboxConfig) -> Sandbox:
        return await self._to_its_end(self._run_sandbox(config))

    async def _run_sandbox(self, config: SandboxConfig) -> Sandbox:
        record = SandboxRecord(self._new_id(), config, self._boot_id, self._clock.time_s())
        folder = self._sandbox_path(record.id)
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
                groups = self._cgroups.make(_first_process_group(record))
                await asyncio.to_thread(namespaces.share_processes, folder, groups)
            if not config.host_network:
                # hostPort: whoever makes the rules reads config.port_mappings and ips from `sandboxes()`.
                record.ips = await self._network.attach(record.id, self._network_namespace(record) or "")
            record.phase = SandboxPhase.READY
            await asyncio.to_thread(records.write, folder, record)
        except Exception as error:
            await self._free_sandbox(record)
            if isinstance(error, RuntimeFailure):
                raise
            raise RuntimeFailure("FailedCreatePodSandBox", f"failed to create pod sandbox: {error}") from error
        self._sandboxes[record.id] = record
        return self._seen(record)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await self._to_its_end(self._stop_sandbox(sandbox_id))

    async def _stop_sandbox(self, sandbox_id: str) -> None:
        async with self._sandbox_lock(sandbox_id):
            record = self._sandboxes.get(sandbox_id)
            if record is None:
                return
            # Not ready first: no container may be started in it any more.
            record.phase = SandboxPhase.STOPPED
            await asyncio.gather(*(self._kill(held) for held in self._of_sandbox(sandbox_id)))
            await self._detach(record)
            if record.config.share_processes:
                await asyncio.to_thread(self._cgroups.remove, _first_process_group(record))
            await asyncio.to_thread(namespaces.release, self._sandbox_path(sandbox_id))
            await asyncio.to_thread(records.write, self._sandbox_path(sandbox_id), record)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._to_its_end(self._remove_sandbox(sandbox_id))

    async def _remove_sandbox(self, sandbox_id: str) -> None:
        await self._stop_sandbox(sandbox_id)
        await asyncio.gather(*(self._remove_container(held.record.id) for held in self._of_sandbox(sandbox_id)))
        async with self._sandbox_lock(sandbox_id):
            record = self._sandboxes.get(sandbox_id)
            if record is not None:
                await self._free_sandbox(record)
                del self._sandboxes[sandbox_id]
        self._sandbox_locks.pop(sandbox_id, None)

    async def sandboxes(self) -> list[Sandbox]:
        return [self._seen(record) for record in self._sandboxes.values()]

    async def _free_sandbox(self, record: SandboxRecord) -> None:
        """Leave nothing of a sandbox whose containers are gone."""
        await self._detach(record)
        if record.config.share_processes:
            await asyncio.to_thread(self._cgroups.remove, _first_process_group(record))
        await asyncio.to_thread(sandbox_folder.remove, self._sandbox_path(record.id))
        parents = {other.config.cgroup_parent for other in self._sandboxes.values() if other.id != record.id}
        if record.config.cgroup_parent not in parents:
            await asyncio.to_thread(self._cgroups.remove, record.config.cgroup_parent)

    async def _detach(self, record: SandboxRecord) -> None:
        path = self._network_namespace(record)
        # Unbinding removes the file, so once it is gone there is nothing left to take back.
        if path is not None and await asyncio.to_thread(os.path.lexists, path):
            await self._network.detach(record.id, path)

    def _bound_pod(self, config: SandboxConfig) -> None:
        self._cgroups.create(
            config.cgroup_parent,
            cpu_shares=config.cpu_shares,
            cpu_quota_us=config.cpu_quota_us,
            memory_limit_bytes=config.memory_limit_bytes,
        )

    # -- containers

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        return await self._to_its_end(self._create_container(sandbox_id, config))

    async def _create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.phase is not SandboxPhase.READY:
            raise RuntimeFailure("CreateContainerError", f"sandbox {sandbox_id} is not ready")
        image = self._images.find(config.image)
        if image is None:
            raise ImageNotPresent(config.image)
        identity = self._new_id()
        record = ContainerRecord(
            id=identity,
            sandbox_id=sandbox_id,
            config=config,
            image_id=image.digests[0] if image.digests else image.id,
            chain=image.chain,
            stop_signal=signal.SIGTERM,
            log_path=os.path.join(sandbox.config.log_directory, config.name, f"{config.attempt}.log"),
            cgroup=f"{sandbox.config.cgroup_parent}/{identity}",
            boot_id=self._boot_id,
            created_at_s=self._clock.time_s(),
        )
        # Held from here on, without a pause since the image was found: its layers are in use.
        held = self._containers[identity] = _Held(record)
        async with held.lock:
            try:
                settings = (await self._images.configuration(image)).config or archives.ImageSettings()
                record.stop_signal = spec.stop_signal(settings)
                await kernel.in_thread_of_its_own(partial(self._prepare_container, record, sandbox, settings))
            except Exception as error:
                await asyncio.to_thread(container_folder.remove, self._container_path(identity))
                del self._containers[identity]
                if isinstance(error, RuntimeFailure):
                    raise
                raise RuntimeFailure("CreateContainerError", f"failed to create container: {error}") from error
        return identity

    def _prepare_container(
        self, record: ContainerRecord, sandbox: SandboxRecord, settings: archives.ImageSettings
    ) -> None:
        assert self._host is not None
        place = sandbox_folder.place(
            self._sandbox_path(sandbox.id),
            sandbox,
            record.config.name,
            self._cgroups.path(record.cgroup),
            self._processes_of(record.config.target_id) if record.config.target_id else None,
        )
        layers = self._images.layer_paths(record.chain)
        container_folder.create(self._container_path(record.id), record, layers, settings, place, self._host)

    def _processes_of(self, container_id: str) -> str | None:
        """The process namespace of a container that runs. RuntimeFailure when it doesn't."""
        process = self._running(container_id).record.process
        return f"/proc/{process.pid}/ns/pid" if process is not None else None

    async def start_container(self, container_id: str) -> None:
        await self._to_its_end(self._start_container(container_id))

    async def _start_container(self, container_id: str) -> None:
        held = self._held(container_id)
        async with held.lock:
            record, folder = held.record, self._container_path(container_id)
            if record.phase is not ContainerPhase.CREATED:
                raise RuntimeFailure("RunContainerError", f"container {container_id} is {record.phase}")
            sandbox = self._sandboxes.get(record.sandbox_id)
            if sandbox is None or sandbox.phase is not SandboxPhase.READY:
                raise RuntimeFailure("RunContainerError", f"sandbox {record.sandbox_id} is not ready")
            record.phase = ContainerPhase.STARTING
            await asyncio.to_thread(records.write, folder, record)
            try:
                launched = await conmon.launch(self._launch(record))
                await asyncio.to_thread(self._cgroups.adopt_monitor, launched.monitor.pid)
                await self._command.run("start", container_id, reason="RunContainerError")
            except Exception as error:
                await self._give_up_starting(held, str(error))
                if isinstance(error, RuntimeFailure):
                    raise
                raise RuntimeFailure("RunContainerError", f"failed to start container: {error}") from error
            record.monitor, record.process = launched.monitor, launched.container
            record.started_at_s = self._clock.time_s()
            record.phase = ContainerPhase.RUNNING
            await asyncio.to_thread(records.write, folder, record)
            self._watch(held)

    def _launch(self, record: ContainerRecord) -> conmon.Launch:
        return conmon.Launch(
            self._conmon,
            self._command.binary,
            self._path("runtime"),
            record.id,
            self._container_path(record.id),
            self._path("exits"),
            record.log_path,
            record.config.tty,
            record.config.stdin,
            record.config.stdin_once,
        )

    async def _forget(self, record: ContainerRecord) -> None:
        """The OCI runtime and the kernel know nothing of the container any more; its folder stays."""
        await self._command.delete(record.id)
        await asyncio.to_thread(self._cgroups.remove, record.cgroup)

    async def _give_up_starting(self, held: _Held, message: str) -> None:
        """Whatever came of it goes, and the container counts as exited."""
        record = held.record
        await self._forget(record)
        record.phase = ContainerPhase.EXITED
        record.exit_code = EXIT_START_FAILED
        record.finished_at_s = self._clock.time_s()
        record.message = message
        await asyncio.to_thread(records.write, self._container_path(record.id), record)
        held.exited.set()

    async def stop_container(self, container_id: str, grace_period_s: float) -> None:
        held = self._held(container_id)
        async with held.lock:
            running = held.record.phase is ContainerPhase.RUNNING
        if not running:
            return
        if grace_period_s > 0 and held.record.process is not None:
            held.record.process.kill(held.record.stop_signal)
            with contextlib.suppress(TimeoutError):
                async with self._clock.timeout(grace_period_s):
                    await held.exited.wait()
                    return
        await self._kill(held)

    async def _kill(self, held: _Held) -> None:
        """SIGKILL to its first process, with which the kernel ends all others of its PID namespace."""
        async with held.lock:
            if held.record.phase is not ContainerPhase.RUNNING or held.record.process is None:
                return
            held.record.process.kill(signal.SIGKILL)
        try:
            async with self._clock.timeout(KILL_S_MAX):
                await held.exited.wait()
        except TimeoutError as error:
            raise RuntimeFailure(
                "KillContainerError", f"container {held.record.id} does not end after SIGKILL"
            ) from error

    async def update_container(self, container_id: str, resources: Resources) -> None:
        held = self._running(container_id)
        assert self._host is not None
        async with held.lock:
            record, folder = held.record, self._container_path(container_id)
            path = os.path.join(folder, "resources.json")
            wanted = spec.bounds(resources, self._host)
            await asyncio.to_thread(files.write, path, json.dumps(wanted).encode())
            await self._command.run("update", "--resources", path, container_id, reason="UpdateContainerError")
            record.config = msgspec.structs.replace(record.config, resources=resources)
            await asyncio.to_thread(records.write, folder, record)

    async def bound_sandbox(
        self,
        sandbox_id: str,
        *,
        cpu_shares: int | None,
        cpu_quota_us: int | None,
        memory_limit_bytes: int | None,
    ) -> None:
        async with self._sandbox_lock(sandbox_id):
            record = self._sandboxes.get(sandbox_id)
            if record is None or record.phase is not SandboxPhase.READY:
                raise RuntimeFailure("NotRunning", f"sandbox {sandbox_id} is not ready")
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
            await asyncio.to_thread(records.write, self._sandbox_path(sandbox_id), record)

    async def remove_container(self, container_id: str) -> None:
        await self._to_its_end(self._remove_container(container_id))

    async def _remove_container(self, container_id: str) -> None:
        held = self._containers.get(container_id)
        if held is None:
            return
        await self._kill(held)
        async with held.lock:
            if container_id not in self._containers:
                return
            self._unwatch(held)
            await self._forget(held.record)
            await asyncio.to_thread(container_folder.remove, self._container_path(container_id))
            await asyncio.to_thread(files.remove, self._path("exits", container_id))
            del self._containers[container_id]
            self._exits.pop(container_id, None)

    async def reopen_log(self, container_id: str) -> None:
        self._running(container_id)
        await conmon.reopen_log(self._container_path(container_id))

    async def containers(self) -> list[Container]:
        return [held.record.seen() for held in self._containers.values()]

    async def container(self, container_id: str) -> Container | None:
        held = self._containers.get(container_id)
        return held.record.seen() if held is not None else None

    # -- exits

    async def exits(self) -> AsyncIterator[str]:
        while True:
            while self._exits:
                container_id = next(iter(self._exits))
                del self._exits[container_id]
                yield container_id
            self._exits_changed.clear()
            await self._exits_changed.wait()

    def _watch(self, held: _Held) -> None:
        assert held.record.monitor is not None
        if not self._closing:
            held.watch = conmon.Watch(held.record.monitor, partial(self._exit_noticed, held))

    def _unwatch(self, held: _Held) -> None:
        if held.watch is not None:
            held.watch.close()
            held.watch = None

    def _exit_noticed(self, held: _Held) -> None:
        if not self._closing:
            self._spawn(self._note_exit(held))

    async def _note_exit(self, held: _Held) -> None:
        async with held.lock:
            record = held.record
            if record.phase is not ContainerPhase.RUNNING:
                return
            await asyncio.to_thread(self._fill_in_exit, record)
            record.phase = ContainerPhase.EXITED
            try:
                await asyncio.to_thread(records.write, self._container_path(record.id), record)
            except OSError as error:  # the next agent learns it from conmon's file again
                _log.warning("container %s: its exit is not recorded: %s", record.id, error)
        held.exited.set()
        self._exits[record.id] = None
        self._exits_changed.set()

    def _fill_in_exit(self, record: ContainerRecord) -> None:
        if self._shares_processes(record):
            # The kernel ended the others with the first only where the namespace was the container's own.
            self._cgroups.kill(record.cgroup)
        found = container_folder.read_exit(self._path("exits", record.id), record, self._boot_id)
        record.exit_code, record.message = found.code, found.message
        record.finished_at_s = found.at_s if found.at_s is not None else self._clock.time_s()
        record.oom_killed = found.code != 0 and self._cgroups.oom_kills(record.cgroup) > 0

    def _shares_processes(self, record: ContainerRecord) -> bool:
        sandbox = self._sandboxes.get(record.sandbox_id)
        config = sandbox.config if sandbox is not None else None
        return bool(record.config.target_id) or (config is not None and (config.share_processes or config.host_pid))

    # -- inside of containers

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        self._running(container_id)
        return await processes.run_to_end(
            self._command.line, self._path("exec"), container_id, command, timeout_s, self._clock
        )

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> Streams:
        self._running(container_id)
        return await processes.ExecStreams.begin(
            self._command.line, self._path("exec"), container_id, command, self._clock, terminal=tty, stdin=stdin
        )

    async def attach(self, container_id: str) -> Streams:
        held = self._running(container_id)

        async def exit_code() -> int:
            await held.exited.wait()
            return held.record.exit_code if held.record.exit_code is not None else container_folder.EXIT_UNKNOWN

        return await conmon.AttachedStreams.connect(self._container_path(container_id), exit_code)

    async def usage(self, container_id: str) -> ContainerUsage | None:
        held = self._containers.get(container_id)
        if held is None or held.record.phase is not ContainerPhase.RUNNING:
            return None
        used = await asyncio.to_thread(self._cgroups.usage, held.record.cgroup)
        if used is None:
            return None
        return ContainerUsage(self._clock.time_s(), used.cpu_ns, used.memory_bytes, used.total_bytes, used.rss_bytes)

    # -- images

    async def pull_image(
        self, image: str, *, insecure: bool | None = None, credentials: Credentials | None = None
    ) -> str:
        return await self._images.pull(image, insecure, credentials)

    async def load_image(self, path: str) -> list[str]:
        return await self._to_its_end(self._images.load(path))

    async def image(self, reference: str) -> Image | None:
        found = self._images.find(reference)
        return images.as_image(found) if found is not None else None

    async def images(self) -> list[Image]:
        return [images.as_image(image) for image in self._images.all()]

    async def remove_image(self, image_id: str) -> None:
        await self._to_its_end(self._images.remove(image_id, self._chains_in_use))

    def _chains_in_use(self) -> list[tuple[str, ...]]:
        return [held.record.chain for held in self._containers.values()]

    # -- finding again

    async def _find_again(self) -> None:
        """Take up what is on disk: watch what runs, note what has exited, remove what was half made."""
        sandboxes, containers = await asyncio.to_thread(self._read_records)
        for sandbox in sandboxes:
            self._sandboxes[sandbox.id] = sandbox
        for record in containers:
            self._containers[record.id] = _Held(record)
        taken_up = await asyncio.gather(
            *(self._take_up(held) for held in list(self._containers.values())), return_exceptions=True
        )
        for failure in (result for result in taken_up if result is not None):
            _log.warning("a container of an earlier run: %s", failure)
        for sandbox in sandboxes:
            try:
                if sandbox.phase is SandboxPhase.CREATING:
                    await self._remove_sandbox(sandbox.id)
                elif sandbox.phase is SandboxPhase.READY and not await asyncio.to_thread(self._whole, sandbox):
                    await self._stop_sandbox(sandbox.id)
            except Exception as error:
                # One that won't go must not keep the node from starting; it is not ready, and is tried again.
                sandbox.phase = SandboxPhase.STOPPED
                _log.warning("sandbox %s of an earlier run: %s", sandbox.id, error)
        await self._images.sweep(self._chains_in_use)

    async def _take_up(self, held: _Held) -> None:
        record = held.record
        if record.phase is ContainerPhase.EXITED:
            held.exited.set()
        elif record.boot_id != self._boot_id and record.phase is not ContainerPhase.CREATING:
            record.phase = ContainerPhase.RUNNING
            await self._note_exit(held)
        elif record.phase is ContainerPhase.STARTING:
            # conmon and the OCI runtime may be at it still: they don't end with the agent that called them.
            await asyncio.to_thread(conmon.kill_all_of, record.id)
            await self._give_up_starting(held, "the node agent ended while the container was starting")
            self._exits[record.id] = None
        elif record.phase is ContainerPhase.RUNNING:
            self._watch(held)
        if record.phase is ContainerPhase.CREATING or record.sandbox_id not in self._sandboxes:
            await self._remove_container(record.id)

    def _read_records(self) -> tuple[list[SandboxRecord], list[ContainerRecord]]:
        sandboxes, containers = [], []
        for entry in os.scandir(self._path("sandboxes")):
            sandbox = records.read(entry.path, SandboxRecord)
            if sandbox is not None:
                sandboxes.append(sandbox)
            else:
                sandbox_folder.remove(entry.path)
        for entry in os.scandir(self._path("containers")):
            container = records.read(entry.path, ContainerRecord)
            if container is not None:
                containers.append(container)
            else:
                container_folder.remove(entry.path)
        sandboxes.sort(key=lambda record: record.created_at_s)
        containers.sort(key=lambda record: record.created_at_s)
        return sandboxes, containers

    def _whole(self, sandbox: SandboxRecord) -> bool:
        config = sandbox.config
        expected = set(namespaces.of_sandbox(host_network=config.host_network, host_ipc=config.host_ipc))
        if config.share_processes:
            expected.add(namespaces.PROCESSES)
        present = set(namespaces.present(self._sandbox_path(sandbox.id)))
        return sandbox.boot_id == self._boot_id and expected <= present

    # -- small things

    def _make_folders(self) -> None:
        os.makedirs(self._root, mode=0o711, exist_ok=True)
        for name in ("sandboxes", "containers", "exits", "runtime"):
            os.makedirs(self._path(name), mode=0o711, exist_ok=True)
        os.makedirs(self._path("images"), mode=0o711, exist_ok=True)
        # Sessions end with the agent; what a killed one left of them is of no use.
        shutil.rmtree(self._path("exec"), ignore_errors=True)
        os.mkdir(self._path("exec"), 0o700)

    def _path(self, *parts: str) -> str:
        return os.path.join(self._root, *parts)

    def _sandbox_path(self, sandbox_id: str) -> str:
        return self._path("sandboxes", sandbox_id)

    def _container_path(self, container_id: str) -> str:
        return self._path("containers", container_id)

    def _network_namespace(self, record: SandboxRecord) -> str | None:
        if record.config.host_network:
            return None
        return namespaces.path(self._sandbox_path(record.id), namespaces.NETWORK)

    def _seen(self, record: SandboxRecord) -> Sandbox:
        return record.seen(self._network_namespace(record))

    def _sandbox_lock(self, sandbox_id: str) -> asyncio.Lock:
        return self._sandbox_locks.setdefault(sandbox_id, asyncio.Lock())

    def _of_sandbox(self, sandbox_id: str) -> list[_Held]:
        return [held for held in self._containers.values() if held.record.sandbox_id == sandbox_id]

    def _held(self, container_id: str) -> _Held:
        held = self._containers.get(container_id)
        if held is None:
            raise RuntimeFailure("NotFound", f"there is no container {container_id}")
        return held

    def _running(self, container_id: str) -> _Held:
        held = self._held(container_id)
        if held.record.phase is not ContainerPhase.RUNNING:
            raise RuntimeFailure("NotRunning", f"container {container_id} is not running")
        return held

    def _new_id(self) -> str:
        while (identity := f"{self._clock.random.getrandbits(256):064x}") in self._sandboxes.keys() | self._containers:
            pass
        return identity

    async def _to_its_end(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """A change is made wholly, also when the one who asked goes away: nothing is left half made."""
        return await asyncio.shield(self._spawn(work))

    def _spawn(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # the one who asked has it, if still there


def _first_process_group(record: SandboxRecord) -> str:
    """The control group of the process that keeps a pod's shared processes."""
    return f"{record.config.cgroup_parent}/{record.id}"


async def _all(*work: Awaitable[object]) -> None:
    """Wait for all of them, then raise the first error: nothing still runs when the clean-up begins."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
