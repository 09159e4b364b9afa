"""Having a container's image on the node: by its pull policy, with back-off where the registry refuses.

Always asks the registry each time, IfNotPresent only when the image isn't here, Never never. Pods that want the same
image at the same moment share one pull. The registry is asked in the name of the pod's imagePullSecrets, where it has
some for that image.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from knarr.api.core.v1 import Container, Pod, Secret
from knarr.clock import Clock
from knarr.node.back_off import BackOff
from knarr.node.pull_secrets import credentials_for
from knarr.node.runtime.contract import PullFailure, Runtime, RuntimeFailure

PULLS_MAX = 4
"""At once: more would only share the same line."""

Tell = Callable[[str, str, str], None]
"""Records an event: type, reason, message."""


class ImageProblem(Exception):
    """The image can't be had now; `reason` is the container's waiting reason."""

    def __init__(self, reason: str, message: str, again_s: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.again_s = again_s
        """When to try again."""


class Pulls:
    """All pulls of the node."""

    def __init__(
        self, runtime: Runtime, clock: Clock, secret: Callable[[str, str], Secret | None] = lambda namespace, name: None
    ) -> None:
        """`secret`: a Secret by namespace and name."""
        self._runtime = runtime
        self._secret = secret
        self._clock = clock
        self._slots = asyncio.Semaphore(PULLS_MAX)
        self._locks: dict[str, asyncio.Lock] = {}
        self._back_offs: dict[tuple[str, str], tuple[BackOff, float, str]] = {}
        """By pod and image: the back-off, when it failed last, and why."""

    async def ensure(self, pod: Pod, container: Container, tell: Tell) -> None:
        """Raises ImageProblem."""
        name = container.image or ""
        now_s = self._clock.time_s()
        try:
            present = await self._runtime.image(name) is not None
        except RuntimeFailure as failure:
            text = f'Failed to apply default image tag "{name}": couldn\'t parse image name "{name}": {failure.message}'
            tell("Warning", "InspectFailed", text)
            tell("Warning", "Failed", "Error: InvalidImageName")
            raise ImageProblem("InvalidImageName", text, now_s + 60) from failure
        policy = container.image_pull_policy or "IfNotPresent"
        if present and policy != "Always":
            tell(
                "Normal",
                "Pulled",
                f'Container image "{name}" already present on machine and can be accessed by the pod',
            )
            return
        if policy == "Never":
            text = f'Container image "{name}" is not present with pull policy of Never'
            tell("Warning", "ErrImageNeverPull", text)
            tell("Warning", "Failed", "Error: ErrImageNeverPull")
            raise ImageProblem("ErrImageNeverPull", text, now_s + 10)
        await self._pull(pod, name, policy, tell)

    async def _fetch(self, pod: Pod, name: str, tell: Tell) -> None:
        """From the registry, in each of the pod's names until one is let in."""
        assert pod.spec
        named = [reference.name or "" for reference in pod.spec.image_pull_secrets]
        found = {each: self._secret(pod.metadata.namespace or "", each) for each in named if each}
        if missing := ", ".join(each for each, secret in found.items() if secret is None):
            text = (
                f"Unable to retrieve some image pull secrets ({missing}); attempting to pull the image may not succeed."
            )
            tell("Warning", "FailedToRetrieveImagePullSecret", text)
        names = credentials_for(name, [secret for secret in found.values() if secret is not None])
        for number, credentials in enumerate(names or (None,), 1):
            try:
                await self._runtime.pull_image(name, credentials=credentials)
            except PullFailure:
                if number >= len(names):
                    raise
            else:
                return

    def forget(self, uid: str) -> None:
        for key in [key for key in self._back_offs if key[0] == uid]:
            del self._back_offs[key]

    async def _pull(self, pod: Pod, name: str, policy: str, tell: Tell) -> None:
        key = (pod.metadata.uid or "", name)
        back_off, failed_s, why = self._back_offs.get(key, (BackOff(), 0.0, ""))
        now_s = self._clock.time_s()
        due_s = back_off.until_s(failed_s, now_s)
        if now_s < due_s:
            text = f'Back-off pulling image "{name}"'
            tell("Normal", "BackOff", text)
            tell("Warning", "Failed", "Error: ImagePullBackOff")
            raise ImageProblem("ImagePullBackOff", f"{text}: {why}", due_s)
        tell("Normal", "Pulling", f'Pulling image "{name}"')
        began_s = self._clock.monotonic_s()
        lock = self._locks.setdefault(name, asyncio.Lock())
        try:
            async with lock:
                waited_s = self._clock.monotonic_s() - began_s
                if policy == "Always" or await self._runtime.image(name) is None:
                    async with self._slots:
                        await self._fetch(pod, name, tell)
        except RuntimeFailure as failure:
            back_off.tried(now_s)
            now_s = self._clock.time_s()
            self._back_offs[key] = (back_off, now_s, f"{failure.reason}: {failure.message}")
            tell("Warning", "Failed", f'Failed to pull image "{name}": {failure.message}')
            tell("Warning", "Failed", f"Error: {failure.reason}")
            # Soon after, the container shows that it backs off.
            raise ImageProblem(failure.reason, failure.message, now_s + 1) from failure
        finally:
            if not lock.locked():
                self._locks.pop(name, None)
        self._back_offs.pop(key, None)
        image = await self._runtime.image(name)
        took_s = self._clock.monotonic_s() - began_s
        size = f" Image size: {image.size_bytes} bytes." if image is not None else ""
        pulled = f"{_shown(took_s - waited_s)} ({_shown(took_s)} including waiting)"
        tell("Normal", "Pulled", f'Successfully pulled image "{name}" in {pulled}.{size}')


def _shown(duration_s: float) -> str:
    return f"{round(duration_s * 1000)}ms" if duration_s < 1 else f"{duration_s:.3f}s"
