"""Container logs don't fill the disk: at LOG_BYTES_MAX a log is put aside, and the oldest ones are removed.

`0.log` becomes `0.log.20260131-120000` and the container goes on in a new `0.log`. `kubectl logs` shows the newest
file, as upstream (containerLogMaxSize, containerLogMaxFiles).
"""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from knarr.clock import Clock
from knarr.node.runtime.contract import ContainerState, Runtime, RuntimeFailure

log = logging.getLogger(__name__)

LOG_BYTES_MAX = 10 << 20
LOG_FILES_MAX = 5
"""Of one run of a container, the one that is written to included: upstream's defaults."""
LOOK_S = 10.0


async def run(runtime: Runtime, clock: Clock) -> None:
    """Look at the logs of all running containers now and then, until cancelled."""
    while True:
        await clock.sleep(LOOK_S)
        running = [each for each in await runtime.containers() if each.state is ContainerState.RUNNING]
        large = await asyncio.to_thread(_large, {each.id: each.log_path for each in running})
        for container_id, path in large.items():
            await rotate(runtime, clock, container_id, path)


async def rotate(runtime: Runtime, clock: Clock, container_id: str, path: str) -> None:
    """Put one log aside. When the container can't be told, all is as it was."""
    aside = f"{path}.{datetime.fromtimestamp(clock.time_s(), UTC):%Y%m%d-%H%M%S}"
    try:
        await asyncio.to_thread(os.rename, path, aside)
        try:
            await runtime.reopen_log(container_id)
        except RuntimeFailure:
            await asyncio.to_thread(_put_back, aside, path)
            raise
        await asyncio.to_thread(_remove_oldest, path)
    except (RuntimeFailure, OSError) as error:
        log.warning("rotating %s: %s", path, error)


def rotated(path: str) -> list[Path]:
    """The logs of one run that were put aside, the oldest first."""
    # Not <path>.tmp: conmon makes a new log under that name, and then renames it.
    return sorted(Path(path).parent.glob(f"{Path(path).name}.[0-9]*"))


def _large(paths: dict[str, str]) -> dict[str, str]:
    return {container_id: path for container_id, path in paths.items() if _size(path) > LOG_BYTES_MAX}


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _put_back(aside: str, path: str) -> None:
    if not os.path.exists(path):
        os.rename(aside, path)


def _remove_oldest(path: str) -> None:
    for old in rotated(path)[: -(LOG_FILES_MAX - 1)]:
        old.unlink(missing_ok=True)
