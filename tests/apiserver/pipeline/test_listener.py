"""The API server on a socket: TLS, users by certificate, compression, limits, streams and WebSockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from knarr.client.https import client_context
from tests.apiserver.pipeline.door import CONFIG_MAPS, PODS, config_map, pod
from tests.apiserver.pipeline.echo_node import EchoNode
from tests.apiserver.pipeline.served import Served, serve


@pytest.fixture
async def node() -> EchoNode:
    return EchoNode()


@pytest.fixture
async def served(tmp_path: Path, node: EchoNode) -> AsyncIterator[Served]:
    async with serve(tmp_path, node) as running:
        yield running


@pytest.fixture
async def session(served: Served) -> AsyncIterator[aiohttp.ClientSession]:
    """As the administrator."""
    folder = served.folder
    context = client_context(served.ca, str(folder / "admin.crt"), str(folder / "admin.key"))
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(served.url, connector=connector, auto_decompress=False) as opened:
        yield opened


async def running_pod(served: Served, *containers: str) -> None:
    await served.door.done("POST", PODS, pod("web", *containers, nodeName="n1"))


async def test_a_certificate_of_another_authority_is_refused(served: Served, tmp_path: Path) -> None:
    async with serve(tmp_path / "other") as other:
        context = client_context(served.ca, str(other.folder / "admin.crt"), str(other.folder / "admin.key"))
    async with aiohttp.ClientSession(served.url, connector=aiohttp.TCPConnector(ssl=context)) as stranger:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await stranger.get(PODS)


async def test_a_server_that_listens_everywhere_is_reached_in_both_families(tmp_path: Path) -> None:
    async with serve(tmp_path, host="::") as served:
        for address in ("127.0.0.1", "::1"):
            _, writer = await asyncio.open_connection(address, served.port)
            writer.close()
            await writer.wait_closed()


async def test_a_long_list_is_compressed_for_those_who_can_read_it(
    served: Served, session: aiohttp.ClientSession
) -> None:
    for number in range(20):
        await served.door.done("POST", CONFIG_MAPS, config_map(f"a{number}", x="x" * 10_000))
    plain = await session.get(CONFIG_MAPS, headers={"accept-encoding": "identity"})
    small = await session.get(CONFIG_MAPS, headers={"accept-encoding": "gzip"})
    assert (plain.headers.get("content-encoding"), small.headers.get("content-encoding")) == (None, "gzip")
    assert len(await small.read()) < len(await plain.read()) / 10


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip;q=1.0", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, deflate", False),
        ("xgzip", False),
        ("", False),
    ],
)
async def test_only_long_answers_are_compressed_and_only_for_those_who_accept_it(
    served: Served, session: aiohttp.ClientSession, accepted: str, compressed: bool
) -> None:
    await served.door.done("POST", CONFIG_MAPS, config_map("long", x="x" * (128 << 10)))
    await served.door.done("POST", CONFIG_MAPS, config_map("short", x="x" * (120 << 10)))
    for name, expected in (("long", compressed), ("short", False)):
        answer = await session.get(f"{CONFIG_MAPS}/{name}", headers={"accept-encoding": accepted})
        assert (answer.headers.get("content-encoding") == "gzip") is expected
        assert (answer.headers.get("vary") == "Accept-Encoding") is expected
        body = await answer.read()
        assert json.loads(gzip.decompress(body) if expected else body)["metadata"]["name"] == name


async def test_a_watch_over_a_websocket_is_a_text_message_an_event(
    served: Served, session: aiohttp.ClientSession
) -> None:
    await served.door.done("POST", CONFIG_MAPS, config_map("a"))
    async with session.ws_connect(CONFIG_MAPS, params={"watch": "true", "fieldSelector": "metadata.name!=x"}) as socket:
        await served.door.done("POST", CONFIG_MAPS, config_map("b"))
        for name in "ab":
            message = await socket.receive()
            event = json.loads(message.data)
            assert message.type is aiohttp.WSMsgType.TEXT
            assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", name)
    async with asyncio.timeout(30):
        while served.listener._streams:
            await session.get("/livez")
    async with session.ws_connect(CONFIG_MAPS, params={"watch": "true", "timeoutSeconds": "1"}) as socket:
        assert [message.type async for message in socket] == [aiohttp.WSMsgType.TEXT] * 2


async def test_a_watch_over_a_websocket_that_cannot_be_is_refused_before_it_is_one(
    session: aiohttp.ClientSession,
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await session.ws_connect(CONFIG_MAPS, params={"watch": "true", "resourceVersion": "abc"})
    assert refused.value.status == 400


async def test_of_a_parameter_that_comes_twice_the_first_counts(session: aiohttp.ClientSession) -> None:
    for name in "ab":
        await session.post(CONFIG_MAPS, json=config_map(name))
    listed = await (await session.get(CONFIG_MAPS, params=[("limit", "1"), ("limit", "5")])).json()
    assert len(listed["items"]) == 1


async def test_what_a_warning_repeats_can_break_no_header(session: aiohttp.ClientSession) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "x\r\ny: z": 1}
    answer = await session.post(CONFIG_MAPS, json=body)
    assert (answer.status, answer.headers["Warning"]) == (201, '299 - "unknown field \\"x  y: z\\""')


async def test_a_watch_whose_client_does_not_read_is_closed_and_others_miss_nothing(
    served: Served, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def until_told(delay_s: float | None) -> AsyncIterator[None]:
        """The time that a client has is over when the test says so."""
        async with asyncio.timeout(None) as limit:
            waiting.add(limit)
            try:
                yield
            finally:
                waiting.discard(limit)

    monkeypatch.setattr(served.listener._clock, "timeout", until_told)
    folder, path = served.folder, f"{CONFIG_MAPS}?watch=true"
    context = client_context(served.ca, str(folder / "admin.crt"), str(folder / "admin.key"))

    def open_and_stall() -> ssl.SSLSocket:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(("127.0.0.1", served.port))
        stalled = context.wrap_socket(plain, server_hostname="127.0.0.1")
        stalled.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert b"200 OK" in stalled.recv(512)
        return stalled

    stalled = await asyncio.to_thread(open_and_stall)
    async with session.get(path, headers={"accept": "application/json"}) as reading:
        streams = set(served.listener._streams)
        assert len(streams) == 2

        async def fill() -> None:
            for number in range(20):
                await served.door.done("POST", CONFIG_MAPS, config_map(f"a{number}", x="x" * 900_000))

        filling = asyncio.ensure_future(fill())
        names: list[str] = []
        line = b""
        while len(names) < 20:
            line += await reading.content.readany()
            *whole, line = line.split(b"\n")
            names += [json.loads(each)["object"]["metadata"]["name"] for each in whole]
        await filling
        assert names == [f"a{number}" for number in range(20)]
        async with asyncio.timeout(30):
            while len(waiting) != 1:  # noqa: ASYNC110 (nothing tells)
                await asyncio.sleep(0)
        waiting.pop().reschedule(asyncio.get_running_loop().time())
        ended, going_on = await asyncio.wait(streams, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        assert (len(ended), len(going_on)) == (1, 1)
        assert isinstance(ended.pop().exception(), ConnectionResetError)
    stalled.close()


async def test_warnings_are_headers(session: aiohttp.ClientSession) -> None:
    answer = await session.post(CONFIG_MAPS, json=config_map("a") | {"odd": 1})
    assert answer.status == 201
    assert answer.headers.getall("Warning") == ['299 - "unknown field \\"odd\\""']


async def test_head_has_no_body_and_queries_are_decoded(session: aiohttp.ClientSession) -> None:
    await session.post(CONFIG_MAPS, json=config_map("a", {"x": "y"}))
    answer = await session.head(CONFIG_MAPS)
    assert (answer.status, await answer.read()) == (200, b"")
    found = await (await session.get(CONFIG_MAPS, params={"labelSelector": "x in (y,z)"})).json()
    assert len(found["items"]) == 1


async def test_a_watch_streams_and_a_client_that_leaves_is_forgotten(
    served: Served, session: aiohttp.ClientSession
) -> None:
    response = await session.get(
        CONFIG_MAPS, params={"watch": "true", "resourceVersion": str(served.door.store.revision)}
    )
    await session.post(CONFIG_MAPS, json=config_map("a"))
    event = json.loads(await response.content.readline())
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")
    assert len(served.listener._streams) == 1
    response.close()
    async with asyncio.timeout(30):
        while served.listener._streams:
            await session.get("/livez")


async def test_logs_come_whole_or_as_they_are_written(
    served: Served, session: aiohttp.ClientSession, node: EchoNode
) -> None:
    await running_pod(served)
    answer = await session.get(f"{PODS}/web/log", params={"tailLines": "5", "timestamps": "true", "previous": "true"})
    assert (answer.content_type, await answer.text()) == ("text/plain", "first of c\n")
    asked = node.asked[0]
    assert (asked.tail_lines, asked.timestamps, asked.previous, asked.follow) == (5, True, True, False)
    follow = await session.get(f"{PODS}/web/log", params={"follow": "true"})
    assert await follow.content.readline() == b"first of c\n"
    node.more.set()
    assert await follow.content.read() == b"second\n"


async def test_logs_of_several_containers_need_a_choice(served: Served, session: aiohttp.ClientSession) -> None:
    await running_pod(served, "a", "b")
    refused = await session.get(f"{PODS}/web/log")
    message = (await refused.json())["message"]
    assert (refused.status, message) == (
        400,
        "a container name must be specified for pod web, choose one of: [a b]",
    )
    assert (await session.get(f"{PODS}/web/log", params={"container": "z"})).status == 400
    assert await (await session.get(f"{PODS}/web/log", params={"container": "b"})).text() == "first of b\n"
    for wrong in ({"tailLines": "-1"}, {"sinceSeconds": "0"}, {"sinceTime": "yesterday"}, {"limitBytes": "0"}):
        assert (await session.get(f"{PODS}/web/log", params={"container": "a"} | wrong)).status == 400


@asynccontextmanager
async def command(
    session: aiohttp.ClientSession, version: str, **query: Any
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with session.ws_connect(f"{PODS}/web/exec", params=query, protocols=[version]) as socket:
        assert socket.protocol == version
        yield socket


async def said(socket: aiohttp.ClientWebSocketResponse) -> dict[int, bytes]:
    """Everything that came, by channel."""
    found: dict[int, bytes] = {}
    async for message in socket:
        if message.data[1:]:
            found[message.data[0]] = found.get(message.data[0], b"") + message.data[1:]
    return found


@pytest.mark.parametrize("version", ["v4.channel.k8s.io", "v5.channel.k8s.io"])
async def test_exec_carries_output_and_exit_code(served: Served, session: aiohttp.ClientSession, version: str) -> None:
    await running_pod(served)
    query = [("command", "echo"), ("command", "a b"), ("stdout", "1")]
    async with session.ws_connect(f"{PODS}/web/exec", params=query, protocols=[version]) as socket:
        found = await said(socket)
    assert (found[1], found[2]) == (b"echo a b\n", b"done\n")
    assert json.loads(found[3])["status"] == "Success"
    async with session.ws_connect(
        f"{PODS}/web/exec", params=[("command", "exit"), ("command", "3")], protocols=[version]
    ) as socket:
        status = json.loads((await said(socket))[3])
    assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_exec_carries_input_its_end_and_the_terminals_size(
    served: Served, session: aiohttp.ClientSession, node: EchoNode
) -> None:
    await running_pod(served)
    async with command(session, "v5.channel.k8s.io", command="cat", stdin="true", tty="true") as socket:
        await socket.send_bytes(b"\x04" + b'{"Width":80,"Height":24}')
        await socket.send_bytes(b"\x00hello")
        await socket.send_bytes(b"\xff\x00")
        found = await said(socket)
    assert found[1] == b"hello"
    assert json.loads(found[3])["status"] == "Success"
    assert node.sessions[0].sizes == [(80, 24)]


async def test_exec_ends_when_the_client_goes(served: Served, session: aiohttp.ClientSession, node: EchoNode) -> None:
    await running_pod(served)
    async with command(session, "v5.channel.k8s.io", command="cat", stdin="true") as socket:
        await socket.send_bytes(b"\x00hello")
        assert (await socket.receive()).data == b"\x01hello"
    async with asyncio.timeout(30):
        await node.sessions[0].closed.wait()


async def test_exec_without_a_websocket_or_a_command_is_a_bad_request(
    served: Served, session: aiohttp.ClientSession
) -> None:
    await running_pod(served)
    assert (await session.post(f"{PODS}/web/exec", params={"command": "x"})).status == 400
    assert (await session.post(f"{PODS}/web/exec")).status == 400
    assert (await session.get(f"{PODS}/nobody/exec", params={"command": "x"})).status == 404


async def test_attach_shows_what_the_container_says(served: Served, session: aiohttp.ClientSession) -> None:
    await running_pod(served)
    async with session.ws_connect(f"{PODS}/web/attach", protocols=["v5.channel.k8s.io"]) as socket:
        assert (await said(socket))[1] == b"attached\n"


async def test_a_port_is_forwarded(served: Served, session: aiohttp.ClientSession) -> None:
    await running_pod(served)

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(shout, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with session.ws_connect(
            f"{PODS}/web/portforward", params={"ports": str(port)}, protocols=["v4.channel.k8s.io"]
        ) as socket:
            heads = [(await socket.receive()).data for _ in range(2)]
            assert heads == [bytes((channel,)) + port.to_bytes(2, "little") for channel in (0, 1)]
            await socket.send_bytes(b"\x00hello\n")
            assert (await socket.receive()).data == b"\x00HELLO\n"


async def raw_connection(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = served.url.removeprefix("https://").split(":")
    return await asyncio.open_connection(host, int(port), ssl=client_context(served.ca))


async def test_headers_that_come_too_slowly_are_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knarr.apiserver.listener.HEADERS_MAX_S", 0.05)
    reader, writer = await raw_connection(served)
    writer.write(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.write(b"GET /ver")  # and never more
    assert b"HTTP/1.1 200" not in await reader.read()
    writer.close()


async def test_a_body_that_never_comes_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knarr.apiserver.listener.BODY_MAX_S", 0.05)
    reader, writer = await raw_connection(served)
    writer.write(b"POST /api/v1/namespaces HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 504 ")
    writer.close()
