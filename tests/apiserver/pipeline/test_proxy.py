"""The proxy subresource, to a small web server of the test's own."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, WSMsgType, web

from knarr import pki
from knarr.apiserver import proxy
from knarr.apiserver.listener import Listener, tls_context
from knarr.client.https import client_context
from tests.apiserver.pipeline.door import PODS, SERVICES, Door, pod, service

POD = f"{PODS}/web/proxy"
ALLOWED = proxy.refuse_address


class Site:
    """Answers with what it was asked."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.port = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        match request.path:
            case "/moved":
                raise web.HTTPFound(f"http://127.0.0.1:{self.port}/there?a=1")
            case "/named":
                raise web.HTTPFound(f"http://{request.host}/there")
            case "/away":
                raise web.HTTPFound("http://elsewhere.example/there")
            case "/page":
                page = '<a href="/inner">x</a><img src="//cdn.example/y"><a href="rel">z</a>'
                return web.Response(text=page, content_type="text/html")
            case "/socket":
                socket = web.WebSocketResponse(protocols=("shouted", "said"))
                await socket.prepare(request)
                async for message in socket:
                    if message.type is WSMsgType.TEXT:
                        await socket.send_str(message.data.upper())
                    else:
                        await socket.send_bytes(message.data[::-1])
                return socket
            case "/long":
                response = web.StreamResponse()
                await response.prepare(request)
                for _ in range(100):
                    await response.write(b"x" * 10_000)
                return response
        body = await request.text()
        return web.json_response({"method": request.method, "path": request.path_qs, "body": body}, status=203)


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    found = Site()
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    # Test traffic stays on loopback, which the proxy refuses: its own test is below.
    monkeypatch.setattr(proxy, "refuse_address", lambda host: None)
    yield found
    await runner.cleanup()


@pytest.fixture
async def running(door: Door, site: Site) -> AsyncIterator[Door]:
    made = pod("web", "c")
    made["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": site.port}]
    await door.done("POST", PODS, made)
    await set_address(door, "127.0.0.1")
    yield door
    await door.server.close()


async def set_address(door: Door, address: str) -> None:
    status = {"status": {"podIP": address, "podIPs": [{"ip": address}], "phase": "Running"}}
    patch = "application/merge-patch+json"
    await door.done("PATCH", f"{PODS}/web/status", status, content_type=patch)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_reaches_the_pod(running: Door, method: str) -> None:
    status, data = await running(method, f"{POD}/some/path", b"text" if method != "GET" else None, q="a b")
    assert (status, data["method"], data["path"]) == (203, method, "/some/path?q=a+b")
    assert data["body"] == ("text" if method != "GET" else "")


@pytest.mark.parametrize("name", ["web", "web:http", "http:web:http", "http:web:"])
async def test_port_and_scheme_may_be_left_out_or_named(running: Door, name: str) -> None:
    assert (await running("GET", f"{PODS}/{name}/proxy/x"))[0] == 203


async def test_without_a_path_the_client_is_sent_to_the_root(running: Door) -> None:
    answer = await running.ask("GET", POD)
    assert (answer.status, answer.headers["location"]) == (301, f"{POD}/")


async def test_who_the_client_is_to_us_is_not_told(running: Door, site: Site) -> None:
    await running.ask("GET", f"{POD}/x", token="secret")
    assert "authorization" not in site.headers
    assert site.headers["x-forwarded-uri"] == f"{POD}/x"


async def test_redirects_and_links_stay_in_the_proxy(running: Door) -> None:
    assert (await running.ask("GET", f"{POD}/moved")).headers["location"] == f"{POD}/there?a=1"
    assert (await running.ask("GET", f"{POD}/away")).headers["location"] == "http://elsewhere.example/there"
    page = (await running.ask("GET", f"{POD}/page")).body.decode()
    assert page == f'<a href="{POD}/inner">x</a><img src="//cdn.example/y"><a href="rel">z</a>'


