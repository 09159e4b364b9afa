"""What the node agent asks of a container runtime.

The shape follows the Kubernetes Container Runtime Interface (CRI, runtime/v1): a *sandbox* holds what the
containers of a pod share (network, IPC and UTS namespaces, cgroup parent, log folder), containers are created
in it, then started. A CRI runtime fits behind this interface without loss. Implementations: `oci` (conmon and
an OCI runtime, real), `sim` (hollow: nothing runs, states change as they would).

All implementations keep their state outside the process: after a restart of the agent `sandboxes()` and
`containers()` list what still runs, and exits that happened meanwhile are reported with their true exit code.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct, field

from knarr.client.nodes import Streams as Streams


class RuntimeFailure(Exception):
    """The runtime could not do what was asked. `reason` is the word kubectl shows: CreateContainerError, …"""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class ImageNotPresent(RuntimeFailure):
    """The image is not on this node."""

    def __init__(self, image: str) -> None:
        super().__init__("ErrImageNeverPull", f"image {image!r} is not present on this node")


class SandboxConfig(Struct, frozen=True):
    """What the containers of one pod share."""

    pod_uid: str
    pod_name: str
    pod_namespace: str
    attempt: int
    """Rises by one for each new sandbox of the same pod."""
    hostname: str
    log_directory: str
    """Absolute folder below which container logs are written, e.g. /var/log/pods/<ns>_<name>_<uid>."""
    cgroup_parent: str
    """Path of the pod's cgroup below the runtime's root, e.g. "burstable/pod<uid>"."""
    host_network: bool = False
    host_pid: bool = False
    """Its containers see the machine's processes."""
    host_ipc: bool = False
    share_processes: bool = False
    """Its containers see each other's processes."""
    labels: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    port_mappings: Sequence[PortMapping] = ()
    cpu_quota_us: int | None = None
    """Pod-level bounds, applied to the pod's cgroup (sum of containers); None for no bound."""
    cpu_shares: int | None = None
    memory_limit_bytes: int | None = None


class PortMapping(Struct, frozen=True):
    """hostPort of a container port."""

    protocol: str
    container_port: int
    host_port: int
    host_ip: str = ""


class Sandbox(Struct, frozen=True):
    """A sandbox as it is."""

    id: str
    config: SandboxConfig
    ready: bool
    ips: tuple[str, ...]
    """Pod addresses, IPv4 first; empty with host_network."""
    network_namespace: str | None
    """Path of the network namespace, or None with host_network."""
    created_at_s: float


class Mount(Struct, frozen=True):
    """A bind mount of `host_path` on `container_path`."""

    host_path: str
    container_path: str
    read_only: bool = False


class Resources(Struct, frozen=True):
    """Bounds of one container, in the kernel's units; None for no bound."""

    cpu_shares: int | None = None
    cpu_quota_us: int | None = None
    cpu_period_us: int = 100_000
    memory_limit_bytes: int | None = None


class SecurityContext(Struct, frozen=True):
    """What the container may do; numbers are those of the kernel."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool = False
    supplemental_groups: tuple[int, ...] = ()
    privileged: bool = False
    read_only_root: bool = False
    no_new_privileges: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()


class ContainerConfig(Struct, frozen=True):
    """One container to create. `command` and `args` replace the image's Entrypoint and Cmd, as upstream."""

    name: str
    attempt: int
    """restartCount: the log is written to <log_directory>/<name>/<attempt>.log."""
    image: str
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    working_dir: str = ""
    env: Sequence[tuple[str, str]] = ()
    mounts: Sequence[Mount] = ()
    resources: Resources = Resources()
    security: SecurityContext = SecurityContext()
    tty: bool = False
    stdin: bool = False
    stdin_once: bool = False
    oom_score_adj: int | None = None
    target_id: str = ""
    """The container whose processes this one sees (an ephemeral container's target); empty for none."""


class ContainerState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


class Container(Struct, frozen=True):
    """A container as it is."""

    id: str
    sandbox_id: str
    name: str
    attempt: int
    image: str
    """As asked for in the pod."""
    image_id: str
    """Digest reference of what runs: sha256:<config digest>, or name@sha256:<manifest digest>."""
    state: ContainerState
    created_at_s: float
    started_at_s: float | None = None
    finished_at_s: float | None = None
    exit_code: int | None = None
    """128 + signal number for a container that a signal ended."""
    oom_killed: bool = False
    pid: int | None = None
    log_path: str = ""
    message: str = ""
    """Why it could not be started, where the runtime said so."""
    resources: Resources = Resources()
    """The bounds that it has now."""


