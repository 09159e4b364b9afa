"""Parts of the API that somebody else serves: a real server behind a Service, over TLS, known by a certificate."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from knarr import pki
from knarr.api.apiregistration.priorities import in_order
from knarr.apiserver.listener import Listener, tls_context
from knarr.apiserver.local_services import register_local
from knarr.client.controller import Controller
from knarr.client.https import client_context
from knarr.client.informer import Informers
from knarr.client.transport import Request, User
from knarr.controllers import namespace as namespaces
from knarr.controllers.garbagecollector import GarbageCollector
from knarr.controllers.namespace import Namespaces
from tests.apiserver.pipeline.backend import (
    API_SERVICES,
    GROUP,
    NAME,
    PATH,
    SERVICES,
    SLICES,
    VERSION,
    Backend,
    allow_loopback,
    api_service,
    becomes,
    condition,
    endpoints,
    looking,
    register,
    service,
)
from tests.apiserver.pipeline.door import Door, config_map, namespace, open_door

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
MERGE = "application/merge-patch+json"
PODS = f"{PATH}/namespaces/shop/pods/*/requests"
READER = User("jane", ("team:shop", "system:authenticated"), "u-1", {"example.com/scope": ("a", "b")})
Running = tuple[Door, Backend]


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[Backend]:
    found = Backend(tmp_path / "pki")
    runner = await found.serve()
    yield found
    await runner.cleanup()


@pytest.fixture
async def door(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    allow_loopback(monkeypatch)
    async with open_door(front_proxy=backend.pki.front_proxy_client) as opened:
        yield opened
        await opened.server.close()


@pytest.fixture
async def running(door: Door, backend: Backend) -> AsyncIterator[Running]:
    await register(door, backend)
    async with looking(door):
        await becomes(door, "Passed")
        yield door, backend


async def let_read(door: Door, user: User) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "metrics-reader"},
        "rules": [{"apiGroups": [GROUP], "resources": ["*"], "verbs": ["*"]}],
    }
    bound = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "metrics-reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "metrics-reader"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user.name}],
    }
    for plural, obj in (("clusterroles", role), ("clusterrolebindings", bound)):
        await door.done("POST", f"/apis/rbac.authorization.k8s.io/v1/{plural}", obj)


async def test_a_request_reaches_the_backend_as_it_came_with_the_user_in_headers(running: Running) -> None:
    door, backend = running
    await let_read(door, READER)
    found = await door.done("GET", PODS, user=READER, labelSelector="app=web,tier in (a,b)", limit="3")
    assert found["asked"] == f"{PODS}?labelSelector=app%3Dweb%2Ctier+in+(a,b)&limit=3".replace("(a,b)", "%28a%2Cb%29")
    assert backend.header("x-remote-user") == ["jane"]
    assert backend.header("x-remote-uid") == ["u-1"]
    assert backend.header("x-remote-group") == ["team:shop", "system:authenticated"]
    assert backend.header("x-remote-extra-example.com%2fscope") == ["a", "b"]
    assert backend.header("host") == ["adapter.metrics.svc"]
    assert backend.header("x-forwarded-uri") == [PODS]
    assert backend.shown == ((("commonName", "front-proxy-client"),),)
    made = await door.done("POST", f"{PATH}/namespaces/shop/things", {"a": 1}, user=READER)
    assert (made["body"], backend.asked[-1]) == ('{"a":1}', f"POST {PATH}/namespaces/shop/things")


async def test_what_a_client_says_of_itself_does_not_reach_the_backend(running: Running) -> None:
    door, backend = running
    headers = {
        "authorization": "Bearer secret",
        "x-remote-user": "root",
        "x-remote-group": "system:masters",
        "x-remote-extra-scope": "all",
        "connection": "keep-alive",
        "accept": "text/plain",
    }
    await let_read(door, READER)
    answer = await door.server.handle(Request("GET", PODS, {}, headers, user=READER))
    assert answer.status == 200
    assert backend.header("x-remote-user") == ["jane"]
    assert "system:masters" not in backend.header("x-remote-group")
    assert not backend.header("authorization")
    assert not backend.header("x-remote-extra-scope")
    assert backend.header("accept") == ["text/plain"]


async def test_who_acts_as_somebody_else_is_that_somebody_to_the_backend(running: Running) -> None:
    door, backend = running
    await let_read(door, READER)
    headers = {"impersonate-user": "jane", "impersonate-group": "team:shop"}
    answer = await door.server.handle(Request("GET", PODS, {}, headers, user=User("admin", ("system:masters",))))
    assert answer.status == 200
    assert backend.header("x-remote-user") == ["jane"]
    assert backend.header("x-remote-group") == ["team:shop", "system:authenticated"]
    assert not backend.header("impersonate-user")


async def test_who_may_not_is_refused_before_the_backend_is_asked(running: Running) -> None:
    door, backend = running
    before = len(backend.asked)
    status, told = await door("GET", PODS, user=READER)
    assert (status, told["reason"]) == (403, "Forbidden")
    assert told["message"] == (
        f'pods.{GROUP} "*" is forbidden: User "jane" cannot get resource "pods/requests" '
        f'in API group "{GROUP}" in the namespace "shop"'
    )
    assert len(backend.asked) == before


async def test_a_watch_comes_as_it_is_told_and_a_long_answer_whole(running: Running) -> None:
    door, _ = running
    async with door.watch(f"{PATH}/namespaces/shop/things") as events:
        assert [await events.next() for _ in range(3)] == [("ADDED", {"n": number}) for number in range(3)]
    assert (await door.ask("GET", f"{PATH}/long")).body == b"x" * (3 << 20)
    answer = await door.server.handle_from_outside(Request("GET", f"{PATH}/long", user=User("a", ("system:masters",))))
    assert answer.stream is not None
    assert sum([len(chunk) async for chunk in answer.stream]) == 3 << 20


async def test_an_answer_that_breaks_off_is_not_taken_for_whole(running: Running) -> None:
    door, _ = running
    assert (await door.ask("GET", f"{PATH}/broken")).status == 503


async def test_a_backend_may_not_send_the_client_elsewhere(running: Running) -> None:
    answer = await running[0].ask("GET", f"{PATH}/moved")
    assert answer.status == 502
    assert answer.body == b"the backend attempted to redirect this request, which is not permitted"


@pytest.mark.parametrize(
    ("line", "header"),
    [
        (b"GET %b/\xff\xfe", b"x-odd: 1"),
        (b"GET %b/%%00/%%ff/..%%2f..", b"x-odd: 1"),
        (b"GET %b//../..", b"x-odd: 1"),
        (b"GET %b?a=%%ff&b=%%00&%%0d%%0aX:=1", b"x-odd: 1"),
        (b"GET %b/x", b"x-odd: \xff\xfe"),
        (b"GET %b/x", b"x-forwarded-host: \xff"),
        (b"GET %b/x", b"connection: keep-alive, x-odd"),
        (b"FOO %b/x", b"upgrade: nothing"),
    ],
)
async def test_whatever_a_client_sends_is_its_own_fault(
    running: Running, tmp_path: Path, line: bytes, header: bytes
) -> None:
    door, _ = running
    listener, port, context = await listening(door, tmp_path)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    asked = line % PATH.encode()
    writer.write(asked + b" HTTP/1.1\r\nhost: x\r\n" + header + b"\r\nconnection: close\r\n\r\n")
    async with asyncio.timeout(30):
        status = (await reader.readline()).split(b" ")[1]
    assert 200 <= int(status) < 500
    writer.close()
    await listener.close()


async def test_the_backends_own_errors_are_passed_on(running: Running) -> None:
    door, backend = running
    backend.status = 418
    assert (await door("GET", PODS))[0] == 418


# Discovery


async def found_in_discovery(door: Door) -> tuple[str, list[dict[str, Any]]]:
    """Freshness and resources of the version."""
    for group in (await door.done("GET", "/apis", accept=AGGREGATED))["items"]:
        if group["metadata"]["name"] == GROUP:
            (version,) = group["versions"]
            assert version["version"] == VERSION
            return version["freshness"], version["resources"]
    raise AssertionError("the group is not told")


async def test_discovery_tells_of_the_group(running: Running) -> None:
    door, _ = running
    group = (await door.done("GET", "/apis"))["groups"][-1]
    assert group["name"] == GROUP
    assert group["preferredVersion"] == {"groupVersion": f"{GROUP}/{VERSION}", "version": VERSION}
    assert (await door.done("GET", f"/apis/{GROUP}"))["versions"] == [group["preferredVersion"]]
    assert {f"/apis/{GROUP}", PATH} <= set((await door.done("GET", "/"))["paths"])
    freshness, resources = await found_in_discovery(door)
    assert freshness == "Current"
    kind = {"group": "", "version": "", "kind": "MetricValueList"}
    parts = [{"subresource": name, "responseKind": kind, "verbs": ["get"]} for name in ("requests", "errors")]
    empty = {"group": "", "version": "", "kind": ""}
    of_pods = {"resource": "pods", "responseKind": empty, "scope": "Namespaced", "singularResource": "", "verbs": []}
    things = {"group": "", "version": "", "kind": "Thing"}
    assert resources == [
        {**of_pods, "subresources": parts},
        {
            "resource": "things",
            "responseKind": things,
            "scope": "Namespaced",
            "singularResource": "thing",
            "verbs": ["get", "list", "delete", "deletecollection"],
        },
    ]


async def test_a_broken_backend_is_stale_in_discovery_and_nothing_else_breaks(running: Running) -> None:
    door, _ = running
    before = (await door.ask("GET", "/apis", accept=AGGREGATED)).headers["etag"]
    await door.done("DELETE", f"{SLICES}/adapter-1")
    await becomes(door, "EndpointsNotFound")
    answer = await door.ask("GET", "/apis", accept=AGGREGATED)
    assert answer.headers["etag"] != before
    assert (await found_in_discovery(door))[0] == "Stale"
    for path in (PATH, PODS):
        refused = await door.ask("GET", path)
        assert (refused.status, refused.body) == (503, b"service unavailable\n")
        assert refused.headers["content-type"] == "text/plain; charset=utf-8"
    others = [group for group in json.loads(answer.body)["items"] if group["metadata"]["name"] != GROUP]
    assert {version["freshness"] for group in others for version in group["versions"]} == {"Current"}
    await door.done("GET", "/apis/apps/v1/deployments")


async def test_what_a_backend_said_holds_when_all_is_read_anew(running: Running) -> None:
    door, _ = running
    await door.server.aggregator._follower.close()  # As after more changes than a watch keeps.
    assert (await found_in_discovery(door))[0] == "Current"


async def test_a_group_that_is_deregistered_is_gone(running: Running) -> None:
    door, _ = running
    await door.done("DELETE", f"{API_SERVICES}/{NAME}")
    assert GROUP not in [group["name"] for group in (await door.done("GET", "/apis"))["groups"]]
    for path in (PATH, PODS, f"/apis/{GROUP}"):
        assert (await door("GET", path))[0] == 404


def test_groups_stand_by_priority_and_versions_by_priority_then_age() -> None:
    registered = [
        ("b.example", "v1", 100, 10),
        ("a.example", "v1beta1", 100, 10),
        ("a.example", "v1alpha1", 50, 10),
        ("a.example", "v1", 50, 10),
        ("a.example", "v2", 50, 10),
        ("a.example", "v10beta2", 50, 20),
        ("a.example", "odd", 50, 10),
        ("first.example", "v1", 200, 1),
        ("apiregistration.k8s.io", "v1", 1, 1),
    ]
    assert in_order(registered) == [
        ("apiregistration.k8s.io", ["v1"]),
        ("first.example", ["v1"]),
        ("b.example", ["v1"]),
        ("a.example", ["v10beta2", "v2", "v1", "v1beta1", "v1alpha1", "odd"]),
    ]


async def test_openapi_has_the_backends_own_document(running: Running) -> None:
    door, backend = running
    paths = (await door.done("GET", "/openapi/v3"))["paths"]
    assert paths[PATH.strip("/")] == {"serverRelativeURL": f"/openapi/v3{PATH}?hash=1"}
    assert paths["apis/apps/v1"]["serverRelativeURL"].startswith("/openapi/v3/apis/apps/v1?hash=")
    assert await door.done("GET", f"/openapi/v3{PATH}", hash="1") == {"openapi": "3.0.0"}
    assert backend.asked[-1] == f"GET /openapi/v3{PATH}?hash=1"


# What loops do with what others serve


def thing(name: str, **metadata: Any) -> dict[str, Any]:
    return {"kind": "Thing", "metadata": {"name": name, "namespace": "shop", "uid": f"uid-of-{name}", **metadata}}


@asynccontextmanager
async def loop_of(door: Door, kind: type[Controller]) -> AsyncIterator[None]:
    informers = Informers(door.client, door.clock)
    loop = kind(door.client, informers, door.clock)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(informers.run()), group.create_task(loop.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def deleted(door: Door, name: str, until: Callable[[dict[str, tuple[str, str]]], bool]) -> None:
    """Wait until the conditions of a namespace that is being deleted are so, or it is gone."""
    async with asyncio.timeout(20):
        while True:
            status, found = await door("GET", f"/api/v1/namespaces/{name}")
            if status == 404:
                return
            conditions = found["status"].get("conditions", ())
            if until({each["type"]: (each["reason"], each["message"]) for each in conditions}):
                return
            await asyncio.sleep(0.01)


async def test_a_namespace_goes_with_what_others_keep_in_it(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "CHECK_AGAIN_S", 0.05)
    door, backend = running
    await door.done("POST", "/api/v1/namespaces", namespace("shop"))
    backend.things = [thing("a"), thing("b", finalizers=["example.com/hold"])]
    async with loop_of(door, Namespaces):
        await door.done("DELETE", "/api/v1/namespaces/shop")
        left = (
            "SomeResourcesRemain",
            f"Some resources are remaining: things.{GROUP} has 1 resource instances",
        )
        await deleted(door, "shop", lambda told: told.get("NamespaceContentRemaining") == left)
        assert f"DELETE {PATH}/namespaces/shop/things" in backend.asked
        assert [each["metadata"]["name"] for each in backend.things] == ["b"]
        backend.things = []
        await deleted(door, "shop", lambda told: False)


async def test_a_namespace_stays_while_nobody_says_what_a_group_serves(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "CHECK_AGAIN_S", 0.05)
    door, _ = running
    await door.done("POST", "/api/v1/namespaces", namespace("shop"))
    await door.done("DELETE", f"{SLICES}/adapter-1")
    await becomes(door, "EndpointsNotFound")
    async with loop_of(door, Namespaces):
        await door.done("DELETE", "/api/v1/namespaces/shop")
        failing = (
            "DiscoveryFailed",
            "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: "
            f"{GROUP}/{VERSION}: stale GroupVersion discovery: {GROUP}/{VERSION}",
        )
        await deleted(door, "shop", lambda told: told.get("NamespaceDeletionDiscoveryFailure") == failing)
        assert (await door("GET", "/api/v1/namespaces/shop"))[0] == 200
        await door.done("DELETE", f"{API_SERVICES}/{NAME}")
        await deleted(door, "shop", lambda told: False)


async def test_what_belongs_to_an_object_of_others_goes_when_that_is_gone_and_not_before(running: Running) -> None:
    door, backend = running
    await door.done("POST", "/api/v1/namespaces", namespace("shop"))
    backend.things = [thing("there")]
    maps = "/api/v1/namespaces/shop/configmaps"
    async with loop_of(door, GarbageCollector):
        for owner in ("there", "gone"):
            made = config_map(f"of-{owner}")
            reference = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Thing", "name": owner, "uid": f"uid-of-{owner}"}
            made["metadata"]["ownerReferences"] = [reference]
            await door.done("POST", maps, made)
        asked = f"GET {PATH}/namespaces/shop/things/there"
        async with asyncio.timeout(20):
            while (await door("GET", f"{maps}/of-gone"))[0] == 200 or asked not in backend.asked:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await door("GET", f"{maps}/of-there"))[0] == 200


# The condition Available


async def test_the_condition_says_what_is_missing(door: Door, backend: Backend) -> None:
    async with looking(door):
        await door.done("POST", API_SERVICES, api_service(backend))
        assert await becomes(door, "ServiceNotFound") == ("False", 'service/adapter in "metrics" is not present')
        await door.done("POST", "/api/v1/namespaces", namespace("metrics"))
        await door.done("POST", SERVICES, service(8443))
        assert (await becomes(door, "ServicePortError"))[
            1
        ] == 'service/adapter in "metrics" is not listening on port 443'
        ports = {"spec": {"ports": [{"name": "https", "port": 443}]}}
        await door.done("PATCH", f"{SERVICES}/adapter", ports, content_type=MERGE)
        missing = 'cannot find endpointslices for service/adapter in "metrics"'
        assert (await becomes(door, "EndpointsNotFound"))[1] == missing
        await door.done("POST", SLICES, endpoints(backend.port, ready=False))
        assert (await becomes(door, "MissingEndpoints"))[1] == (
            'endpointslices for service/adapter in "metrics" have no addresses with port name "https"'
        )
        await door.done("PUT", f"{SLICES}/adapter-1", endpoints(backend.port))
        assert await becomes(door, "Passed") == ("True", "all checks passed")


async def test_a_backend_that_says_no_or_is_somebody_else_has_failed_the_check(door: Door, backend: Backend) -> None:
    backend.status = 500
    await register(door, backend)
    async with looking(door):
        url = f"https://127.0.0.1:{backend.port}{PATH}"
        failed = f"failing or missing response from {url}: bad status from {url}: 500"
        assert await becomes(door, "FailedDiscoveryCheck") == ("False", failed)
        backend.status = 200
        await becomes(door, "Passed")  # Asked again by itself.
        other = base64.b64encode(backend.pki.front_proxy_ca.certificate_pem).decode()
        await door.done("PATCH", f"{API_SERVICES}/{NAME}", {"spec": {"caBundle": other}}, content_type=MERGE)
        assert "certificate" in (await becomes(door, "FailedDiscoveryCheck"))[1]
        spec = {"spec": {"caBundle": None, "insecureSkipTLSVerify": True}}
        await door.done("PATCH", f"{API_SERVICES}/{NAME}", spec, content_type=MERGE)
        await becomes(door, "Passed")
        assert (await door("GET", PODS))[0] == 200
        spec = {"spec": {"caBundle": base64.b64encode(b"nothing").decode(), "insecureSkipTLSVerify": False}}
        await door.done("PATCH", f"{API_SERVICES}/{NAME}", spec, content_type=MERGE)
        assert "unable to parse bytes as PEM block" in (await becomes(door, "FailedDiscoveryCheck"))[1]


async def test_a_certificate_for_another_name_is_refused(door: Door, backend: Backend) -> None:
    await door.done("POST", "/api/v1/namespaces", namespace("metrics"))
    other = service()
    other["metadata"]["name"] = "other"
    await door.done("POST", SERVICES, other)
    piece = endpoints(backend.port)
    piece["metadata"]["labels"]["kubernetes.io/service-name"] = "other"
    await door.done("POST", SLICES, piece)
    await door.done("POST", API_SERVICES, api_service(backend, service={"name": "other", "namespace": "metrics"}))
    async with looking(door):
        assert "other.metrics.svc" in (await becomes(door, "FailedDiscoveryCheck"))[1]


async def test_what_is_no_resource_list_breaks_nothing(door: Door, backend: Backend) -> None:
    backend.discovery = ["nothing"]
    await register(door, backend)
    async with looking(door):
        await becomes(door, "Passed")
        assert await found_in_discovery(door) == ("Current", [])


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254"])
async def test_no_backend_is_looked_for_on_this_machine_itself(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    from knarr.api.discovery import resources as slices

    monkeypatch.setattr(slices, "validate_not_special", lambda address, path: ())
    async with open_door(front_proxy=backend.pki.front_proxy_client) as door:
        await register(door, backend)
        await door.done("PUT", f"{SLICES}/adapter-1", endpoints(backend.port, address=address))
        async with looking(door):
            assert (await becomes(door, "FailedDiscoveryCheck"))[1] == "address not allowed"
        patch = {"status": {"conditions": [{"type": "Available", "status": "True"}]}}
        await door.done("PATCH", f"{API_SERVICES}/{NAME}/status", patch, content_type=MERGE)
        assert (await door.ask("GET", PODS)).status == 503
        assert backend.asked == []
        await door.server.close()


async def test_a_service_that_is_a_name_elsewhere_serves_no_part_of_the_api(door: Door, backend: Backend) -> None:
    await register(door, backend)
    spec = {
        "spec": {"type": "ExternalName", "externalName": "elsewhere.example", "clusterIP": None, "clusterIPs": None}
    }
    await door.done("PATCH", f"{SERVICES}/adapter", spec, content_type=MERGE)
    async with looking(door):
        assert (await becomes(door, "FailedDiscoveryCheck"))[1] == 'unsupported service type "ExternalName"'


# Those that the API server answers for itself


async def test_what_this_server_answers_for_itself_is_local_and_available(door: Door) -> None:
    found = {each["metadata"]["name"]: each for each in (await door.done("GET", API_SERVICES))["items"]}
    assert {"v1.", "v1.apps", "v2.autoscaling", "v1.autoscaling", "v1.rbac.authorization.k8s.io"} <= set(found)
    assert "v1.apiregistration.k8s.io" not in found
    apps = found["v1.apps"]
    assert apps["spec"] == {"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15}
    assert apps["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
    assert await condition(door, "v1.apps") == ("True", "Local", "Local APIServices are always available")
    assert found["v1."]["spec"] == {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}


async def test_a_start_puts_right_what_is_this_servers_own_and_nothing_else(door: Door) -> None:
    spec = {"groupPriorityMinimum": 1, "versionPriority": 1}
    for name in ("v1.apps", "v1.batch"):
        await door.done("PATCH", f"{API_SERVICES}/{name}", {"spec": spec}, content_type=MERGE)
    unmanaged = {"metadata": {"labels": None}}
    await door.done("PATCH", f"{API_SERVICES}/v1.batch", unmanaged, content_type=MERGE)
    await door.done("DELETE", f"{API_SERVICES}/v1.policy")
    await register_local(door.client)
    priority = {}
    for name in ("v1.apps", "v1.batch", "v1.policy"):
        priority[name] = (await door.done("GET", f"{API_SERVICES}/{name}"))["spec"]["groupPriorityMinimum"]
    assert priority == {"v1.apps": 17800, "v1.batch": 1, "v1.policy": 17100}


async def test_a_version_of_ours_may_be_served_by_somebody_else_and_come_back(door: Door, backend: Backend) -> None:
    await register(door, backend)
    name = "v1.batch"
    taken = api_service(backend)["spec"] | {"group": "batch", "version": "v1"}
    backend.discovery["resources"] = []
    async with looking(door):
        await becomes(door, "Passed")
        await door.done("PATCH", f"{API_SERVICES}/{name}", {"spec": taken}, content_type=MERGE)
        # The backend answers every path but that of its own version with what it was asked.
        await becomes(door, "Passed", name)
        assert (await door.done("GET", "/apis/batch/v1/jobs"))["kind"] == "Thing"
        own = {"spec": {"service": None, "caBundle": None}}
        await door.done("PATCH", f"{API_SERVICES}/{name}", own, content_type=MERGE)
        assert await becomes(door, "Local", name) == ("True", "Local APIServices are always available")
        assert (await door.done("GET", "/apis/batch/v1/jobs"))["kind"] == "JobList"


# Upgrades: other protocols than HTTP


async def listening(door: Door, folder: Path) -> tuple[Listener, int, ssl.SSLContext]:
    """The API server on its socket, the port, and how an administrator comes in."""
    made = pki.ensure(folder / "server", door.clock, dns_names=["localhost"], addresses=["127.0.0.1"])
    listener = Listener(door.server, tls_context(made.apiserver, made.ca), "127.0.0.1", 0)
    port = await listener.start()
    shown = str(made.admin.certificate_path), str(made.admin.key_path)
    return listener, port, client_context(str(made.ca.certificate_path), *shown)


async def test_a_websocket_reaches_the_backend(running: Running, tmp_path: Path) -> None:
    door, backend = running
    listener, port, context = await listening(door, tmp_path)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"https://localhost:{port}{PATH}/socket", ssl=context, protocols=("v5.channel.k8s.io",)
        ) as socket,
    ):
        assert socket.protocol == "v5.channel.k8s.io"
        for text in (b"said", b"x" * 200_000):
            await socket.send_bytes(text)
            assert (await socket.receive()).data == text.upper()
    assert backend.header("x-remote-user") == ["kubernetes-admin"]
    async with aiohttp.ClientSession() as session:  # One that does not upgrade answers as ever.
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"https://localhost:{port}{PATH}/nothing", ssl=context)
        assert refused.value.status == 200
    await listener.close()


async def test_a_backend_that_says_too_much_of_itself_is_not_believed(door: Door, backend: Backend) -> None:
    backend.discovery["padding"] = "x" * (2 << 20)
    await register(door, backend)
    async with looking(door):
        assert "longer than" in (await becomes(door, "FailedDiscoveryCheck"))[1]


async def test_a_connection_that_is_upgraded_carries_both_directions(
    door: Door, backend: Backend, tmp_path: Path
) -> None:
    """Whatever is spoken: here SPDY's name and lines of text."""
    await register(door, backend)
    async with looking(door):
        await becomes(door, "Passed")
    heads: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\n\r\nhello\n")
        while data := await reader.read(1 << 16):
            writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(
        echo, "127.0.0.1", 0, ssl=tls_context(backend.pki.apiserver, backend.pki.front_proxy_ca)
    )
    await door.done("PUT", f"{SLICES}/adapter-1", endpoints(server.sockets[0].getsockname()[1]))
    listener, port, context = await listening(door, tmp_path)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    path = f"{PATH}/namespaces/shop/things/a/exec?command=sh"
    asked = ("Host: x", "Connection: Upgrade", "Upgrade: SPDY/3.1", "X-Remote-User: root")
    writer.write("\r\n".join((f"POST {path} HTTP/1.1", *asked, "", "")).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert await reader.readline() == b"hello\n"
    writer.write(b"said\n" + b"x" * 300_000 + b"\n")
    assert await reader.readline() == b"SAID\n"
    assert await reader.readexactly(300_001) == b"X" * 300_000 + b"\n"
    assert heads[0].startswith(f"POST {path} HTTP/1.1\r\n".encode())
    assert b"x-remote-user: kubernetes-admin\r\n" in heads[0]
    assert b"root" not in heads[0]
    writer.close()
    await listener.close()
    server.close()
