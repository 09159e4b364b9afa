"""Starting a container: its configuration from everything that it refers to, its files, then create and start."""

from __future__ import annotations

import asyncio

from knarr.api.core.v1 import Container, Pod
from knarr.node import pod_files
from knarr.node.containers import container_config
from knarr.node.environment import ConfigurationError, environment
from knarr.node.ephemeral import target_of
from knarr.node.node_services import NodeServices
from knarr.node.runtime.contract import ContainerState, Sandbox
from knarr.node.this_pod import ThisPod


async def start_container(
    this: ThisPod, container: Container, attempt: int, sandbox: Sandbox, ips: tuple[str, ...]
) -> str:
    """Answers its id. Raises ConfigurationError, VolumeFailure, RuntimeFailure, OSError."""
    node, pod = this.node, this.pod
    await node.references.known(pod)
    variables = environment(pod, container, node.surroundings(pod, ips))
    target_id = await _target_id(node, pod, container.name, sandbox)
    mounts = await node.volumes.mounts(pod, container, variables)
    if not node.config.hollow:
        await asyncio.to_thread(pod_files.write_hosts, pod, ips, node.config)
        mounts += await asyncio.to_thread(pod_files.mounts, pod, container, attempt, node.config)
    if node.isolation is not None:
        await node.isolation.isolate(pod, ips)
    wanted = container_config(pod, container, attempt, variables, mounts, node.memory_bytes, target_id)
    async with node.container_starts:
        container_id = await node.runtime.create_container(sandbox.id, wanted)
        this.tell("Normal", "Created", "Container created", container.name)
        await node.runtime.start_container(container_id)
    this.tell("Normal", "Started", "Container started", container.name)
    return container_id


async def _target_id(node: NodeServices, pod: Pod, name: str, sandbox: Sandbox) -> str:
    """The running container that an ephemeral one is aimed at."""
    assert pod.spec
    target = target_of(pod.spec, name)
    if not target:
        return ""
    for run in await node.runtime.containers():
        if run.sandbox_id == sandbox.id and run.name == target and run.state is ContainerState.RUNNING:
            return run.id
    raise ConfigurationError(f"unable to find target container {target}")
