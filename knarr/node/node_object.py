"""The Node object: what this machine is and has, whether it is well, and the heartbeat that says it lives.

The Lease in kube-node-lease is renewed every 10 s (KEP-589); the status is written when the Node shows something else,
and each 5 minutes. Others write there too: the node lifecycle loop says Unknown of a node that was silent, people
declare amounts of what only they can count (extended resources), and monitors have conditions of their own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from knarr.api import types
from knarr.api.coordination.v1 import Lease, LeaseSpec
from knarr.api.core.v1 import (
    ContainerImage,
    DaemonEndpoint,
    Node,
    NodeAddress,
    NodeCondition,
    NodeDaemonEndpoints,
    NodeSpec,
    NodeStatus,
    NodeSystemInfo,
)
from knarr.api.errors import AlreadyExists, APIError, NotFound
from knarr.api.meta.v1 import ObjectMeta, OwnerReference
from knarr.api.names import is_extended_resource
from knarr.api.quantity import canonical
from knarr.api.types import Quantity
from knarr.client.client import Client
from knarr.client.events import EventRecorder
from knarr.client.informer import Informer, version_of
from knarr.clock import Clock, micro_time, utc
from knarr.node.config import KUBELET_VERSION, NodeConfig
from knarr.node.runtime.contract import Image, Runtime

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
LEASE_S = 40
RENEW_S = 10.0
STATUS_S = 10.0
"""Between two looks at the machine."""
REPORT_S = 300.0
"""A status that hasn't changed is written that often."""
RETRY_MIN_S = 0.05
RETRY_MAX_S = 7.0
IMAGES_MAX = 50
"""Images that the status lists, the largest first: upstream's bound."""
MEMORY_LOW_BYTES = 100 << 20
DISK_LOW = 0.10
"""Free share of the disk under which it is short: upstream's nodefs.available."""
PIDS_LOW = 0.10
TOLD = {
    ("MemoryPressure", "False"): "NodeHasSufficientMemory",
    ("MemoryPressure", "True"): "NodeHasInsufficientMemory",
    ("DiskPressure", "False"): "NodeHasNoDiskPressure",
    ("DiskPressure", "True"): "NodeHasDiskPressure",
    ("PIDPressure", "False"): "NodeHasSufficientPID",
    ("PIDPressure", "True"): "NodeHasInsufficientPID",
    ("Ready", "True"): "NodeReady",
}
"""The reason of the event that tells of a condition."""


