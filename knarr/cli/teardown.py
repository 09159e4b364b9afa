"""Take out of the kernel what a cluster put there: containers, mounts, namespaces, cgroups, interfaces, rules.

Used at an orderly end by the process itself, and after a kill -9 by `knarr down`, which has only what is on disk: the
records of runtime and network, and <data-dir>/running.json, in which the process writes down with what it runs.
"""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from knarr.cli import lost, machine
from knarr.cli.machine import NodeSettings
from knarr.clock import Clock, SystemClock
from knarr.edge import lan
from knarr.network.commands import CommandFailed
from knarr.network.podnet import PodNetwork
from knarr.node.runtime.contract import ContainerState, RuntimeFailure
from knarr.node.runtime.kernel import unmount
from knarr.node.runtime.oci import OciRuntime

RECORD_NAME = "running.json"
STOP_GRACE_S = 2.0
"""From SIGTERM to SIGKILL when the whole cluster ends: nobody drains it, and its user waits."""

KILLED_ROUNDS_MAX, KILLED_ROUND_S = 40, 0.05
"""Until killed processes are gone."""


class Running(msgspec.Struct, frozen=True, rename="camel"):
    """With what a cluster runs, or ran when it was killed."""

    data_dir: str
    node: NodeSettings | None
    """None where nothing of it is in the kernel: hollow nodes."""
    kubeconfig: str
    """That has an entry for the cluster; empty for a node of a cluster elsewhere."""
    server: str
    clean: bool = False
    """It ended in order and left nothing in the kernel."""


def write_record(running: Running) -> None:
    """In the data folder, and beside the kernel's own (see `lost`)."""
    folder = Path(running.data_dir)
    with suppress(PermissionError):  # who is not root puts nothing into the kernel
        copy = lost.record_of(folder)
        copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _write(copy, running)
    if folder.is_dir():  # it may have been deleted by hand
        _write(folder / RECORD_NAME, running)


def read_record(folder: Path) -> Running | None:
    """None where no cluster ever came to run. Raises OSError when what is there can't be read."""
    damaged: OSError | None = None
    for path in (folder / RECORD_NAME, lost.record_of(folder)):
        try:
            return msgspec.json.decode(path.read_bytes(), type=Running)
        except FileNotFoundError:
            continue
        except msgspec.DecodeError as error:
            why = f"can't be read ({error}); the next `knarr up` writes it anew"
            damaged = damaged or OSError(errno.EBADMSG, why, str(path))
    if damaged:
        raise damaged
    return None


def _write(path: Path, running: Running) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(msgspec.json.encode(running))
    os.chmod(temporary, 0o600)
    temporary.replace(path)


async def teardown(node: NodeSettings) -> list[str]:
    """Everything of a node whose process is gone; answers what could not be removed."""
    clock = SystemClock()
    network = machine.pod_network(node, clock)
    runtime = machine.oci_runtime(node, clock, network)
    try:
        await network.start()
        await runtime.start()
    except (OSError, CommandFailed, RuntimeFailure) as error:
        return [f"the node's parts could not be taken up: {error}"]
    left = await remove_all(node, runtime, clock)
    left += await remove_lost(node, runtime, clock)
    left += await asyncio.to_thread(lan.remove_all, node.balancer_record)
    await runtime.close()
    return left + await remove_network(network)


async def remove_all(node: NodeSettings, runtime: OciRuntime, clock: Clock) -> list[str]:
    """Whatever stands on the pod network."""
    left = await remove_containers(runtime, clock)
    left += await remove_volumes(node)
    left += await remove_rules(node, clock)
    return left


async def remove_containers(runtime: OciRuntime, clock: Clock) -> list[str]:
    """SIGTERM to all at once, SIGKILL to what is left after STOP_GRACE_S, and every trace of the sandboxes removed."""
    running = [each.id for each in await runtime.containers() if each.state is ContainerState.RUNNING]
    stops = [runtime.stop_container(container, STOP_GRACE_S) for container in running]
    failures = [each for each in await asyncio.gather(*stops, return_exceptions=True) if each is not None]
    try:
        async with clock.timeout(STOP_GRACE_S + 30.0):
            await runtime.clear()
    except (RuntimeFailure, OSError, TimeoutError) as error:
        failures.append(error)
    return [f"containers: {type(failure).__name__} {failure}" for failure in failures]


async def remove_volumes(node: NodeSettings) -> list[str]:
    """The pods' volumes: some are mounts."""
    from knarr.node import volumes

    try:
        await asyncio.to_thread(volumes.remove_all, node.data_path / "node" / "pods")
    except OSError as error:
        return [f"volumes: {error}"]
    return []


async def remove_lost(node: NodeSettings, runtime: OciRuntime, clock: Clock) -> list[str]:
    """What no record tells of, because somebody deleted them: processes of containers, and what is mounted."""
    for _ in range(KILLED_ROUNDS_MAX):
        if await asyncio.to_thread(runtime.remove_unrecorded):
            break
        await clock.sleep(KILLED_ROUND_S)
    left = []
    for place in lost.mounts_below(node.data_path):
        try:
            await asyncio.to_thread(unmount, place)
        except OSError as error:
            left.append(f"mount: {error}")
    return left


async def remove_rules(node: NodeSettings, clock: Clock) -> list[str]:
    """The service rules, of the mode that is configured, and those of network policies."""
    from knarr.network.policy.enforcer import remove_policies
    from knarr.network.proxy.iptables import Iptables
    from knarr.network.proxy.nftables import Nftables
    from knarr.network.proxy.node_ports import route_loopback

    ranges = node.cluster_cidrs
    mode = (
        Nftables(clock, cluster_cidrs=ranges, name=node.service_table)
        if node.proxy_mode == "nftables"
        else Iptables(clock, cluster_cidrs=ranges)
    )
    left = []
    for what, removal in (
        ("setting of the kernel", asyncio.to_thread(route_loopback, False, node.service_table)),
        ("service rules", mode.remove()),
        ("network policies", remove_policies(clock, node.policy_table)),
    ):
        try:
            await removal
        except (CommandFailed, OSError) as error:
            left.append(f"{what}: {error}")
    return left


async def remove_network(network: PodNetwork) -> list[str]:
    try:
        await network.close(remove=True)
    except (CommandFailed, OSError) as error:
        return [f"pod network: {error}"]
    return []
