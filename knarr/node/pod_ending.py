"""The end of a pod: because it was deleted, is over, or has had its time; and the removal of one that was deleted.

Where data planes lead connections to it, they first learn that it leaves (in_service.py). Then its containers get
their grace period (stopping.py), then the sandbox ends. A deleted pod leaves the node, and at last the API.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from knarr.api.core.v1 import Pod
from knarr.api.errors import APIError, Conflict, NotFound
from knarr.node import pod_files
from knarr.node.back_off import RETRY_S
from knarr.node.in_service import InService
from knarr.node.pod_containers import PodContainers
from knarr.node.pod_runs import PodRuns
from knarr.node.pod_sandbox import PodSandbox
from knarr.node.pod_volumes import PodVolumes
from knarr.node.runtime.contract import ContainerState, RuntimeFailure
from knarr.node.status import Ending
from knarr.node.status_writer import StatusWriter
from knarr.node.stopping import GRACE_MIN_S, grace_s
from knarr.node.this_pod import ThisPod

log = logging.getLogger(__name__)


class PodEnding:
    """How far the end of one pod has come."""

    def __init__(
        self,
        this: ThisPod,
        sandbox: PodSandbox,
        volumes: PodVolumes,
        runs: PodRuns,
        containers: PodContainers,
        service: InService,
        writer: StatusWriter,
        look: Callable[[], Awaitable[None]],
    ) -> None:
        """`look` sees what there is of the pod by now."""
        self._this = this
        self._sandbox = sandbox
        self._volumes = volumes
        self._runs = runs
        self._containers = containers
        self._service = service
        self._writer = writer
        self._look = look
        self.gone = False
        """The API no longer has the pod."""
        self.why: Ending | None = None
        """Why the node ends it by itself."""
        self.ended = False
        """Nothing of it runs any more."""
        self.removed = asyncio.Event()
        """Nothing of it is left."""
        self._grace_s: float | None = None
        """The grace period that the running end was begun with."""
        self._removing: asyncio.Task[None] | None = None

    @property
    def is_due(self) -> bool:
        return self.is_deleted or self.why is not None or self._this.is_terminal or self.ended

    @property
    def is_deleted(self) -> bool:
        """It is to leave the node, and the API."""
        return self.gone or self._this.pod.metadata.deletion_timestamp is not None

    @property
    def still_serves(self) -> bool:
        """Whether it is to end by being deleted, with anything that runs: only then it matters who still comes."""
        deleted = self.is_deleted and not self.gone and self.why is None
        return deleted and bool(self._runs.running()) and not self._this.is_terminal

    def check_deadline(self, now_s: float) -> float | None:
        """When the pod's time is over; ends it when that is now."""
        this = self._this
        allowed_s, began = this.spec.active_deadline_seconds, this.status.start_time
        if allowed_s is None or began is None or self.why is not None or self.ended or this.is_terminal:
            return None
        deadline_s = began.timestamp() + allowed_s
        if now_s < deadline_s:
            return deadline_s
        text = "Pod was active on the node longer than the specified deadline"
        self.why = Ending("DeadlineExceeded", text)
        this.tell("Normal", "DeadlineExceeded", text)
        return None

    def give_way(self, why: Ending) -> None:
        """To a pod that is more important."""
        if self.why is None and not self.ended and not self._this.is_terminal:
            self.why = why
            self._this.tell("Warning", why.reason, why.message)

    def step(self) -> float | None:
        """End all containers and the sandbox; when the pod is deleted, remove everything.

        Answers in how many seconds to look again, while new connections may still come to it.
        """
        given_s = grace_s(self._this.pod)
        if not self.ended and (self._grace_s is None or given_s < self._grace_s):
            begun = self._grace_s is not None
            if not begun and self.still_serves and (wait_s := self._service.leave(self._this.pod, given_s)):
                return wait_s
            self._grace_s = given_s
            left_s = max(given_s - self._service.spent_s(), min(given_s, GRACE_MIN_S))
            self._this.spawn(self._shorten(given_s) if begun else self._end(left_s))
        if self.ended and self.is_deleted and self._removing is None:
            self._removing = self._this.spawn(self._remove())
        return None

    async def _end(self, left_s: float) -> None:
        this = self._this
        try:
            await self._stop_beginnings()
            await self._look()
            current = self._runs.current()
            live = {name: run for name, run in current.items() if run.state is not ContainerState.EXITED}
            await self._containers.stopping().stop_all(live, left_s)
            await self._sandbox.stop()
            await self._look()
            self.ended = True
        except RuntimeFailure as failure:
            log.warning("pod %s: %s; trying again", this.name, failure)
            await this.clock.sleep(RETRY_S)
            self._grace_s = None
        finally:
            this.changed.set()

    async def _stop_beginnings(self) -> None:
        """Nothing more is started; what can't be broken off is waited for."""
        for task in (*self._containers.begun(), *self._volumes.begun()):
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        await self._sandbox.made()

    async def _shorten(self, left_s: float) -> None:
        """A second request to delete, with less time: it holds from now on."""
        runtime = self._this.node.runtime
        await asyncio.gather(*(runtime.stop_container(run.id, left_s) for run in self._runs.running().values()))

    async def _remove(self) -> None:
        """The last of it: sandbox, folders, and the object in the API."""
        this, node = self._this, self._this.node
        try:
            await self._writer.settled()
            await self._sandbox.remove()
            await node.volumes.remove(this.uid)
            if not node.config.hollow:
                await asyncio.to_thread(pod_files.remove_logs, this.pod, node.config)
            await self._delete()
            self.removed.set()
        except (RuntimeFailure, OSError) as failure:
            log.warning("pod %s: %s; trying again", this.name, failure)
            await this.clock.sleep(RETRY_S)
            self._removing = None
        finally:
            this.changed.set()

    async def _delete(self) -> None:
        this, delay_s = self._this, 0.1
        metadata = this.pod.metadata
        while not self.gone:
            try:
                await this.node.client.delete(
                    Pod, metadata.name or "", metadata.namespace, grace_period_s=0, uid=this.uid
                )
            except (NotFound, Conflict):
                return
            except APIError as error:
                log.warning("deleting pod %s: %s; trying again", this.name, error)
                await this.clock.sleep(delay_s)
                delay_s = min(delay_s * 2, 10.0)
            else:
                return
