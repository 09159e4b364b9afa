"""A server of another part of the API, as far as tests need it: TLS, and it knows the API server by its certificate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from knarr import pki
from knarr.api.discovery import resources as slices
from knarr.apiserver import proxy
from knarr.client.informer import Informers
from knarr.clock import SystemClock
from knarr.controllers.apiservices import APIServices
from tests.apiserver.pipeline.door import Door, namespace

GROUP, VERSION = "custom.metrics.k8s.io", "v1beta2"
PATH = f"/apis/{GROUP}/{VERSION}"
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
NAME = f"{VERSION}.{GROUP}"
SERVICES = "/api/v1/namespaces/metrics/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/metrics/endpointslices"
RESOURCES = [
    {"name": "pods/requests", "singularName": "", "namespaced": True, "kind": "MetricValueList", "verbs": ["get"]},
    {"name": "pods/errors", "singularName": "", "namespaced": True, "kind": "MetricValueList", "verbs": ["get"]},
    {
        "name": "things",
        "singularName": "thing",
        "namespaced": True,
        "kind": "Thing",
        "verbs": ["get", "list", "delete", "deletecollection"],
        "newer": 1,
    },
    {"name": 17, "kind": "Odd"},
]


class Backend:
    """Answers with what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.pki = pki.ensure(folder, SystemClock(), dns_names=["adapter.metrics.svc"], addresses=[])
        self.front_proxy_ca = str(self.pki.front_proxy_ca.certificate_path)
        self.port = 0
        self.status = 200
        self.discovery: Any = {"kind": "APIResourceList", "groupVersion": f"{GROUP}/{VERSION}", "resources": RESOURCES}
        self.things: list[dict[str, Any]] = []
        """Of the namespace shop."""
        self.asked: list[str] = []
        self.headers: list[tuple[str, str]] = []
        self.shown: tuple[Any, ...] = ()
        """The subject of the client's certificate."""

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path_qs}")
        self.headers = list(request.headers.items())
        assert request.transport
        self.shown = request.transport.get_extra_info("peercert")["subject"]
        if request.path == PATH:
            return web.json_response(self.discovery, status=self.status)
        if request.path.startswith("/openapi/v3"):
            url = f"/openapi/v3{PATH}?hash=1"
            index = {"paths": {PATH.strip("/"): {"serverRelativeURL": url}, "apis/apps/v1": {"serverRelativeURL": "x"}}}
            return web.json_response(index if request.path == "/openapi/v3" else {"openapi": "3.0.0"})
        if request.path.startswith(f"{PATH}/namespaces/shop/things"):
            if name := request.path.removeprefix(f"{PATH}/namespaces/shop/things").strip("/"):
                found = [each for each in self.things if each["metadata"]["name"] == name]
                return web.json_response(found[0] if found else {}, status=200 if found else 404)
            if request.method == "DELETE":
                self.things = [each for each in self.things if each["metadata"].get("finalizers")]
            if not request.query.get("watch") and request.method in ("GET", "DELETE"):
                return web.json_response({"kind": "ThingList", "items": self.things})
        match request.path.removeprefix(PATH):
            case "/socket":
                socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
                await socket.prepare(request)
                async for message in socket:
                    await socket.send_bytes(message.data.upper())
                return socket
            case "/moved":
                raise web.HTTPFound("https://elsewhere.example/")
            case "/long":
                return web.Response(body=b"x" * (3 << 20))
            case "/broken":
                response = web.StreamResponse(headers={"content-length": str(4 << 20)})
                await response.prepare(request)
                await response.write(b"x" * (2 << 20))
                request.transport.abort()
                return response
            case "/namespaces/shop/things" if request.query.get("watch"):
                response = web.StreamResponse()
                await response.prepare(request)
                for number in range(3):
                    await response.write(b'{"type":"ADDED","object":{"n":%d}}\n' % number)
                return response
        body = await request.text()
        return web.json_response({"kind": "Thing", "asked": request.path_qs, "body": body}, status=self.status)

    async def serve(self) -> web.AppRunner:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pki.apiserver.certificate_path, self.pki.apiserver.key_path)
        context.load_verify_locations(self.front_proxy_ca)
        context.verify_mode = ssl.CERT_REQUIRED
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=context).start()
        self.port = runner.addresses[0][1]
        return runner


def api_service(backend: Backend, **spec: Any) -> dict[str, Any]:
    import base64

    bundle = base64.b64encode(backend.pki.ca.certificate_pem).decode()
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": bundle,
            "service": {"name": "adapter", "namespace": "metrics"},
            **spec,
        },
    }


def service(port: int = 443) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "adapter", "namespace": "metrics"},
        "spec": {"ports": [{"name": "https", "port": port}]},
    }


def endpoints(port: int, *, ready: bool = True, address: str = "127.0.0.1") -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "adapter-1", "labels": {"kubernetes.io/service-name": "adapter"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
        "ports": [{"name": "https", "port": port}],
    }


def allow_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test traffic stays on loopback, which is refused otherwise: as an endpoint, and as a target."""
    monkeypatch.setattr(slices, "validate_not_special", lambda address, path: ())
    monkeypatch.setattr(proxy, "refuse_address", lambda host: None)


async def register(door: Door, backend: Backend, **spec: Any) -> None:
    """All that a user makes for a backend."""
    await door.done("POST", "/api/v1/namespaces", namespace("metrics"))
    await door.done("POST", SERVICES, service())
    await door.done("POST", SLICES, endpoints(backend.port))
    await door.done("POST", API_SERVICES, api_service(backend, **spec))


@asynccontextmanager
async def looking(door: Door) -> AsyncIterator[APIServices]:
    """The loop that looks after APIServices."""
    informers = Informers(door.client, door.clock)
    loop = APIServices(door.client, informers, door.clock, door.server.aggregator.look)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(informers.run()), group.create_task(loop.run())]
        try:
            yield loop
        finally:
            for task in tasks:
                task.cancel()


async def condition(door: Door, name: str = NAME) -> tuple[str, str, str]:
    """Status, reason and message of Available."""
    found = await door.done("GET", f"{API_SERVICES}/{name}")
    for each in found.get("status", {}).get("conditions", ()):
        if each["type"] == "Available":
            return each["status"], each["reason"], each["message"]
    return "", "", ""


async def becomes(door: Door, reason: str, name: str = NAME) -> tuple[str, str]:
    """Wait until the condition has a reason; its status and message."""
    async with asyncio.timeout(20):
        while True:
            status, found, message = await condition(door, name)
            if found == reason:
                return status, message
            await asyncio.sleep(0.01)