class ContainerUsage(Struct, frozen=True):
    """CPU and memory of a container at a moment, from its cgroup."""

    at_s: float
    cpu_ns: int
    """CPU time used since its start."""
    memory_bytes: int
    """Working set: usage less inactive file pages."""
    total_bytes: int = 0
    """All memory that is counted as its, file pages included."""
    rss_bytes: int = 0


class ExecResult(Struct, frozen=True):
    exit_code: int
    output: bytes
    """stdout and stderr together, cut to 16 KiB."""


class Image(Struct, frozen=True):
    """An image on this node."""

    id: str
    """sha256:<config digest>."""
    repo_tags: tuple[str, ...]
    repo_digests: tuple[str, ...]
    size_bytes: int
    user: str = ""


class PullFailure(RuntimeFailure):
    """A pull that failed; reason is ErrImagePull, InvalidImageName or RegistryUnavailable."""


class Credentials(Struct, frozen=True):
    """Who asks a registry."""

    username: str
    password: str
    identity_token: str = ""


class PodNetwork(Protocol):
    """Joins sandboxes to the network of the pods (the task that CNI plugins have upstream)."""

    async def attach(self, sandbox_id: str, network_namespace: str) -> tuple[str, ...]:
        """Give the namespace at this path an interface and addresses; answers those, IPv4 first."""

    async def detach(self, sandbox_id: str, network_namespace: str) -> None:
        """Take back what `attach` gave. Idempotent; the namespace may be gone (after a restart of the machine
        the path is a plain file)."""


class Runtime(Protocol):
    """A container runtime. Every method may raise RuntimeFailure; none blocks the event loop."""

    name: str
    version: str

    async def start(self) -> None:
        """Prepare (folders, cgroup roots, network) and find again what already runs. Called once, first."""

    async def close(self) -> None:
        """Let go of everything without stopping any container."""

    async def run_sandbox(self, config: SandboxConfig) -> Sandbox:
        """Create namespaces and cgroup, attach to the pod network."""

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill what still runs in it, detach the network. Idempotent."""

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Remove it with all of its containers; leaves no mount, namespace or cgroup. Idempotent."""

    async def sandboxes(self) -> list[Sandbox]: ...

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        """Prepare a container from an image that is present; answers its id."""

    async def start_container(self, container_id: str) -> None: ...

    async def stop_container(self, container_id: str, grace_period_s: float) -> None:
        """SIGTERM (or the image's StopSignal), SIGKILL after `grace_period_s`; returns when it has exited."""

    async def update_container(self, container_id: str, resources: Resources) -> None:
        """Change the bounds of a container that runs."""

    async def bound_sandbox(
        self,
        sandbox_id: str,
        *,
        cpu_shares: int | None,
        cpu_quota_us: int | None,
        memory_limit_bytes: int | None,
    ) -> None:
        """Change the bounds of all containers of a pod together."""

    async def remove_container(self, container_id: str) -> None:
        """Remove an exited container and its root file system; its log stays. Idempotent."""

    async def reopen_log(self, container_id: str) -> None:
        """Go on writing at the log's path, which was renamed: how the agent rotates logs (CRI ReopenContainerLog)."""

    async def containers(self) -> list[Container]: ...

    async def container(self, container_id: str) -> Container | None: ...

    def exits(self) -> AsyncIterator[str]:
        """Ids of containers, as they exit; the agent's wake-up call. One consumer."""

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """Run a command in a container to its end. TimeoutError after `timeout_s`, the process killed."""

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> Streams: ...

    async def attach(self, container_id: str) -> Streams: ...

    async def usage(self, container_id: str) -> ContainerUsage | None: ...

    async def pull_image(
        self, image: str, *, insecure: bool | None = None, credentials: Credentials | None = None
    ) -> str:
        """Fetch an image from its registry; answers its id. PullFailure when it can't be had."""

    async def load_image(self, path: str) -> list[str]:
        """Take images from a `docker save` or OCI archive; answers the names they got."""

    async def image(self, reference: str) -> Image | None:
        """The image that `reference` (name, name:tag, name@digest, id) names here, or None."""

    async def images(self) -> list[Image]: ...

    async def remove_image(self, image_id: str) -> None: ...
