"""Calls of the OCI runtime's program, runc or crun, whose commands are the same."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil

from knarr.clock import Clock
from knarr.node.runtime import conmon
from knarr.node.runtime.contract import RuntimeFailure

COMMAND_S_MAX = 60.0
"""For one call; those take milliseconds."""

_log = logging.getLogger(__name__)


class OciCommand:
    """The program `binary` with its state in `state_directory`."""

    def __init__(self, binary: str, state_directory: str, clock: Clock) -> None:
        self.binary = binary
        self._state_directory = state_directory
        self._clock = clock

    @property
    def line(self) -> list[str]:
        """What every call begins with."""
        # With a log elsewhere, errors come to stderr as plain text: what the user of an exec session reads.
        return [self.binary, f"--root={self._state_directory}", "--log=/dev/null"]

    async def run(self, *arguments: str, reason: str) -> None:
        """One call; a failure of it is a RuntimeFailure for `reason`."""
        process = await asyncio.create_subprocess_exec(
            *self.line,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with self._clock.timeout(COMMAND_S_MAX):
                _, said = await process.communicate()
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise RuntimeFailure(reason, f"{self.binary} {arguments[0]} does not end") from error
        if process.returncode:
            raise RuntimeFailure(reason, conmon.start_error(said.decode("utf-8", "replace")))

    async def delete(self, container_id: str) -> None:
        """Kill the container if it runs, and have the program forget it. Idempotent."""
        state = os.path.join(self._state_directory, container_id)
        if not await asyncio.to_thread(os.path.isdir, state):
            return
        try:
            await self.run("delete", "--force", container_id, reason="KillContainerError")
        except RuntimeFailure as error:
            # It refuses what was only half created.
            _log.info("container %s: %s", container_id, error.message)
            await asyncio.to_thread(shutil.rmtree, state, True)
