"""A hollow runtime: it says that containers run, and nothing runs.

For simulations (hundreds of nodes in one process, virtual time) and for `knarr up --runtime sim`, which needs no
root. A container starts at once and runs for ever, unless told otherwise, by labels of its pod:

    sim.knarr.dev/exit-after-s: "2.5"   it ends by itself after so many seconds …
    sim.knarr.dev/exit-code: "1"        … with this code (0 without this label)
    sim.knarr.dev/start-failure: "why"  it can't be started
    sim.knarr.dev/ready: "false"        commands in it (exec probes) fail
    sim.knarr.dev/stop-s: "3"           it takes so long to end after SIGTERM
    sim.knarr.dev/cpu: "250m"           it seems to use so much CPU (0 without this label) …
    sim.knarr.dev/memory: "64Mi"        … and memory (1Mi)

or by a `behaviour` function. Every image can be had, but for those whose name contains `does-not-exist` or whose
tag is `missing`. The object is the node's state: an agent that is started anew with the same object finds its
containers again.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import os
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from knarr.api.quantity import milli, whole
from knarr.clock import Clock, until_one_ends
from knarr.node.runtime import archives, references
from knarr.node.runtime.contract import (
    Container,
    ContainerConfig,
    ContainerState,
    ContainerUsage,
    Credentials,
    ExecResult,
    Image,
    ImageNotPresent,
    PullFailure,
    Resources,
    RuntimeFailure,
    Sandbox,
    SandboxConfig,
    Streams,
)

LABEL = "sim.knarr.dev/"
IMAGE_BYTES = 10 << 20
"""Size that a simulated image claims."""
_MISSING_NAME, _MISSING_TAG = "does-not-exist", "missing"
_KILLED = 137
_TERMINATED = 143
_START_FAILED = 128


class Behaviour(Struct, frozen=True):
    """What a container does instead of running."""

    exit_after_s: float | None = None
    """None: runs for ever."""
    exit_code: int = 0
    start_failure: str = ""
    """Why it can't be started; empty when it can."""
    ready: bool = True
    """Whether commands in it succeed, so exec probes."""
    stop_s: float = 0.0
    """How long it takes to end after SIGTERM."""
    cpu_cores: float = 0.0
    """What it seems to use."""
    memory_bytes: int = 1 << 20


def from_labels(sandbox: SandboxConfig, container: ContainerConfig) -> Behaviour:
    """The behaviour that the labels of the pod ask for."""
    labels = {key.removeprefix(LABEL): value for key, value in sandbox.labels.items() if key.startswith(LABEL)}
    try:
        return Behaviour(
            exit_after_s=float(labels["exit-after-s"]) if "exit-after-s" in labels else None,
            exit_code=int(labels.get("exit-code", "0")),
            start_failure=labels.get("start-failure", ""),
            ready=labels.get("ready", "true") != "false",
            stop_s=float(labels.get("stop-s", "0")),
            cpu_cores=milli(labels.get("cpu", "0")) / 1000,
            memory_bytes=whole(labels.get("memory", "1Mi")),
        )
    except ValueError as error:
        raise RuntimeFailure("CreateContainerError", f"label {LABEL}…: {error}") from error