class NodeObject:
    """Registers the node, then keeps its status and its lease."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        runtime: Runtime,
        config: NodeConfig,
        nodes: Informer[Node],
        events: EventRecorder,
    ) -> None:
        self._client = client
        self._clock = clock
        self._runtime = runtime
        self._config = config
        self._nodes = nodes
        self._events = events
        # As upstream's kubelet names the node in its events; kubectl describe looks for both.
        self._named = Node(metadata=ObjectMeta(name=config.name, uid=config.name))
        self._unschedulable = False
        self.capacity: dict[str, Quantity] = {**config.capacity} or {**machine_capacity(config)}
        self.node: Node | None = None
        """As the server answered last."""

    async def run(self) -> None:
        self._events.normal(self._named, "Starting", "Starting kubelet.")
        await self.register()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew(), name="node lease")
            group.create_task(self._report(), name="node status")

    async def register(self) -> None:
        """The Node is there, and says that it is ready. Tries until it has gone well."""
        delay_s = RETRY_MIN_S
        while True:
            try:
                await self._ensure()
                return
            except APIError as error:
                log.warning("registering node %s: %s; trying again", self._config.name, error)
            await self._clock.sleep(delay_s * (0.5 + self._clock.random.random()))
            delay_s = min(delay_s * 2, RETRY_MAX_S)

    async def _ensure(self) -> None:
        wanted = self._object(await self._status(None))
        try:
            self.node = await self._client.create(wanted)
            if self.node.status is not None and self.node.status.conditions:
                self._tell(None, self.node)
                return
        except AlreadyExists:
            self.node = await self._client.get(Node, self._config.name)
            await self._bring_labels(wanted)
        await self._write(self.node, await self._status(self.node))

    async def _bring_labels(self, wanted: Node) -> None:
        assert self.node is not None
        metadata = self.node.metadata
        missing = {key: value for key, value in wanted.metadata.labels.items() if metadata.labels.get(key) != value}
        told = metadata.annotations
        untold = {key: value for key, value in wanted.metadata.annotations.items() if told.get(key) != value}
        patch: dict[str, Any] = {"metadata": {"labels": missing, "annotations": untold}} if missing or untold else {}
        ranges = self._config.pod_cidrs
        if ranges and not (self.node.spec and self.node.spec.pod_cidr):
            patch["spec"] = {"podCIDR": ranges[0], "podCIDRs": list(ranges)}
        named = self.node.spec.provider_id if self.node.spec else None
        if config_id := self._config.provider_id:
            if not named:
                patch["spec"] = {**patch.get("spec", {}), "providerID": config_id}
            elif named != config_id:
                log.warning("node %s keeps providerID %s; %s is not written", self._config.name, named, config_id)
        if patch:
            self.node = await self._client.patch(Node, self._config.name, patch)

    def _object(self, status: NodeStatus) -> Node:
        config = self._config
        arch = architecture()
        labels = {
            "kubernetes.io/hostname": config.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": arch,
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": arch,
            **config.labels,
        }
        metadata = ObjectMeta(name=config.name, labels=labels, annotations=dict(config.annotations))
        ranges = list(config.pod_cidrs)
        spec = NodeSpec(
            pod_cidr=ranges[0] if ranges else None, pod_cidrs=ranges, provider_id=config.provider_id or None
        )
        return Node(metadata=metadata, spec=spec, status=status)

    async def _report(self) -> None:
        """Look at the machine now and then; write what has changed."""
        written_s = self._clock.monotonic_s()
        while True:
            await self._clock.sleep(STATUS_S)
            shown = self._shown()
            status = await self._status(shown)
            due = self._clock.monotonic_s() - written_s >= REPORT_S
            if not due and not _differs(shown, status):
                continue
            try:
                await self._write(shown, status)
                written_s = self._clock.monotonic_s()
            except NotFound:
                await self.register()
            except APIError as error:
                log.warning("status of node %s: %s", self._config.name, error)

    def _shown(self) -> Node | None:
        """The Node as it is shown to everybody, be it by somebody else's write; or as we know it, if that is newer."""
        cached, own = self._nodes.get(self._config.name), self.node
        shown = cached if cached is not None and (own is None or version_of(cached) > version_of(own)) else own
        unschedulable = bool(shown and shown.spec and shown.spec.unschedulable)
        if unschedulable != self._unschedulable:
            self._unschedulable = unschedulable
            self._say("NodeNotSchedulable" if unschedulable else "NodeSchedulable")
        return shown

    def _say(self, reason: str) -> None:
        self._events.normal(self._named, reason, f"Node {self._config.name} status is now: {reason}")

    def _tell(self, before: Node | None, after: Node) -> None:
        """Events about conditions that are others now. Thousands of hollow nodes would only be in each other's way."""
        if self._config.hollow:
            return
        told = _states(before)
        for state in _states(after) - told:
            if state in TOLD:
                self._say(TOLD[state])
        known = before.status.node_info if before and before.status else None
        now = after.status.node_info if after.status else None
        if known and now and known.boot_id and known.boot_id != now.boot_id:
            about = f"Node {self._config.name} has been rebooted, boot id: {now.boot_id}"
            self._events.warning(self._named, "Rebooted", about)

    async def _write(self, before: Node | None, status: NodeStatus) -> None:
        plain = msgspec.json.decode(msgspec.json.encode(status))
        # Merged by their type, which both addresses of a node with two families share: so they are written as a whole.
        plain["addresses"] = [{"$patch": "replace"}, *plain["addresses"]]
        self.node = await self._client.patch(Node, self._config.name, {"status": plain}, subresource="status")
        self._tell(before, self.node)

    async def _status(self, shown: Node | None) -> NodeStatus:
        """As the machine is, where the Node says this of it."""
        config, before = self._config, shown.status if shown else None
        images = listed(await self._runtime.images())
        now = utc(self._clock.time_s())
        pressure = (False, False, False) if config.hollow else await asyncio.to_thread(pressures, config.root)
        conditions = conditions_of(pressure, before.conditions if before else (), now)
        declared = declared_amounts(before.capacity if before else {})
        info = system_info(f"{self._runtime.name}://{self._runtime.version}")
        return NodeStatus(
            capacity={**declared, **self.capacity},
            allocatable={**declared, **self.capacity},
            addresses=[
                *(NodeAddress(type="InternalIP", address=each) for each in config.internal_ips),
                NodeAddress(type="Hostname", address=config.name),
            ],
            conditions=conditions,
            daemon_endpoints=NodeDaemonEndpoints(kubelet_endpoint=DaemonEndpoint(port=config.port)),
            node_info=info,
            images=images,
        )

    # -- the lease

    async def _renew(self) -> None:
        lease: Lease | None = None
        while True:
            try:
                lease = await self._renewed(lease)
            except NotFound:
                lease = None
            except APIError as error:
                log.warning("lease of node %s: %s", self._config.name, error)
                lease = None
            await self._clock.sleep(RENEW_S)

    async def _renewed(self, lease: Lease | None) -> Lease:
        name, now = self._config.name, micro_time(self._clock.time_s())
        if lease is None:
            try:
                lease = await self._client.get(Lease, name, LEASE_NAMESPACE)
            except NotFound:
                return await self._client.create(self._new_lease(now))
        spec = types.replace(
            lease.spec or LeaseSpec(), holder_identity=name, lease_duration_seconds=LEASE_S, renew_time=now
        )
        return await self._client.update(types.replace(lease, spec=spec))

    def _new_lease(self, now: str) -> Lease:
        name = self._config.name
        owners = []
        if self.node is not None and self.node.metadata.uid:
            owners = [OwnerReference(api_version="v1", kind="Node", name=name, uid=self.node.metadata.uid)]
        return Lease(
            metadata=ObjectMeta(name=name, namespace=LEASE_NAMESPACE, owner_references=owners),
            spec=LeaseSpec(holder_identity=name, lease_duration_seconds=LEASE_S, renew_time=now),
        )


