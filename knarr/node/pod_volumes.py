"""A pod's volumes: published before its first container starts, and again when what they show has changed."""

from __future__ import annotations

import asyncio

from knarr.node import pod_files
from knarr.node.back_off import Retry
from knarr.node.pod_sandbox import PodSandbox
from knarr.node.this_pod import ThisPod
from knarr.node.volume_failure import VolumeFailure


class PodVolumes:
    """The publication of one pod's volumes."""

    def __init__(self, this: ThisPod, sandbox: PodSandbox, retry: Retry) -> None:
        self._this = this
        self._sandbox = sandbox
        self._retry = retry
        self.published = False
        """Once at least: containers may start."""
        self._again = False
        self._publishing: asyncio.Task[None] | None = None

    def stale(self) -> None:
        """What they show has changed."""
        self._again = True

    def make(self, now_s: float) -> None:
        """Publish them for the first time."""
        if not self.published:
            self._publish(now_s)

    def refresh(self, now_s: float) -> float | None:
        """Publish again what has changed; answers when a token is next to be renewed."""
        renewal_s = self._this.node.tokens.renewal_s(self._this.uid) if self.published else None
        if self.published and (self._again or (renewal_s is not None and renewal_s <= now_s)):
            self._publish(now_s)
        return renewal_s if renewal_s is not None and renewal_s > now_s else None

    def begun(self) -> list[asyncio.Task[None]]:
        """What is under way."""
        return [self._publishing] if self._publishing is not None else []

    def _publish(self, now_s: float) -> None:
        if self._publishing is None and self._retry.at_s <= now_s:
            self._again = False
            self._publishing = self._this.spawn(self._publish_all())

    async def _publish_all(self) -> None:
        this, node = self._this, self._this.node
        try:
            await node.references.known(this.pod)
            if not self.published and not node.config.hollow:
                await asyncio.to_thread(pod_files.write_resolver_configuration, this.pod, node.config)
            await node.volumes.publish(this.pod, node.surroundings(this.pod, self._sandbox.ips))
            self.published = True
            self._retry.anew()
        except VolumeFailure as failure:
            if failure.waits:
                self._retry.anew()
            self._later(failure.event)
        except OSError as error:
            self._later(str(error))
        finally:
            self._publishing = None
            this.changed.set()

    def _later(self, why: str) -> None:
        """What runs already keeps the files that it has, and gets the new ones when they can be had."""
        self._this.tell("Warning", "FailedMount", why)
        self._again = True
        self._retry.later(self._this.clock.time_s())
