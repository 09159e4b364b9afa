"""What happens to a pod that has been given a node, until it is bound there or gives it back.

In upstream's order: it is assumed there, plugins reserve what it needs, and say whether it may go on (permit): now,
later or not at all. Beside the next choices it then waits for permission, for what must be ready before it is bound
(preBind), and is bound by the first plugin that does it (bind); the others hear of it (postBind). When any of it fails,
what was reserved is let go (unreserve), and the pod is placed anew.

A binding that failed may have taken effect all the same, when only its answer was lost. So before the pod's place on
its node is given to others, the API server is asked what has become of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol

from msgspec import Struct

from knarr.api.core.v1 import Pod
from knarr.api.errors import APIError, NotFound
from knarr.client.client import Client
from knarr.clock import Clock
from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.extenders import ExtenderFailed, bound_by
from knarr.scheduler.framework import BindingRefused, Rejected, Wait
from knarr.scheduler.permits import HeldPod, HeldPods
from knarr.scheduler.profile import Framework
from knarr.scheduler.queue import SchedulingQueue, Waiting

ASK_AGAIN_MIN_S = 0.05
ASK_AGAIN_MAX_S = 10.0
"""Between two attempts to learn what has become of a binding."""

log = logging.getLogger("knarr.scheduler")

Write = Callable[[], Awaitable[None]]
"""Something to be written, beside the next choices."""


class Failed(Protocol):
    """Told of a pod that has given its node back: by a plugin's decision, or (None) because something went wrong.

    What is to be written comes back."""

    def __call__(self, course: Course, plugin: str | None, message: str) -> Write: ...


class Course(Struct, eq=False):
    """The way of one pod to its node."""

    waiting: Waiting
    node_name: str
    framework: Framework
    held: HeldPod | None = None

    @property
    def pod(self) -> PodInfo:
        return self.waiting.pod


class Bindings:
    """Takes pods to their nodes."""

    def __init__(
        self, client: Client, clock: Clock, cache: Cache, queue: SchedulingQueue, permits: HeldPods, failed: Failed
    ) -> None:
        self._client = client
        self._clock = clock
        self._cache = cache
        self._queue = queue
        self._permits = permits
        self._failed = failed
        self._tasks: asyncio.TaskGroup | None = None

    def run_in(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks

    def begin(self, waiting: Waiting, node: NodeInfo, framework: Framework) -> Write:
        """Assume, reserve, permit; what is to be done beside the next choices comes back."""
        course, pod = Course(waiting, node.name, framework), waiting.pod
        self._cache.assume(pod, node.name)
        try:
            for plugin in framework.at["reserve"]:
                plugin.reserve(pod, node)
            waits: dict[str, Wait] = {}
            for plugin in framework.at["permit"]:
                wait = plugin.permit(pod, node)
                if wait is not None:
                    waits[plugin.name] = wait
        except Rejected as rejection:
            return self._give_back(course, rejection.plugin, str(rejection))
        except Exception as error:
            log.exception("%s: a plugin failed", pod.key)
            return self._give_back(course, None, str(error))
        if waits:
            course.held = self._permits.hold(pod, node.name, waits)
        return lambda: self._bind(course)

    async def _bind(self, course: Course) -> None:
        """Bind it, at once or when all is ready; others don't wait for that."""
        steps = [plugin.before_binding(course.pod, course.node_name) for plugin in course.framework.at["preBind"]]
        before = [step for step in steps if step is not None]
        if not before and course.held is None:
            await self._bind_now(course)
        else:
            self._beside(partial(self._bind_after, before, course), course)

    async def _bind_after(self, before: Sequence[Write], course: Course) -> None:
        await self._announce(course)
        try:
            if course.held is not None:
                await self._permitted(course.held)
            await asyncio.gather(*(step() for step in before))
        except Rejected as rejection:
            await self._give_back(course, rejection.plugin, str(rejection))()
        except BindingRefused as refusal:
            await self._give_back(course, None, str(refusal))()
        except Exception as error:
            log.exception("%s: preparing its binding failed", course.pod.key)
            await self._give_back(course, None, str(error))()
        else:
            await self._bind_now(course)

    async def _announce(self, course: Course) -> None:
        """Others may want to know where it will be, for it is not there yet (KEP-5278). Binding it takes that back."""
        metadata = course.pod.pod.metadata
        patch = {"metadata": {"uid": metadata.uid}, "status": {"nominatedNodeName": course.node_name}}
        try:
            where = metadata.name or "", patch, metadata.namespace
            course.pod.pod = await self._client.patch(Pod, *where, subresource="status")
        except APIError as error:
            log.debug("%s: its node could not be announced: %s", course.pod.key, error)

    async def _permitted(self, held: HeldPod) -> None:
        try:
            await held.wait(self._clock)
        finally:
            self._permits.let_go(held)

    async def _bind_now(self, course: Course) -> None:
        pod, name = course.pod, ""
        extenders = course.framework.extenders
        try:
            if not extenders or not await bound_by(extenders, pod.pod, course.node_name):
                for plugin in course.framework.at["bind"]:
                    name = plugin.name
                    if await plugin.bind(pod, course.node_name):
                        break
                else:
                    raise BindingRefused("no bind plugin has bound it")
        except NotFound:
            await self._gone(course)
        except (APIError, BindingRefused, ExtenderFailed) as error:
            log.warning("%s: binding to %s failed: %s", pod.key, course.node_name, error)
            message = f'running Bind plugin "{name}": {error}' if name else str(error)
            self._beside(partial(self._find_out, course, message), course)
        else:
            self._bound(course)

    def _bound(self, course: Course) -> None:
        pod, node_name = course.pod, course.node_name
        if self._queue.get(pod.key) is course.waiting:
            self._queue.remove(pod.key)
        about = f"{pod.pod.metadata.namespace}/{pod.pod.metadata.name} to {node_name}"
        course.framework.events.normal(pod.pod, "Scheduled", f"Successfully assigned {about}")
        for plugin in course.framework.at["postBind"]:
            plugin.after_binding(pod, node_name)

    async def _find_out(self, course: Course, message: str) -> None:
        """What has become of a binding that failed; until that is known, the pod keeps its place."""
        pod, metadata = course.pod, course.pod.pod.metadata
        delay_s = ASK_AGAIN_MIN_S
        while True:
            try:
                now = await self._client.get(Pod, metadata.name or "", metadata.namespace)
            except NotFound:
                now = None
            except APIError as error:
                log.warning("%s: whether it was bound is not known yet: %s", pod.key, error)
                await self._clock.sleep(delay_s)
                delay_s = min(2 * delay_s, ASK_AGAIN_MAX_S)
                continue
            break
        if now is None or now.metadata.uid != metadata.uid:
            await self._gone(course)
        elif now.spec and now.spec.node_name == course.node_name:
            self._bound(course)
        elif now.spec and now.spec.node_name:
            await self._give_back(course, None, "")()  # somebody else was quicker; the caches will tell where it is
        else:
            await self._give_back(course, None, message)()

    async def _gone(self, course: Course) -> None:
        await self._give_back(course, None, "")()
        if self._queue.get(course.pod.key) is course.waiting:
            self._queue.remove(course.pod.key)

    def _give_back(self, course: Course, plugin: str | None, message: str) -> Write:
        for each in reversed(course.framework.at["reserve"]):
            each.unreserve(course.pod)
        self._cache.forget(course.pod)
        return self._failed(course, plugin, message)

    def _beside(self, work: Write, course: Course) -> None:
        async def task() -> None:
            try:
                await work()
            except Exception:
                log.exception("%s: its binding failed", course.pod.key)

        assert self._tasks
        self._tasks.create_task(task(), name=f"binding {course.pod.key}")
