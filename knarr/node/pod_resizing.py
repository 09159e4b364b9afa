"""What a pod is granted of its node, and the bounds of its running containers brought to that (see resizing.py)."""

from __future__ import annotations

from knarr.api.core.v1 import Pod, PodCondition
from knarr.node.pod_containers import PodContainers
from knarr.node.pod_runs import PodRuns
from knarr.node.pod_sandbox import PodSandbox
from knarr.node.resizing import AGAIN_S, Resizing, change_bounds, resizable, sizes_by_restart
from knarr.node.resources import container_resources, pod_bounds
from knarr.node.runtime import contract
from knarr.node.runtime.contract import Resources, RuntimeFailure, Sandbox
from knarr.node.this_pod import ThisPod


class PodResizing:
    """The amounts of one pod."""

    def __init__(self, this: ThisPod, sandbox: PodSandbox, runs: PodRuns, containers: PodContainers) -> None:
        self._this = this
        self._sandbox = sandbox
        self._runs = runs
        self._containers = containers
        node = this.node
        self._resizing = Resizing(this.before, node.allocatable, lambda: node.requested(this.uid), this.tell)
        self.asked = this.pod
        """The pod as the API has it."""
        self._changing: set[str] = set()
        """Containers whose bounds are being changed."""
        self._again_s = 0.0
        self.grant(this.pod)

    def grant(self, pod: Pod) -> None:
        """Take the pod, as the API has it, with what the node grants."""
        self.asked = pod
        self._this.pod = self._resizing.granted(pod)

    @property
    def is_pending(self) -> bool:
        """It waits for what others have."""
        return self._resizing.pending is not None

    def conditions(self) -> list[PodCondition]:
        return self._resizing.conditions()

    def step(self, now_s: float) -> float | None:
        """Begin to change the bounds of those that run; answers when to try again."""
        if self.is_pending:
            self.grant(self.asked)
        running, sandbox, spec = self._runs.running(), self._sandbox.now, self._this.spec
        actual: dict[str, Resources] = {}
        for container in resizable(spec):
            name, run = container.name, running.get(container.name)
            if run is None or sandbox is None or run.sandbox_id != sandbox.id or name in self._containers.busy:
                continue
            actual[name] = run.resources
            wanted = container_resources(container)
            if wanted == run.resources or sizes_by_restart(spec, container, run) or name in self._changing:
                continue
            if now_s >= self._again_s:
                self._changing.add(name)
                self._this.spawn(self._change_bounds(name, run, wanted, sandbox))
        self._resizing.progressed(self._this.pod, actual)
        if self.is_pending or self._resizing.error:
            return max(self._again_s, now_s + AGAIN_S)
        return None

    async def _change_bounds(self, name: str, run: contract.Container, wanted: Resources, sandbox: Sandbox) -> None:
        this = self._this
        try:
            await change_bounds(this.node.runtime, sandbox, run.id, wanted, pod_bounds(this.spec))
            self._resizing.error = ""
        except RuntimeFailure as failure:
            self._resizing.error = failure.message
            self._again_s = this.clock.time_s() + AGAIN_S
            this.tell("Warning", "ResizeError", f"Pod resize error: {failure.message}", name)
        finally:
            self._changing.discard(name)
            this.changed.set()
