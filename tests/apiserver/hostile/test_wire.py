"""Rows 1, 2, 35, 38 to 40 and 44 to 46 on the wire: HTTPS, real connections, whatever bytes come."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import io
import json
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from knarr.apiserver.flow import Flow
from knarr.client.https import client_context
from tests.apiserver.hostile.cases import Case, check
from tests.apiserver.pipeline.door import CONFIG_MAPS, PODS, SERVICES, config_map, pod, service
from tests.apiserver.pipeline.served import Served, serve

ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
UNAUTHORIZED = Case(35, "", "", "", None, 401, "Unauthorized")


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serve(tmp_path) as running:
        yield running


@pytest.fixture
async def session(served: Served) -> AsyncIterator[aiohttp.ClientSession]:
    """As the administrator."""
    folder = served.folder
    context = client_context(served.ca, str(folder / "admin.crt"), str(folder / "admin.key"))
    async with aiohttp.ClientSession(served.url, connector=aiohttp.TCPConnector(ssl=context)) as opened:
        yield opened


@pytest.fixture
async def stranger(served: Served) -> AsyncIterator[aiohttp.ClientSession]:
    """Without a certificate."""
    connector = aiohttp.TCPConnector(ssl=client_context(served.ca))
    async with aiohttp.ClientSession(served.url, connector=connector) as opened:
        yield opened


async def refused(answer: aiohttp.ClientResponse, case: Case) -> dict[str, Any]:
    status = await answer.json()
    check(case, answer.status, status)
    return dict(status)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("chunked", [False, True], ids=["row1-with its length", "row1-in chunks"])
async def test_a_body_over_three_mebibytes(
    served: Served, session: aiohttp.ClientSession, method: str, chunked: bool
) -> None:
    revision = served.door.store.revision
    size = (3 << 20) + 1

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(0, size, 1 << 16):
            yield b" " * (1 << 16)

    path = CONFIG_MAPS if method == "POST" else f"{CONFIG_MAPS}/a"
    headers = {"content-type": "application/merge-patch+json" if method == "PATCH" else "application/json"}
    data = chunks() if chunked else io.BytesIO(b" " * size)
    answer = await session.request(method, path, data=data, headers=headers)
    await refused(answer, Case(1, "", "", "", None, 413, "Request entity too large: limit is 3145728"))
    assert served.door.store.revision == revision
    assert (await session.get(CONFIG_MAPS)).status == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["row1-with its length", "row1-in chunks"])
async def test_a_client_that_sends_on_after_the_413_is_no_fault(
    served: Served, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture, chunked: bool
) -> None:
    """What is sent after the answer is the rest of the body: it was once taken for the head of another request."""
    piece = b" " * (1 << 16)
    length = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % (8 << 20)
    head = b"POST %s HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n%s\r\n\r\n"
    whole = b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece
    context = client_context(served.ca, str(served.folder / "admin.crt"), str(served.folder / "admin.key"))
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, ssl=context)
    writer.write(head % (CONFIG_MAPS.encode(), length))
    for _ in range((3 << 20) // len(piece) + 1):
        writer.write(whole)
    assert b" 413 " in await reader.readline()
    status = await reader.readuntil(b'"code":413}')
    for _ in range((8 << 20) // len(piece) - (3 << 20) // len(piece) - 1):
        writer.write(whole)
    if chunked:
        writer.write(b"0\r\n\r\n")
    writer.write(b"GET /version HTTP/1.1\r\nhost: a\r\n\r\n")  # the connection is as good as before
    assert b" 200 " in await reader.readline(), status
    writer.close()
    await writer.wait_closed()
    assert [record.message for record in caplog.records if record.name.startswith("aiohttp")] == []


@pytest.mark.parametrize("media", ["application/json", "application/yaml"])
async def test_row2_one_and_a_half_million_brackets(session: aiohttp.ClientSession, media: str) -> None:
    body = io.BytesIO(b"[" * 1_500_000)
    answer = await session.post(CONFIG_MAPS, data=body, headers={"content-type": media})
    await refused(answer, Case(2, "", "", "", None, 400))
    assert (await session.get(CONFIG_MAPS)).status == 200


async def token_of(served: Served, account: str = "default", **spec: Any) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    made = await served.door.done("POST", f"{ACCOUNTS}/{account}/token", body)
    token: str = made["status"]["token"]
    return token


async def status_with(stranger: aiohttp.ClientSession, token: str) -> tuple[int, Any]:
    answer = await stranger.get("/apis", headers={"authorization": f"Bearer {token}"})
    return answer.status, await answer.json()


@pytest.mark.parametrize(
    "token",
    ["x", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.", "é", "x" * 60_000, "abcdef.0123456789abcdef", "\ttoken"],
    ids=lambda each: f"row35-{each[:12]!r}",
)
async def test_a_token_that_nobody_issued(stranger: aiohttp.ClientSession, token: str) -> None:
    check(UNAUTHORIZED, *await status_with(stranger, token))


async def test_row35_a_token_that_was_changed(served: Served, stranger: aiohttp.ClientSession) -> None:
    token = await token_of(served)
    assert (await status_with(stranger, token))[0] == 200
    head, claims, signature = token.split(".")
    none = jwt.encode(jwt.decode(token, options={"verify_signature": False}), "", algorithm="none")
    forged = jwt.encode(jwt.decode(token, options={"verify_signature": False}), "a" * 32, algorithm="HS256")
    for bad in (f"{head}.{claims}.", f"{head}.{claims}.{signature[:-4]}AAAA", f"{head}.{claims}", none, forged):
        check(UNAUTHORIZED, *await status_with(stranger, bad))


async def test_row35_a_token_for_another_audience(served: Served, stranger: aiohttp.ClientSession) -> None:
    check(UNAUTHORIZED, *await status_with(stranger, await token_of(served, audiences=["vault"])))


async def test_row35_a_token_whose_time_is_over(
    served: Served, stranger: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await token_of(served, expirationSeconds=600)
    assert (await status_with(stranger, token))[0] == 200
    now_s = served.door.clock.time_s()
    monkeypatch.setattr(type(served.door.clock), "time_s", lambda clock: now_s + 3600)
    check(UNAUTHORIZED, *await status_with(stranger, token))


async def test_row35_a_token_ends_with_its_pod_and_its_account(served: Served, stranger: aiohttp.ClientSession) -> None:
    made = await served.door.done("POST", PODS, pod("web"))
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": made["metadata"]["uid"]}
    of_pod = await token_of(served, boundObjectRef=bound)
    await served.door.done("POST", ACCOUNTS, {"metadata": {"name": "robot"}})
    of_account = await token_of(served, "robot")
    for token in (of_pod, of_account):
        assert (await status_with(stranger, token))[0] == 200
    await served.door.done("DELETE", f"{PODS}/web", gracePeriodSeconds="0")
    await served.door.done("DELETE", f"{ACCOUNTS}/robot")
    for token in (of_pod, of_account):
        check(UNAUTHORIZED, *await status_with(stranger, token))
    await served.door.done("POST", ACCOUNTS, {"metadata": {"name": "robot"}})
    check(UNAUTHORIZED, *await status_with(stranger, of_account))


async def test_row35_who_shows_nothing_sees_health_and_version_only(stranger: aiohttp.ClientSession) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/version"):
        assert (await stranger.get(path)).status == 200
    message = (
        'configmaps is forbidden: User "system:anonymous" cannot list resource "configmaps" in API group "" in the '
        'namespace "default"'
    )
    await refused(await stranger.get(CONFIG_MAPS), Case(35, "", "", "", None, 403, message))
    message = 'forbidden: User "system:anonymous" cannot get path "/apis"'
    await refused(await stranger.get("/apis"), Case(35, "", "", "", None, 403, message))


def certificate(folder: Path, authority: str, days: tuple[int, int]) -> tuple[str, str]:
    """Files of a certificate of the user jane, by the authority in a folder."""
    ca_key: Any = load_pem_private_key((folder / f"{authority}.key").read_bytes(), None)
    ca = x509.load_pem_x509_certificate((folder / f"{authority}.crt").read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    begin, end = (now + datetime.timedelta(days=day) for day in days)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(ca.subject).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(end)
    signed = made.sign(ca_key, hashes.SHA256())
    paths = str(folder / "jane.crt"), str(folder / "jane.key")
    Path(paths[0]).write_bytes(signed.public_bytes(Encoding.PEM))
    Path(paths[1]).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


@pytest.mark.parametrize("days", [(-10, -1), (1, 10)], ids=["row35-expired", "row35-not yet valid"])
async def test_a_certificate_out_of_its_time(
    served: Served, session: aiohttp.ClientSession, days: tuple[int, int]
) -> None:
    shown = certificate(served.folder, "ca", days)
    connector = aiohttp.TCPConnector(ssl=client_context(served.ca, *shown))
    async with aiohttp.ClientSession(served.url, connector=connector) as late:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await late.get(CONFIG_MAPS)
    assert (await session.get(CONFIG_MAPS)).status == 200


async def test_row38_more_requests_than_allowed_are_told_when_to_come_back(
    served: Served, session: aiohttp.ClientSession, stranger: aiohttp.ClientSession
) -> None:
    server = served.door.server
    server.flow = Flow(server.metrics, server.store, server.clock, 1)
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    jane = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}
    binding = {"metadata": {"name": "b"}, "roleRef": role, "subjects": [jane]}
    await served.door.done("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    shown = certificate(served.folder, "ca", (-1, 1))
    let_go, waiting = asyncio.Event(), asyncio.Event()
    get = served.door.store.get

    async def slow(key: str) -> Any:
        if "held" in key:
            waiting.set()
            await let_go.wait()
        return await get(key)

    served.door.store.get = slow  # type: ignore[method-assign]
    connector = aiohttp.TCPConnector(ssl=client_context(served.ca, *shown))
    async with aiohttp.ClientSession(served.url, connector=connector) as crowd:
        held = asyncio.ensure_future(crowd.get(f"{CONFIG_MAPS}/held"))
        await waiting.wait()
        answer = await crowd.get(CONFIG_MAPS)
        assert answer.headers["retry-after"] == "1"
        status = await refused(answer, Case(38, "", "", "", None, 429, "too many requests, please try again later"))
        assert status["details"]["retryAfterSeconds"] == 1
        # Administrators, and who asks whether the server is well, are served.
        assert (await session.get(CONFIG_MAPS)).status == 200
        assert (await stranger.get("/livez")).status == 200
        let_go.set()
        assert (await held).status == 404
        assert (await crowd.get(CONFIG_MAPS)).status == 200


REFUSED = Case(39, "", "", "", None, 400, "address not allowed")
INSIDE = ["127.0.0.1", "127.8.8.8", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1",
          "::ffff:127.0.0.1", "::ffff:169.254.169.254"]  # fmt: skip
NAMES = ["localhost", "rebound.example", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "", "127.0.0.1.nip.io"]


@pytest.fixture
async def inside(served: Served) -> AsyncIterator[list[bytes]]:
    """What a service on the loopback of the server was asked: nothing may come here."""
    came: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(await reader.read(100))
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        served.inside_port = server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        yield came


@pytest.mark.parametrize("address", INSIDE, ids=lambda each: f"row39-{each}")
async def test_a_pod_is_not_reached_at_an_address_of_the_server(
    served: Served, session: aiohttp.ClientSession, inside: list[bytes], address: str
) -> None:
    port = served.inside_port  # type: ignore[attr-defined]
    await served.door.done("POST", PODS, pod("a"))
    status = {"status": {"podIP": address, "podIPs": [{"ip": address}]}}
    media = "application/merge-patch+json"
    code, _ = await served.door("PATCH", f"{PODS}/a/status", status, content_type=media)
    answer = await session.get(f"{PODS}/a:{port}/proxy/x")
    # Where the status itself was refused, the pod has no address.
    await refused(answer, REFUSED)
    assert code in (200, 422)
    assert not inside


@pytest.mark.parametrize("name", NAMES, ids=lambda each: f"row39-{each}")
async def test_a_name_is_never_resolved(
    served: Served, session: aiohttp.ClientSession, inside: list[bytes], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rebinding needs a name that is looked up twice: none is looked up at all."""
    asked: list[Any] = []

    async def resolve(*name: Any, **more: Any) -> Any:
        asked.append(name)
        raise OSError("no names here")

    port = served.inside_port  # type: ignore[attr-defined]
    node = {"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": name}]}}
    await served.door("POST", "/api/v1/nodes", node)
    await served.door.done("POST", SERVICES, service("s"))
    named = {"metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}}, "addressType": "FQDN",
             "endpoints": [{"addresses": [name or "x"]}], "ports": [{"name": "p80", "port": port}]}  # fmt: skip
    await served.door("POST", SLICES, named)
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve, raising=False)
    for path in (f"/api/v1/nodes/n:{port}/proxy/x", f"{SERVICES}/s/proxy/x"):
        answer = await session.get(path)
        assert answer.status in (400, 503)
        if answer.status == 400:
            await refused(answer, REFUSED)
    assert not inside
    assert not [each for each in asked if name and name in each]