def conditions_of(
    pressure: tuple[bool, bool, bool], before: Sequence[NodeCondition], now: datetime
) -> list[NodeCondition]:
    """MemoryPressure, DiskPressure, PIDPressure and Ready, with upstream's reasons."""
    names = (("Memory", "memory"), ("Disk", "disk"), ("PID", "PID"))
    texts = {
        "Memory": ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        "Disk": ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        "PID": ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    }
    bad = {
        "Memory": ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        "Disk": ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        "PID": ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
    }
    answer = []
    for (name, _), is_short in zip(names, pressure, strict=True):
        reason, message = (bad if is_short else texts)[name]
        answer.append(
            NodeCondition(
                type=f"{name}Pressure", status="True" if is_short else "False", reason=reason, message=message
            )
        )
    answer.append(
        NodeCondition(type="Ready", status="True", reason="KubeletReady", message="kubelet is posting ready status")
    )
    known = {condition.type: condition for condition in before}
    for condition in answer:
        old = known.get(condition.type)
        kept = old.last_transition_time if old is not None and old.status == condition.status else None
        condition.last_transition_time = kept or now
        condition.last_heartbeat_time = now
    return answer


def declared_amounts(capacity: Mapping[str, Quantity]) -> dict[str, Quantity]:
    """What somebody has declared that this machine has, of what nobody can count here (example.com/dongle)."""
    return {name: amount for name, amount in capacity.items() if is_extended_resource(name)}


def _states(node: Node | None) -> set[tuple[str, str]]:
    return {(each.type, each.status) for each in node.status.conditions} if node and node.status else set()


def _differs(shown: Node | None, status: NodeStatus) -> bool:
    """Whether a Node shows something else, but for the heartbeat and what others say there."""
    return shown is None or shown.status is None or bool(_essence(shown.status, status) != _essence(status, status))


def _essence(status: NodeStatus, ours: NodeStatus) -> Any:
    """What a status says of that of which we say something."""
    kinds = {each.type for each in ours.conditions}
    conditions = [types.replace(each, last_heartbeat_time=None) for each in status.conditions if each.type in kinds]
    return (
        sorted(conditions, key=lambda each: each.type),
        {name: canonical(status.capacity.get(name, "0")) for name in ours.capacity},
        {name: canonical(status.allocatable.get(name, "0")) for name in ours.allocatable},
        status.addresses,
        status.images,
        status.node_info,
        status.daemon_endpoints,
    )


def listed(images: Iterable[Image]) -> list[ContainerImage]:
    """The largest images, by their names."""
    largest = sorted(images, key=lambda image: -image.size_bytes)[:IMAGES_MAX]
    return [
        ContainerImage(names=[*image.repo_digests, *image.repo_tags], size_bytes=image.size_bytes) for image in largest
    ]


def machine_capacity(config: NodeConfig) -> dict[str, str]:
    """What this machine has."""
    disk = shutil.disk_usage(_existing(config.root))
    return {
        "cpu": str(len(os.sched_getaffinity(0))),
        "memory": f"{_memory('MemTotal') // 1024}Ki",
        "ephemeral-storage": f"{disk.total // 1024}Ki",
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
        "pods": str(config.pods_max),
    }


def pressures(root: Path) -> tuple[bool, bool, bool]:
    """Whether memory, disk and process numbers are short. Meant for a thread."""
    disk = shutil.disk_usage(_existing(root))
    processes = sum(1 for name in os.listdir("/proc") if name.isdigit())
    pids_max = int(_text("/proc/sys/kernel/pid_max") or 32768)
    return (
        _memory("MemAvailable") < MEMORY_LOW_BYTES,
        disk.free < disk.total * DISK_LOW,
        pids_max - processes < pids_max * PIDS_LOW,
    )


@cache
def system_info(runtime_version: str) -> NodeSystemInfo:
    """What stays as it is while this process runs."""
    release = dict(line.split("=", 1) for line in _text("/etc/os-release").splitlines() if "=" in line)
    return NodeSystemInfo(
        architecture=architecture(),
        boot_id=_text("/proc/sys/kernel/random/boot_id"),
        container_runtime_version=runtime_version,
        kernel_version=platform.release(),
        kubelet_version=KUBELET_VERSION,
        machine_id=_text("/etc/machine-id"),
        operating_system="linux",
        os_image=release.get("PRETTY_NAME", "Linux").strip('"'),
        system_uuid=_text("/sys/class/dmi/id/product_uuid") or _text("/etc/machine-id"),
    )


def architecture() -> str:
    """As Go names it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _memory(name: str) -> int:
    fields: Mapping[str, str] = dict(line.split(":", 1) for line in _text("/proc/meminfo").splitlines() if ":" in line)
    return int(fields.get(name, "0 kB").split()[0]) * 1024


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
