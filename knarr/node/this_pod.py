"""One pod as its node takes it: what all parts of its worker (pod_worker.py) share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from knarr.api.core.v1 import Container, Pod, PodSpec, PodStatus
from knarr.node.ephemeral import all_containers, field_path
from knarr.node.node_services import NodeServices


class ThisPod:
    """The pod, its node, and how its parts tell of something, or begin something."""

    def __init__(self, pod: Pod, node: NodeServices) -> None:
        self.node = node
        self.clock = node.clock
        self.uid = pod.metadata.uid or ""
        self.pod = pod
        """With the amounts that the node grants. Changed by pod_resizing.py only."""
        self.status = known = pod.status or PodStatus()
        """The newest, written already or not. Changed by pod_report.py only."""
        self.never_begun = self.is_terminal and known.start_time is None
        """Over before any node began with it: nothing is to be said of its containers."""
        self.before = {
            status.name: status
            for group in (known.init_container_statuses, known.container_statuses, known.ephemeral_container_statuses)
            for status in group
        }
        """What the API said of the containers when the worker began: they may have run before the agent did."""
        self.changed = asyncio.Event()
        """The worker is to look again."""
        self.group: asyncio.TaskGroup | None = None
        """While the worker runs."""

    @property
    def spec(self) -> PodSpec:
        assert self.pod.spec
        return self.pod.spec

    @property
    def name(self) -> str:
        return f"{self.pod.metadata.namespace}/{self.pod.metadata.name}"

    @property
    def is_terminal(self) -> bool:
        """The pod is over already, says its status, and nothing can change that."""
        return self.status.phase in ("Succeeded", "Failed")

    def container(self, name: str) -> Container | None:
        return next((container for container in all_containers(self.spec) if container.name == name), None)

    def tell(self, kind: str, reason: str, message: str, container: str = "") -> None:
        """Record an event."""
        path = field_path(self.spec, container) if container else ""
        record = self.node.events.normal if kind == "Normal" else self.node.events.warning
        record(self.pod, reason, message, field_path=path)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin what goes on beside the worker's looks."""
        assert self.group is not None
        return self.group.create_task(work, name=f"pod {self.name}")