class SimRuntime:
    """The runtime contract with nothing behind it."""

    name = "knarr-sim"
    version = "1"

    def __init__(
        self,
        clock: Clock,
        address_range: str = "10.244.0.0/24",
        behaviour: Callable[[SandboxConfig, ContainerConfig], Behaviour] = from_labels,
    ) -> None:
        """`address_range`: of its pods; two, one of each family and separated by a comma, on a dual-stack node."""
        self._clock = clock
        self._behaviour_of = behaviour
        self._addresses = [_Addresses(each) for each in address_range.split(",")]
        self._sandboxes: dict[str, Sandbox] = {}
        self._containers: dict[str, Container] = {}
        self._behaviours: dict[str, Behaviour] = {}
        self._exited: dict[str, asyncio.Event] = {}
        self._ends: dict[str, asyncio.Task[None]] = {}
        """Only containers that end by themselves have a task."""
        self._images: dict[str, Image] = {}
        self._exits: dict[str, None] = {}
        """Exits not yet told; never more than there are containers."""
        self._exits_changed = asyncio.Event()

    # -- life cycle

    async def start(self) -> None:
        for container in self._containers.values():
            if container.state is ContainerState.RUNNING:
                self._plan_end(container)

    async def close(self) -> None:
        ends = list(self._ends.values())
        self._ends.clear()
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)

    # -- sandboxes

    async def run_sandbox(self, config: SandboxConfig) -> Sandbox:
        identity = self._new_id()
        ips = () if config.host_network else tuple(each.take() for each in self._addresses)
        namespace = None if config.host_network else f"/run/netns/sim-{identity}"
        sandbox = Sandbox(identity, config, True, ips, namespace, self._clock.time_s())
        self._sandboxes[identity] = sandbox
        return sandbox

    async def stop_sandbox(self, sandbox_id: str) -> None:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.ready:
            return
        self._sandboxes[sandbox_id] = replace(sandbox, ready=False)
        for container in self._of_sandbox(sandbox_id):
            self.end(container.id, _KILLED)
        for addresses, address in zip(self._addresses, sandbox.ips, strict=False):
            addresses.give_back(address)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        for container in self._of_sandbox(sandbox_id):
            await self.remove_container(container.id)
        self._sandboxes.pop(sandbox_id, None)

    async def sandboxes(self) -> list[Sandbox]:
        return list(self._sandboxes.values())

    # -- containers

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        sandbox = self._ready_sandbox(sandbox_id, "CreateContainerError")
        image = await self.image(config.image)
        if image is None:
            raise ImageNotPresent(config.image)
        self._images[image.id] = image
        identity = self._new_id()
        self._behaviours[identity] = self._behaviour_of(sandbox.config, config)
        self._exited[identity] = asyncio.Event()
        self._containers[identity] = Container(
            id=identity,
            sandbox_id=sandbox_id,
            name=config.name,
            attempt=config.attempt,
            image=config.image,
            image_id=image.id,
            state=ContainerState.CREATED,
            created_at_s=self._clock.time_s(),
            log_path=os.path.join(sandbox.config.log_directory, config.name, f"{config.attempt}.log"),
            resources=config.resources,
        )
        return identity

    async def update_container(self, container_id: str, resources: Resources) -> None:
        self._running(container_id)
        self._containers[container_id] = replace(self._known(container_id), resources=resources)

    async def bound_sandbox(
        self,
        sandbox_id: str,
        *,
        cpu_shares: int | None,
        cpu_quota_us: int | None,
        memory_limit_bytes: int | None,
    ) -> None:
        sandbox = self._ready_sandbox(sandbox_id, "NotRunning")
        bounds = replace(
            sandbox.config,
            cpu_shares=cpu_shares,
            cpu_quota_us=cpu_quota_us,
            memory_limit_bytes=memory_limit_bytes,
        )
        self._sandboxes[sandbox_id] = replace(sandbox, config=bounds)

    async def start_container(self, container_id: str) -> None:
        container = self._known(container_id)
        self._ready_sandbox(container.sandbox_id, "RunContainerError")
        if container.state is not ContainerState.CREATED:
            raise RuntimeFailure("RunContainerError", f"container {container_id} is {container.state}")
        now, trouble = self._clock.time_s(), self._behaviours[container_id].start_failure
        if trouble:
            self._containers[container_id] = replace(
                container,
                state=ContainerState.EXITED,
                exit_code=_START_FAILED,
                finished_at_s=now,
                message=trouble,
            )
            self._exited[container_id].set()
            raise RuntimeFailure("RunContainerError", trouble)
        container = replace(container, state=ContainerState.RUNNING, started_at_s=now)
        self._containers[container_id] = container
        self._plan_end(container)

    async def stop_container(self, container_id: str, grace_period_s: float) -> None:
        container = self._known(container_id)
        if container.state is not ContainerState.RUNNING:
            return
        stop_s = self._behaviours[container_id].stop_s
        in_time = stop_s <= grace_period_s and grace_period_s > 0
        delay_s = stop_s if in_time else grace_period_s
        if delay_s > 0:
            try:
                async with self._clock.timeout(delay_s):
                    await self._exited[container_id].wait()
            except TimeoutError:
                pass
        self.end(container_id, _TERMINATED if in_time else _KILLED)

    async def remove_container(self, container_id: str) -> None:
        if container_id in self._containers:
            self.end(container_id, _KILLED)
            del self._containers[container_id], self._behaviours[container_id], self._exited[container_id]
            self._exits.pop(container_id, None)

    async def reopen_log(self, container_id: str) -> None:
        self._running(container_id)

    async def containers(self) -> list[Container]:
        return list(self._containers.values())

    async def container(self, container_id: str) -> Container | None:
        return self._containers.get(container_id)

    def end(self, container_id: str, exit_code: int, *, oom_killed: bool = False) -> None:
        """Let a running container end now, as if it had crashed; for tests and fault injection."""
        container = self._containers.get(container_id)
        if container is None or container.state is not ContainerState.RUNNING:
            return
        planned = self._ends.pop(container_id, None)
        if planned is not None and planned is not asyncio.current_task():
            planned.cancel()
        self._containers[container_id] = replace(
            container,
            state=ContainerState.EXITED,
            exit_code=exit_code,
            oom_killed=oom_killed,
            finished_at_s=self._clock.time_s(),
        )
        self._exited[container_id].set()
        self._exits[container_id] = None
        self._exits_changed.set()

    def behave(self, container_id: str, behaviour: Behaviour) -> None:
        """Change what a container does from now on; for tests and fault injection."""
        self._behaviours[container_id] = behaviour
        planned = self._ends.pop(container_id, None)
        if planned is not None:
            planned.cancel()
        container = self._known(container_id)
        if container.state is ContainerState.RUNNING:
            self._plan_end(container)

    async def exits(self) -> AsyncIterator[str]:
        while True:
            while self._exits:
                container_id = next(iter(self._exits))
                del self._exits[container_id]
                yield container_id
            self._exits_changed.clear()
            await self._exits_changed.wait()

    def _plan_end(self, container: Container) -> None:
        behaviour = self._behaviours[container.id]
        if behaviour.exit_after_s is not None and container.started_at_s is not None:
            left_s = container.started_at_s + behaviour.exit_after_s - self._clock.time_s()
            self._ends[container.id] = asyncio.create_task(
                self._end_later(container.id, max(0.0, left_s), behaviour.exit_code)
            )

    async def _end_later(self, container_id: str, delay_s: float, exit_code: int) -> None:
        await self._clock.sleep(delay_s)
        self.end(container_id, exit_code)

    # -- inside of containers

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        self._running(container_id)
        ready = self._behaviours[container_id].ready
        return ExecResult(0 if ready else 1, b"simulated: no command was run\n")

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> Streams:
        result = await self.exec_sync(container_id, command, 0)
        ended = asyncio.Event()
        ended.set()
        return _SimStreams(result.output, ended, lambda: result.exit_code)

    async def attach(self, container_id: str) -> Streams:
        self._running(container_id)
        return _SimStreams(b"", self._exited[container_id], lambda: self._exit_code(container_id))

    async def usage(self, container_id: str) -> ContainerUsage | None:
        container = self._containers.get(container_id)
        if container is None or container.state is not ContainerState.RUNNING:
            return None
        now, behaviour = self._clock.time_s(), self._behaviours[container_id]
        ran_s = now - (container.started_at_s or now)
        memory = behaviour.memory_bytes
        return ContainerUsage(now, int(ran_s * behaviour.cpu_cores * 1e9), memory, memory, memory)

    # -- images

    async def pull_image(
        self, image: str, *, insecure: bool | None = None, credentials: Credentials | None = None
    ) -> str:
        found = await self.image(image)
        if found is None:
            reference = references.parse(image)
            raise PullFailure(
                "ErrImagePull",
                f'failed to pull image "{reference}": reading manifest {reference.tag or reference.digest} '
                f"in {reference.name}: manifest unknown",
            )
        self._images[found.id] = found
        return found.id

    async def load_image(self, path: str) -> list[str]:
        names = await asyncio.to_thread(_names_in, path)
        for name in names:
            image = _image(references.parse(name))
            self._images[image.id] = image
        return names

    async def image(self, reference: str) -> Image | None:
        identity = references.image_id(reference)
        if identity is not None:
            return self._images.get(identity)
        parsed = references.parse(reference)
        if _MISSING_NAME in parsed.path or parsed.tag == _MISSING_TAG:
            return None
        return _image(parsed)

    async def images(self) -> list[Image]:
        return list(self._images.values())

    async def remove_image(self, image_id: str) -> None:
        image = await self.image(image_id)
        if image is not None:
            self._images.pop(image.id, None)

    # -- small things

    def _of_sandbox(self, sandbox_id: str) -> list[Container]:
        return [container for container in self._containers.values() if container.sandbox_id == sandbox_id]

    def _ready_sandbox(self, sandbox_id: str, reason: str) -> Sandbox:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or not sandbox.ready:
            raise RuntimeFailure(reason, f"sandbox {sandbox_id} is not ready")
        return sandbox

    def _known(self, container_id: str) -> Container:
        container = self._containers.get(container_id)
        if container is None:
            raise RuntimeFailure("NotFound", f"there is no container {container_id}")
        return container

    def _running(self, container_id: str) -> Container:
        container = self._known(container_id)
        if container.state is not ContainerState.RUNNING:
            raise RuntimeFailure("NotRunning", f"container {container_id} is not running")
        return container

    def _exit_code(self, container_id: str) -> int:
        container = self._containers.get(container_id)
        return container.exit_code if container is not None and container.exit_code is not None else _KILLED

    def _new_id(self) -> str:
        return f"{self._clock.random.getrandbits(256):064x}"


