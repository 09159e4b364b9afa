"""A process that writes pairs of keys for as long as it lives, and tells of each pair that was acknowledged.

For the test that kills it. It is forked from a server that has everything imported: most of its life would be imports.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

from knarr.store.contract import Write
from knarr.store.sqlite import SQLiteStore

CLIENTS = 8
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["pytest", __name__])


def written_until_killed(path: Path, acknowledged: int) -> dict[int, tuple[int, int]]:
    """Kill a writer after so many acknowledged writes; answers count and revision of the last one of each client."""
    told, telling = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=write, args=(path, telling))
    process.start()
    telling.close()
    heard = [told.recv() for _ in range(acknowledged)]
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    try:
        while True:
            heard.append(told.recv())
    except (EOFError, OSError):
        pass  # The last may have been told by half.
    process.join()
    process.close()
    told.close()
    return {client: (count, revision) for client, count, revision in heard}


def write(path: Path, telling: Connection) -> None:
    asyncio.run(_write(path, telling))


async def _write(path: Path, telling: Connection) -> None:
    store = await SQLiteStore.open(path)
    await asyncio.gather(*(_client(store, number, telling) for number in range(CLIENTS)))


async def _client(store: SQLiteStore, number: int, telling: Connection) -> None:
    count = 0
    while True:
        count += 1
        body = b'{"metadata":{"name":"%d"},"padding":"%b"}' % (count, b"x" * (count * 37 % 3000))
        pair = (Write(f"pods/{number}/left", body), Write(f"pods/{number}/right", body))
        telling.send((number, count, await store.commit(*pair)))
