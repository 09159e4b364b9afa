"""The end of a server, as its clients see it: nothing is torn off, and nobody is told that all is well."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from knarr.apiserver import listener
from knarr.client.https import client_context
from tests.apiserver.pipeline.door import CONFIG_MAPS, config_map
from tests.apiserver.pipeline.served import Served, serve


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path) as running:
        yield running


@asynccontextmanager
async def client(served: Served) -> AsyncIterator[aiohttp.ClientSession]:
    admin = str(served.folder / "admin.crt"), str(served.folder / "admin.key")
    connector = aiohttp.TCPConnector(ssl=client_context(served.ca, *admin))
    async with aiohttp.ClientSession(served.url, connector=connector) as opened:
        yield opened


class Held:
    """Reads of one object wait until they are let go."""

    def __init__(self, served: Served) -> None:
        self._get = served.door.store.get
        self.waiting, self.let_go = asyncio.Event(), asyncio.Event()
        served.door.store.get = self.get  # type: ignore[method-assign]

    async def get(self, key: str) -> Any:
        if key.endswith("/held"):
            self.waiting.set()
            await self.let_go.wait()
        return await self._get(key)


async def test_a_request_in_flight_is_answered_and_its_connection_closed(served: Served) -> None:
    await served.door.done("POST", CONFIG_MAPS, config_map("held"))
    held = Held(served)
    async with client(served) as session, client(served) as another:
        asked = asyncio.ensure_future(session.get(f"{CONFIG_MAPS}/held"))
        await held.waiting.wait()
        closing = asyncio.ensure_future(served.listener.close())
        await asyncio.sleep(0)
        with pytest.raises(aiohttp.ClientConnectionError):
            await another.get("/readyz")
        assert not closing.done()
        held.let_go.set()
        answer = await asked
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert (await answer.json())["metadata"]["name"] == "held"
        await closing


async def test_a_request_that_never_ends_does_not_hold_up_the_end(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "SHUTDOWN_S", 0.1)
    held = Held(served)
    async with client(served) as session:
        asked = asyncio.ensure_future(session.get(f"{CONFIG_MAPS}/held"))
        await held.waiting.wait()
        async with asyncio.timeout(20):
            await served.listener.close()
        with pytest.raises(aiohttp.ClientError):
            await asked


async def test_connections_that_are_kept_for_later_do_not_hold_up_the_end(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "SHUTDOWN_S", 3600.0)
    async with client(served) as session:
        async with session.get("/readyz") as answer:
            await answer.read()
        async with asyncio.timeout(30):
            await served.listener.close()


async def test_watches_end_as_if_their_time_were_over(served: Served) -> None:
    await served.door.done("POST", CONFIG_MAPS, config_map("a"))
    async with client(served) as session:
        stream = await session.get(CONFIG_MAPS, params={"watch": "true"})
        socket = await session.ws_connect(CONFIG_MAPS, params={"watch": "true"})
        assert json.loads(await stream.content.readline())["type"] == "ADDED"
        assert json.loads((await socket.receive()).data)["type"] == "ADDED"
        closing = asyncio.ensure_future(served.listener.close())
        # A body that is torn off would raise here: its last chunk would be missing.
        assert await stream.content.read() == b""
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        await socket.close()
        await closing


async def test_a_server_that_stops_is_not_ready_but_alive(served: Served) -> None:
    async with client(served) as session:
        assert (await session.get("/readyz/shutdown")).status == 200
        served.door.server.stop()
        answer = await session.get("/readyz")
        assert (answer.status, "[-]shutdown failed: reason withheld" in await answer.text()) == (500, True)
        answer = await session.get("/readyz/shutdown")
        assert (answer.status, await answer.text()) == (500, "internal server error: process is shutting down\n")
        assert (await session.get("/livez")).status == 200