class _Addresses:
    """Addresses of a range, each to one sandbox; one given back is used again as late as possible."""

    def __init__(self, address_range: str) -> None:
        network = ipaddress.ip_network(address_range)
        self._range = address_range
        # The first two are the network's own and its gateway's, the last is the broadcast address.
        self._next = int(network.network_address) + 2
        self._end = int(network.broadcast_address)
        self._kind = type(network.network_address)
        self._free: deque[str] = deque()

    def take(self) -> str:
        if self._next < self._end:
            self._next += 1
            return str(self._kind(self._next - 1))
        if self._free:
            return self._free.popleft()
        raise RuntimeFailure("FailedCreatePodSandBox", f"no address is free in {self._range}")

    def give_back(self, address: str) -> None:
        self._free.append(address)


class _SimStreams:
    """A session with nobody at the other end."""

    def __init__(self, output: bytes, ended: asyncio.Event, exit_code: Callable[[], int]) -> None:
        self._output = output
        self._ended = ended
        self._closed = asyncio.Event()
        self._exit_code = exit_code

    async def write(self, data: bytes) -> None:
        pass

    async def close_stdin(self) -> None:
        pass

    async def resize(self, width: int, height: int) -> None:
        pass

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        if self._output:
            yield 1, self._output
        await until_one_ends(self._ended.wait(), self._closed.wait())

    async def exit_code(self) -> int:
        await self._ended.wait()
        return self._exit_code()

    async def close(self) -> None:
        self._closed.set()


def _image(reference: references.Reference) -> Image:
    name = str(reference)
    identity = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
    tags, digests = ((), (name,)) if reference.digest else ((name,), ())
    return Image(identity, tags, digests, IMAGE_BYTES)


def _names_in(path: str) -> list[str]:
    try:
        with tempfile.TemporaryDirectory(prefix="knarr-load-") as scratch, archives.opened(path, scratch) as blobs:
            return [str(references.parse(name)) for found in archives.find_images(blobs) for name in found.names]
    except (archives.BrokenArchive, OSError) as error:
        raise RuntimeFailure("LoadImageError", f"{path}: {error}") from error
