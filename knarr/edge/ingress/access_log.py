"""The access log, kept from filling the disk: a file that is long enough is put aside, and of those the oldest goes."""

from __future__ import annotations

import logging
from pathlib import Path

from knarr.clock import Clock
from knarr.edge.ingress.child import ACCESS_LOG, Envoy

log = logging.getLogger(__name__)

BYTES_MAX = 50 << 20
FILES_MAX = 5
LOOK_S = 10.0


async def keep_short(envoy: Envoy, clock: Clock) -> None:
    """Until cancelled."""
    path = envoy.folder / ACCESS_LOG
    while True:
        await clock.sleep(LOOK_S)
        try:
            if path.exists() and path.stat().st_size > BYTES_MAX:
                rotate(path, FILES_MAX)
                await envoy.ask("POST", "/reopen_logs")
        except OSError as error:
            log.warning("the access log was not put aside: %s", error)


def rotate(path: Path, files_max: int) -> None:
    """access.log becomes access.log.1, that becomes access.log.2, …; the oldest goes."""
    for number in range(files_max - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        newer = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
        if newer.exists():
            newer.replace(older)
