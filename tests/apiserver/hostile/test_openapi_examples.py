"""What our own OpenAPI says may be sent is sent, and what it does not: every operation, over HTTPS, by schemathesis.

Two examples an operation; `--hypothesis-profile=long` sends forty. No answer is a 5xx, none takes long, and after all
of them the server serves. Server and client share one loop that stands still while examples are made.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from knarr.api.registry import built_in
from knarr.apiserver import openapi
from knarr.client.https import client_context
from tests.apiserver.pipeline.served import Served, serve

schemathesis = pytest.importorskip("schemathesis")

EXAMPLES = max(settings().max_examples // 50, 1)
ANSWER_MAX_S = 60
PLACES = [place for place in openapi.places(built_in()) if "/v" in place]


class Client:
    """Sends cases, one after another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self._session: Any = None

    def start(self) -> None:
        self._runner.run(self._start())

    async def _start(self) -> None:
        served: Served = await self._open.enter_async_context(serve(self._folder))
        admin = str(self._folder / "admin.crt"), str(self._folder / "admin.key")
        connector = aiohttp.TCPConnector(ssl=client_context(served.ca, *admin))
        self._session = await self._open.enter_async_context(aiohttp.ClientSession(served.url, connector=connector))

    def close(self) -> None:
        self._runner.run(self._open.aclose())
        self._runner.close()

    def send(self, method: str, path: str, query: Any, headers: dict[str, str], body: Any) -> tuple[int, bytes]:
        return self._runner.run(self._send(method, path, query, headers, body))

    async def _send(self, method: str, path: str, query: Any, headers: dict[str, str], body: Any) -> tuple[int, bytes]:
        from yarl import URL

        url = URL(path, encoded=True).update_query(query)
        async with (
            asyncio.timeout(ANSWER_MAX_S),
            self._session.request(method, url, headers=headers, data=body, allow_redirects=False) as answer,
        ):
            # A watch, or a log that is followed, goes on: its head is its answer.
            endless = answer.headers.get("transfer-encoding") == "chunked"
            return answer.status, b"" if endless else await answer.read()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as patch:
        for module in ("reads", "watch"):
            patch.setattr(f"knarr.apiserver.{module}.FUTURE_WAIT_S", 0.0)
        made = Client(tmp_path_factory.mktemp("served"))
        made.start()
        yield made
        made.close()


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("place", PLACES)
def test_every_operation_is_answered(client: Client, place: str) -> None:
    schema = schemathesis.openapi.from_dict(openapi.document(built_in(), place))
    count = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def answered(case: Any) -> None:
            nonlocal count
            count += 1
            query = [
                (name, text(each))
                for name, value in (case.query or {}).items()
                for each in (value if isinstance(value, list) else [value])
            ]
            body = None if isinstance(case.body, type(schemathesis.core.NOT_SET)) else case.body
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode("utf-8", "surrogatepass")
            headers = {"content-type": case.media_type} if case.media_type and body is not None else {}
            status, said = client.send(case.method, case.formatted_path, query, headers, body)
            sound = status < 500 or (status == 504 and b"ResourceVersionTooLarge" in said)
            sound = sound or (status == 503 and "/proxy" in case.formatted_path)
            assert sound, (case.method, case.formatted_path, query, body, status, said)

        answered()
    assert count
    assert client.send("GET", "/readyz", [], {}, None) == (200, b"ok")
