"""The runs of a pod's containers, as the runtime has them, and their termination messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from knarr.node import pod_files
from knarr.node.runtime import contract
from knarr.node.runtime.contract import ContainerState, RuntimeFailure, Sandbox
from knarr.node.this_pod import ThisPod

log = logging.getLogger(__name__)

RUNS_KEPT = 2
"""Runs of each container that are kept: the newest, and the one before it for `kubectl logs --previous`."""


class PodRuns:
    """What each container of one pod has done so far."""

    def __init__(self, this: ThisPod) -> None:
        self._this = this
        self._runs: dict[str, list[contract.Container]] = {}
        """By container, oldest first."""
        self._last: dict[str, contract.Container] = {}
        """The last run of each container that has ended: outlives its sandbox."""
        self.messages: dict[str, str] = {}
        """Termination messages, by container id."""
        self._being_removed: set[str] = set()

    async def look(self, sandboxes: Iterable[Sandbox]) -> None:
        """See what the runtime has in these sandboxes."""
        ours = {sandbox.id for sandbox in sandboxes}
        runs: dict[str, list[contract.Container]] = {}
        for container in await self._this.node.runtime.containers():
            if container.sandbox_id in ours:
                runs.setdefault(container.name, []).append(container)
        self._runs = runs
        for name, of_one in runs.items():
            of_one.sort(key=lambda run: (run.attempt, run.created_at_s))
            for run in of_one:
                if run.state is ContainerState.EXITED:
                    self._last[name] = run
                    await self._read_message(name, run)

    async def _read_message(self, name: str, run: contract.Container) -> None:
        this = self._this
        if run.id in self.messages or this.node.config.hollow:
            return
        container = this.container(name)
        if container is not None:
            self.messages[run.id] = await asyncio.to_thread(
                pod_files.termination_message, this.pod, container, run, this.node.config
            )

    def current(self) -> dict[str, contract.Container]:
        """The newest run of each container of which the runtime has any."""
        return {name: runs[-1] for name, runs in self._runs.items()}

    def running(self) -> dict[str, contract.Container]:
        return {name: run for name, run in self.current().items() if run.state is ContainerState.RUNNING}

    def newest(self, name: str) -> contract.Container | None:
        """The newest run of a container, in whichever sandbox it was."""
        runs = self._runs.get(name)
        return runs[-1] if runs else self._last.get(name)

    def previous(self, name: str) -> contract.Container | None:
        """The one before it."""
        runs, newest = self._runs.get(name, []), self.newest(name)
        found = runs[-2] if len(runs) > 1 else self._last.get(name)
        return found if found is not None and newest is not None and found.id != newest.id else None

    def logged(self, name: str, *, previous: bool, waits: bool) -> contract.Container | None:
        """The run whose log is meant: for a container that waits for its next one, `previous` has just ended."""
        runs = self._runs.get(name, [])
        backs_off = waits and bool(runs) and runs[-1].state is ContainerState.EXITED
        at = -2 if previous and not backs_off else -1
        return runs[at] if len(runs) >= -at else None

    def sweep(self) -> None:
        """Remove runs that nobody can ask for any more."""
        for name, runs in self._runs.items():
            for run in runs[:-RUNS_KEPT]:
                if run.state is ContainerState.EXITED and run.id not in self._being_removed:
                    self._being_removed.add(run.id)
                    self._this.spawn(self._remove(name, run))

    async def _remove(self, name: str, run: contract.Container) -> None:
        this = self._this
        try:
            await this.node.runtime.remove_container(run.id)
            self.messages.pop(run.id, None)
            if not this.node.config.hollow:
                await asyncio.to_thread(pod_files.forget_run, this.uid, name, run, this.node.config)
        except RuntimeFailure as failure:
            log.warning("pod %s: %s", this.name, failure)
        finally:
            self._being_removed.discard(run.id)