async def test_row40_a_service_without_endpoints(served: Served, session: aiohttp.ClientSession) -> None:
    await served.door.done("POST", SERVICES, service("s"))
    case = Case(40, "", "", "", None, 503, 'no endpoints available for service "s"')
    await refused(await session.get(f"{SERVICES}/s/proxy/x"), case)
    missing = Case(40, "", "", "", None, 404, 'services "t" not found')
    await refused(await session.get(f"{SERVICES}/t/proxy/x"), missing)


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/v1/unicorns", 404),
        ("PUT", CONFIG_MAPS, 405),
        ("TRACE", CONFIG_MAPS, 405),
    ],
)
async def test_row44_paths_and_verbs_on_the_wire(
    session: aiohttp.ClientSession, method: str, path: str, code: int
) -> None:
    answer = await session.request(method, path)
    causes = [("UnexpectedServerResponse", "")] if code == 404 else None
    await refused(answer, Case(44, "", "", "", None, code, "the server .*", causes))


async def connection(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", served.port, ssl=client_context(served.ca))


async def raw(served: Served, sent: bytes) -> tuple[int, Any]:
    """Code and decoded body of the answer to bytes."""
    reader, writer = await connection(served)
    writer.write(sent)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    body = json.loads(await reader.readexactly(length))
    writer.close()
    return int(head.split(b" ")[1]), body


HOST = b"GET /version HTTP/1.1\r\nhost: x\r\n"
NO_HTTP = "the request is no HTTP/1.1: "


@pytest.mark.parametrize(
    ("sent", "code", "message"),
    [
        pytest.param(*each[1:], id=each[0])
        for each in (
            ("row45-one long header", HOST + b"a: " + b"a" * (128 << 10) + b"\r\n\r\n", 431, "a header is longer .*"),
            ("row45-a MiB", HOST + b"".join(b"x-%d: %b\r\n" % (n, b"y" * 30_000) for n in range(40)), 431,
             "the headers are longer than 1048576 bytes"),
            ("row45-a MiB of many", HOST + b"".join(b"x-%d: %b\r\n" % (n, b"y" * 900) for n in range(1200)), 431,
             "the headers are longer than 1048576 bytes"),
            ("row45-20,000 headers", HOST + b"a: b\r\n" * 20_000, 431, "there are more than 16384 headers"),
            ("row45-a long path", b"GET /" + b"a" * (128 << 10) + b" HTTP/1.1\r\nhost: x\r\n\r\n", 431, ""),
            ("row46-no HTTP", b"NONSENSE\r\n\r\n", 400, f"{NO_HTTP}Invalid method encountered: .*NONSENSE.*"),
            ("row46-no verb", HOST.replace(b"GET", b"BREW") + b"\r\n", 400, f"{NO_HTTP}Invalid method .*BREW.*"),
            ("row46-a version that is none", HOST.replace(b"1.1", b"9.9") + b"\r\n", 400, f"{NO_HTTP}.* version.*"),
            ("row46-a length that is none", HOST + b"content-length: x\r\n\r\n", 400, f"{NO_HTTP}.*Content-Length.*"),
            ("row46-a negative length", HOST + b"content-length: -1\r\n\r\n", 400, f"{NO_HTTP}.*Content-Length.*"),
            ("row46-two lengths", HOST + b"content-length: 1\r\ncontent-length: 2\r\n\r\n", 400, ""),
            ("row46-smuggled", HOST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n", 400, ""),
            ("row46-a header without colon", HOST + b"bad header\r\n\r\n", 400, f"{NO_HTTP}.* header token.*"),
            ("row46-a NUL in a header", HOST + b"a: b\x00c\r\n\r\n", 400, ""),
            ("row46-no host", HOST.partition(b"host")[0] + b"\r\n", 400, f"{NO_HTTP}Missing 'Host' header .*"),
            ("row46-a query not UTF-8", b"GET /api/v1/pods?labelSelector=%ff HTTP/1.1\r\nhost: x\r\n\r\n", 400, ""),
            ("row46-a path not UTF-8", b"GET /api/v1/%ff/pods HTTP/1.1\r\nhost: x\r\n\r\n", 403, ""),
            ("row46-2,000 words", b"GET /api?" + b"a=1&" * 2000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 400, ""),
        )
    ],
)  # fmt: skip
async def test_what_is_no_proper_request_is_answered_by_a_status(
    served: Served, sent: bytes, code: int, message: str
) -> None:
    found, status = await raw(served, sent)
    assert found == code
    assert (status["kind"], status["code"]) == ("Status", code)
    assert re.fullmatch(message or ".+", status["message"]), status["message"]
    assert (await raw(served, HOST + b"\r\n"))[0] == 200


async def test_row45_two_hundred_headers_are_not_too_many(served: Served) -> None:
    assert (await raw(served, HOST + b"a: b\r\n" * 200 + b"\r\n"))[0] == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "odd"])
