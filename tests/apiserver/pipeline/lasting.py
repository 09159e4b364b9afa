"""One API server for all examples of a test that tries many: to make one takes longer than an example."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import msgspec
import pytest

from knarr.client.transport import Answer, Request
from tests.apiserver.pipeline.door import ADMINISTRATOR, CONFIG_MAPS, PODS, Door, config_map, open_door, pod


class Server:
    """A door that stays open over all examples of a module."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self.door: Door

    def start(self) -> None:
        self.door = self._runner.run(self._open.enter_async_context(open_door()))
        self.harmless("POST", PODS, pod("a"))
        self.harmless("POST", CONFIG_MAPS, config_map("a", x="1"))

    def close(self) -> None:
        self._runner.run(self._open.aclose())
        self._runner.close()

    def harmless(
        self, method: str, path: str, body: Any = None, media: str = "application/json", **query: str
    ) -> tuple[int, bytes]:
        """Send it; the answer is below 500, and a stream goes on or ends, but does not break."""
        data = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = {"content-type": media, "accept": query.pop("accept", "application/json")}
        answer = self._runner.run(self._sent(Request(method, path, query, headers, data, ADMINISTRATOR)))
        too_early = answer.status == 504 and b"ResourceVersionTooLarge" in answer.body
        assert answer.status < 500 or too_early, (method, path, query, body, answer.body)
        return answer.status, answer.body

    async def _sent(self, request: Request) -> Answer:
        async with asyncio.timeout(20):
            answer = await self.door.server.handle(request)
            if answer.stream is not None:
                async with aclosing(answer.stream) as stream:  # type: ignore[type-var]
                    try:
                        async with asyncio.timeout(0):
                            await anext(stream)
                    except (TimeoutError, StopAsyncIteration):
                        pass
        return answer


def lasting_server() -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        for module in ("reads", "watch"):
            patch.setattr(f"knarr.apiserver.{module}.FUTURE_WAIT_S", 0.0)
        made = Server()
        made.start()
        yield made
        made.close()
