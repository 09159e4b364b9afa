"""Brings a pod's status to the API server: one write at a time, always the newest, until it is there.

A write is a patch of what changed, so it never collides with those who write other parts of the pod. While the server
can't be reached the pod runs on, and the newest status is written when it is back. What can wait a moment shares a
write with what comes meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from math import inf
from typing import Any

import msgspec

from knarr.api.core.v1 import Pod, PodStatus
from knarr.api.errors import APIError, Conflict, NotFound
from knarr.client.client import Client
from knarr.client.informer import version_of
from knarr.clock import Clock
from knarr.node.status import OWN_CONDITIONS

log = logging.getLogger(__name__)

RETRY_MIN_S = 0.1
RETRY_MAX_S = 10.0
_REPLACED_WHOLE = ("podIPs", "hostIPs")
"""Lists that a strategic merge patch would add to."""


class StatusWriter:
    """The writer of one pod's status."""

    def __init__(self, client: Client, clock: Clock, pod: Pod) -> None:
        self._client = client
        self._clock = clock
        self._name, self._namespace = pod.metadata.name or "", pod.metadata.namespace
        self._uid = pod.metadata.uid
        self._written: dict[str, Any] = plain(pod.status or PodStatus())
        self._newest: dict[str, Any] | None = None
        """The status as it should be; None before the first one."""
        self._revision = version_of(pod)
        """Of the newest write: what the cache shows from before is no news."""
        self._wanted: dict[str, Any] | None = None
        self._due_s = inf
        """When it is to be written."""
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self.gone = False
        """The API server no longer has this pod."""

    def write(self, status: PodStatus, *, within_s: float) -> None:
        """Have `status` written, `within_s` seconds at the latest: more may come until then."""
        wanted = self._newest = plain(status)
        if not patch_of(self._written, wanted) and self._wanted is None:
            return
        self._want(wanted, within_s)

    def found(self, pod: Pod) -> None:
        """The pod as the cache shows it: others' conditions are theirs, ours are set right when others changed them.

        (The node lifecycle controller takes Ready from the pods of a node that it doesn't hear of.)
        """
        if self._wanted is not None or version_of(pod) < self._revision:
            return
        shown = {each["type"]: each for each in plain(pod.status or PodStatus()).get("conditions", ())}
        theirs = [each for kind, each in shown.items() if kind not in OWN_CONDITIONS]
        ours = [each for each in self._written.get("conditions", ()) if each["type"] in OWN_CONDITIONS]
        meddled = [each for each in ours if shown.get(each["type"], {}).get("status") != each["status"]]
        known = [*(shown.get(each["type"], each) for each in ours), *theirs]
        self._written = {**self._written, "conditions": known}
        if meddled and self._newest is not None and patch_of(self._written, self._newest):
            self._want(self._newest, 0.0)

    def _want(self, status: dict[str, Any], within_s: float) -> None:
        self._wanted = status
        self._settled.clear()
        self._hasten(within_s)

    def _hasten(self, within_s: float) -> None:
        self._due_s = min(self._due_s, self._clock.monotonic_s() + within_s)
        self._changed.set()

    async def settled(self) -> None:
        """Have the newest status written now, and wait until it is, or the pod is gone."""
        if self._wanted is not None:
            self._hasten(0.0)
        while self._wanted is not None and not self.gone:
            await self._settled.wait()

    def give_up(self) -> None:
        """The pod is no longer in the API: there is nothing to write to."""
        self.gone = True
        self._settled.set()

    async def run(self) -> None:
        """Write until cancelled."""
        delay_s = RETRY_MIN_S
        while True:
            await self._due()
            wanted = self._wanted
            if wanted is None:
                continue
            try:
                await self._write(wanted)
            except NotFound:
                self.give_up()
                return
            except APIError as error:
                if isinstance(error, Conflict) and await self._is_another():
                    self.give_up()
                    return
                log.warning("status of pod %s/%s: %s; trying again", self._namespace, self._name, error)
                self._hasten(0.0)
                await self._clock.sleep(delay_s * (0.5 + self._clock.random.random()))
                delay_s = min(delay_s * 2, RETRY_MAX_S)
                continue
            delay_s = RETRY_MIN_S
            self._written = wanted
            if self._wanted is wanted:
                self._wanted = None
                self._settled.set()

    async def _due(self) -> None:
        """Wait until there is something to be written, and its time has come."""
        while (rest_s := self._due_s - self._clock.monotonic_s()) > 0:
            self._changed.clear()
            with suppress(TimeoutError):
                async with self._clock.timeout(rest_s if rest_s < inf else None):
                    await self._changed.wait()
        self._due_s = inf

    async def _write(self, wanted: dict[str, Any]) -> None:
        changes = patch_of(self._written, wanted)
        if changes:
            # The uid makes the server refuse when another pod has the name by now.
            patch = {"metadata": {"uid": self._uid}, "status": changes}
            written = await self._client.patch(Pod, self._name, patch, self._namespace, subresource="status")
            self._revision = version_of(written)

    async def _is_another(self) -> bool:
        """Whether a conflict means that the name belongs to another pod by now."""
        try:
            return (await self._client.get(Pod, self._name, self._namespace)).metadata.uid != self._uid
        except NotFound:
            return True
        except APIError:
            return False


def plain(status: PodStatus) -> dict[str, Any]:
    """The status as JSON data."""
    data: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(status))
    return data


def patch_of(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The strategic merge patch from one status to another; empty when they are the same."""
    changes: dict[str, Any] = {key: None for key in before if key not in after and key != "conditions"}
    for key, value in after.items():
        if key == "conditions":
            known = {each["type"]: each for each in before.get("conditions", ())}
            fresh = [each for each in value if each["type"] in OWN_CONDITIONS and known.get(each["type"]) != each]
            held = {each["type"] for each in value}
            gone = [{"$patch": "delete", "type": kind} for kind in known if kind in OWN_CONDITIONS and kind not in held]
            if fresh or gone:
                # What a condition no longer says (reason, message) must go, too.
                changes["$setElementOrder/conditions"] = [{"type": each["type"]} for each in value]
                changes[key] = [{**dict.fromkeys(known.get(each["type"], {}), None), **each} for each in fresh] + gone
        elif before.get(key) != value:
            whole = key in _REPLACED_WHOLE and before.get(key)
            changes[key] = [{"$patch": "replace"}, *value] if whole else value
    return changes