async def test_a_long_answer_is_passed_on_as_it_comes(running: Door) -> None:
    answer = await running.ask("GET", f"{POD}/long")
    assert answer.stream is not None
    assert sum([len(chunk) async for chunk in answer.stream]) == 1_000_000


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "::1", "fe80::1", "224.0.0.1", "0.0.0.0", "::ffff:127.0.0.1"]
)
async def test_addresses_that_are_not_of_the_cluster_are_refused(
    running: Door, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(proxy, "refuse_address", ALLOWED)
    await set_address(running, address)
    status, data = await running("GET", f"{POD}/x")
    assert (status, data["reason"], data["message"]) == (400, "BadRequest", "address not allowed")


async def test_the_agent_of_a_node_is_not_reached_as_a_pod_or_an_endpoint(door: Door) -> None:
    """Neither by a pod on the node's network nor by an endpoint that somebody wrote: that would pass by nodes/proxy."""
    await door.done("POST", "/api/v1/nodes", {"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.244.1.0/24"]}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
    }
    patch = {"content_type": "application/merge-patch+json"}
    await door.done("PATCH", "/api/v1/nodes/n/status", {"status": status}, **patch)
    await door.done("POST", PODS, pod("web", hostNetwork=True))
    await set_address(door, "192.0.2.1")
    await door.done("POST", SERVICES, service("agent", (10250,)))
    await door.done("POST", SERVICES, service("inside", (10250,)))
    slice_ = {
        "metadata": {"name": "agent", "labels": {"kubernetes.io/service-name": "agent"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["192.0.2.1"]}],
        "ports": [{"name": "p10250", "port": 10250}],
    }
    await door.done("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice_)
    slice_ |= {
        "metadata": {"name": "inside", "labels": {"kubernetes.io/service-name": "inside"}},
        "endpoints": [{"addresses": ["10.244.1.1"]}],
    }
    await door.done("POST", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice_)
    names = ("agent", "inside")
    for path in (f"{PODS}/https:web:10250/proxy/pods", *(f"{SERVICES}/https:{n}:10250/proxy/pods" for n in names)):
        status, data = await door("GET", path)
        wanted = "address not allowed: the agent of a node is reached through nodes/proxy"
        assert (status, data["message"]) == (400, wanted)


async def test_a_web_socket_goes_through_as_it_is_and_names_stay(running: Door, site: Site, tmp_path: Path) -> None:
    made = pki.ensure(tmp_path / "server", running.clock, dns_names=["localhost"], addresses=["127.0.0.1"])
    listener = Listener(running.server, tls_context(made.apiserver, made.ca), "127.0.0.1", 0)
    origin = f"https://127.0.0.1:{await listener.start()}"
    context = client_context(str(made.ca.certificate_path), str(made.admin.certificate_path), str(made.admin.key_path))
    async with ClientSession() as session:
        async with session.ws_connect(f"{origin}{POD}/socket", ssl=context, protocols=("said",)) as socket:
            assert socket.protocol == "said"
            await socket.send_str("text")
            assert await socket.receive_str() == "TEXT"
            await socket.send_bytes(b"ab" * 100_000)
            assert await socket.receive_bytes() == b"ba" * 100_000
        for before, forwarded_for in (({}, "127.0.0.1"), ({"x-forwarded-for": "192.0.2.1"}, "192.0.2.1, 127.0.0.1")):
            asking = {"host": "cluster.example", **before}
            async with session.get(f"{origin}{POD}/x", ssl=context, headers=asking):
                assert (site.headers["host"], site.headers["x-forwarded-host"]) == ("cluster.example",) * 2
                assert site.headers["x-forwarded-for"] == forwarded_for
        for sent in (io.BytesIO(b"x" * 5_000_000), _pieces()):
            async with session.put(f"{origin}{POD}/x", ssl=context, data=sent) as answer:
                assert len((await answer.json())["body"]) == 5_000_000, "there is no bound, and it need not be known"
            assert ("content-length" in site.headers) == isinstance(sent, io.BytesIO)
        named = {"headers": {"host": "cluster.example"}, "allow_redirects": False}
        async with session.get(f"{origin}{POD}/named", ssl=context, **named) as sent_on:
            assert sent_on.headers["location"] == f"{POD}/there"
        asked = {"connection": "Upgrade", "upgrade": "websocket"}
        async with session.get(f"{origin}{POD}/plain", ssl=context, headers=asked) as refusal:
            assert (refusal.status, (await refusal.json())["path"]) == (203, "/plain"), "who does not upgrade answers"
        async with session.get(f"{origin}{PODS}/web:1/proxy/socket", ssl=context, headers=asked) as nobody:
            assert (nobody.status, (await nobody.json())["reason"]) == (503, "ServiceUnavailable")
    await listener.close()


async def _pieces() -> AsyncIterator[bytes]:
    for _ in range(50):
        yield b"x" * 100_000


async def test_a_pod_without_an_address_is_a_bad_request(door: Door) -> None:
    await door.done("POST", PODS, pod("web"))
    assert (await door("GET", f"{POD}/x"))[0] == 400


async def test_a_pod_that_does_not_answer_is_unavailable(running: Door) -> None:
    status, data = await running("GET", f"{PODS}/web:1/proxy/x")
    assert (status, data["reason"]) == (503, "ServiceUnavailable")
    assert data["message"] == "error trying to reach service: dial tcp 127.0.0.1:1: connect: connection refused"


def endpoints(port: int, *, ready: bool) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
        "ports": [{"name": "p80", "port": port, "protocol": "TCP"}],
    }


SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


@pytest.mark.parametrize("name", ["web", "web:p80", "web:80", "http:web:p80"])
async def test_a_service_is_reached_by_one_of_its_endpoints(
    running: Door, site: Site, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    await running.done("POST", SERVICES, service("web"))
    await running.done("POST", SLICES, endpoints(site.port, ready=True))
    monkeypatch.setattr(proxy.Target, "origin", property(lambda target: f"http://127.0.0.1:{target.port}"))
    assert (await running("GET", f"{SERVICES}/{name}/proxy/x"))[0] == 203


async def test_a_service_without_endpoints_is_unavailable(running: Door, site: Site) -> None:
    await running.done("POST", SERVICES, service("web"))
    for _ in range(2):
        status, data = await running("GET", f"{SERVICES}/web/proxy/x")
        assert (status, data["message"]) == (503, 'no endpoints available for service "web"')
        await running("POST", SLICES, endpoints(site.port, ready=False))
    status, data = await running("GET", f"{SERVICES}/web:nope/proxy/x")
    assert (status, data["message"]) == (503, 'no service port "nope" found for service "web"')


async def test_a_node_is_reached_at_a_port_of_its_address(running: Door, site: Site) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    node["status"] = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}]}
    await running.done("POST", "/api/v1/nodes", node)
    assert (await running("GET", f"/api/v1/nodes/n1:{site.port}/proxy/x"))[0] == 203