async def test_row46_a_body_that_was_packed_is_read_as_it_is(session: aiohttp.ClientSession, coding: str) -> None:
    """Nothing is unpacked, as upstream: neither broken archives nor such that are large inside do anything."""
    headers = {"content-type": "application/json", "content-encoding": coding}
    for body in (b"abc", gzip.compress(b" " * (8 << 20))):
        await refused(await session.post(CONFIG_MAPS, data=body, headers=headers), Case(46, "", "", "", None, 400))


async def test_row45_headers_that_trickle_in_are_cut_off_however_steadily(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte at a time is no reason to wait longer: the head as a whole has a time limit."""
    monkeypatch.setattr("knarr.apiserver.listener.HEADERS_MAX_S", 0.2)
    reader, writer = await connection(served)
    sent = 0

    async def trickle() -> None:
        nonlocal sent
        for byte in HOST + b"x: " + b"y" * 10_000:
            writer.write(bytes((byte,)))
            await writer.drain()
            sent += 1
            await asyncio.sleep(0.01)

    sending = asyncio.ensure_future(trickle())
    async with asyncio.timeout(20):
        try:
            assert b"HTTP/1.1 200" not in await reader.read()
        except ConnectionResetError:
            pass  # A byte was on its way when the connection was cut off.
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert sent < 2000
    writer.close()
    monkeypatch.undo()
    assert (await raw(served, HOST + b"\r\n"))[0] == 200


def test_row45_who_trickles_and_never_reads_is_cut_off_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the loop of `knarr up` a close in order waits for the client's own, half a minute more."""
    monkeypatch.setattr("knarr.apiserver.listener.HEADERS_MAX_S", 0.2)

    def trickle(served: Served) -> None:
        plain = socket.create_connection(("127.0.0.1", served.port))
        with client_context(served.ca).wrap_socket(plain, server_hostname="127.0.0.1") as opened:
            opened.sendall(HOST + b"x: ")
            for _ in range(3000):
                opened.sendall(b"y")
                time.sleep(0.01)

    async def scenario() -> None:
        async with serve(tmp_path) as served:
            with pytest.raises(OSError, match=r"EOF|reset|pipe"):
                await asyncio.to_thread(trickle, served)

    uvloop.run(scenario())


async def test_row45_a_connection_that_says_nothing_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knarr.apiserver.listener.HEADERS_MAX_S", 0.1)
    reader, writer = await connection(served)
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(
    "number", [b"NaN", b"1e400", b"9" * 5000], ids=["row46-NaN", "row46-1e400", "row46-5,000 digits"]
)
async def test_numbers_that_are_none_on_the_wire(session: aiohttp.ClientSession, number: bytes) -> None:
    body = b'{"metadata":{"name":"a"},"spec":{"replicas":' + number + b"}}"
    path = "/apis/apps/v1/namespaces/default/deployments"
    answer = await session.post(path, data=body, headers={"content-type": "application/json"})
    await refused(answer, Case(46, "", "", "", None, 400))


async def test_row46_texts_that_are_no_unicode_on_the_wire(session: aiohttp.ClientSession) -> None:
    for text in (b"\xff", b"\\ud800", b"\xed\xa0\x80", b"\xc0\x80"):
        body = b'{"metadata":{"name":"a"},"data":{"x":"' + text + b'"}}'
        answer = await session.post(CONFIG_MAPS, data=body, headers={"content-type": "application/json"})
        await refused(answer, Case(46, "", "", "", None, 400))
    assert (await session.post(CONFIG_MAPS, json=config_map("a"))).status == 201
