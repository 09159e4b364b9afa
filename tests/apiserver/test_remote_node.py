"""A node in another process looks to the API server like one in its own: logs, streams, ports, figures, faults."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from knarr import pki
from knarr.api.core.v1 import DaemonEndpoint, Node, NodeAddress, NodeDaemonEndpoints, NodeStatus, Pod
from knarr.api.errors import APIError, BadRequest, InternalError, NotFound, ServiceUnavailable
from knarr.api.meta.v1 import ObjectMeta
from knarr.apiserver.nodes import Nodes
from knarr.apiserver.remote_node import NodeConnections, RemoteFolders, RemoteNode, exit_code_of
from knarr.apiserver.server import InProcessTransport
from knarr.client.channels import ERROR, PORT_SUBPROTOCOL
from knarr.client.client import Client
from knarr.client.https import client_context
from knarr.client.nodes import LogOptions, NodePage, NodeUsage, PodUsage, Streams, Usage
from knarr.client.transport import User
from knarr.clock import SystemClock, utc
from knarr.node.kubelet_access import KubeletAccess, subresources_of
from knarr.node.kubelet_server import KubeletServer
from knarr.node.local_volumes import HostFolders
from tests.apiserver.pipeline.door import Door, open_door

NAME = "second"
POD = Pod(metadata=ObjectMeta(namespace="default", name="web", uid="1-2-3"))
USAGE = Usage(100.5, 15.0, 250_000_000, 9_000_000_000, 20 << 20, 30 << 20, 10 << 20, 50.25)
FIGURES = NodeUsage(USAGE, (PodUsage("default", "web", "1-2-3", 60.5, {"main": USAGE}),))


class Talk:
    """A process that answers each input in capitals, and tells sizes of its terminal."""

    def __init__(self, code: int) -> None:
        self._code = code
        self._said: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self.closed = False

    async def write(self, data: bytes) -> None:
        await self._said.put((1, data.upper()))

    async def close_stdin(self) -> None:
        await self._said.put((2, b"end of input"))
        await self._said.put(None)

    async def resize(self, width: int, height: int) -> None:
        await self._said.put((1, f"{width}x{height}".encode()))

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (piece := await self._said.get()) is not None:
            yield piece

    async def exit_code(self) -> int:
        return self._code

    async def close(self) -> None:
        self.closed = True


class Backend:
    """What a node can do, without one."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.talk = Talk(3)

    async def logs(self, pod: Pod, options: LogOptions) -> AsyncIterator[bytes]:
        self.asked.append(options)
        if options.container == "waiting":
            raise BadRequest('container "waiting" in pod "web" is waiting to start: ContainerCreating')
        yield b"first\n"
        await asyncio.sleep(0)
        yield b"second\n"

    async def exec(self, pod: Pod, container: str, command: Sequence[str], *, tty: bool, stdin: bool) -> Streams:
        self.asked.append((pod.metadata.uid, container, tuple(command), tty, stdin))
        if container == "gone":
            raise BadRequest('container not found ("gone")')
        return self.talk

    async def attach(self, pod: Pod, container: str) -> Streams:
        self.asked.append(("attach", container))
        return self.talk

    async def port_forward(self, pod: Pod, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if port == 1:
            raise InternalError("failed to connect to localhost:1 inside namespace of pod web: Connection refused")
        return await asyncio.open_connection("127.0.0.1", port)

    async def usage(self, node: str) -> NodeUsage:
        return FIGURES

    async def page(self, node: str, path: str) -> NodePage:
        return NodePage(f"page {path}".encode(), "text/plain", 404 if "missing" in path else 200)


class Machine:
    """A node's server, and the API server's way to it."""

    def __init__(self, folder: Path, door: Door) -> None:
        self.folder = folder
        self.door = door
        self.backend = Backend()
        clock = SystemClock()
        made = pki.ensure(folder, clock, dns_names=["localhost"], addresses=["127.0.0.1"])
        authority = pki._Authority.ensure(folder, utc(clock.time_s()))
        names = pki._alternative_names([NAME], ["127.0.0.1"])
        subject = pki._subject(f"system:node:{NAME}", ["system:nodes"])
        self.serving = authority.pair("kubelet", subject, ExtendedKeyUsageOID.SERVER_AUTH, names)
        self.client_pair = made.kubelet_client
        client = Client(
            InProcessTransport(door.server),
            door.server.registry,
            User(f"system:node:{NAME}", ("system:nodes", "system:authenticated")),
        )
        access = KubeletAccess(client, clock, NAME)
        self.server = KubeletServer(self.backend, lambda: [POD], access, clock, NAME, HostFolders(folder / "volumes"))
        self.connections = NodeConnections(self.context(self.client_pair))
        self.port = 0

    def context(self, pair: pki.KeyPair | None) -> ssl.SSLContext:
        shown = (str(pair.certificate_path), str(pair.key_path)) if pair else ("", "")
        return client_context(str(self.folder / "ca.crt"), *shown)

    def node(self, name: str = NAME) -> Node:
        endpoints = NodeDaemonEndpoints(kubelet_endpoint=DaemonEndpoint(port=self.port))
        addresses = [NodeAddress(type="InternalIP", address="127.0.0.1")]
        return Node(metadata=ObjectMeta(name=name), status=NodeStatus(addresses=addresses, daemon_endpoints=endpoints))

    def remote(self, name: str = NAME) -> RemoteNode:
        return RemoteNode(self.node(name), self.connections)

    async def get(
        self, path: str, pair: pki.KeyPair | None = None, token: str = "", method: str = "GET"
    ) -> tuple[int, str]:
        """As anybody."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        connector = aiohttp.TCPConnector(ssl=self.context(pair))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"https://127.0.0.1:{self.port}{path}", headers=headers) as answer,
        ):
            return answer.status, await answer.text()


@asynccontextmanager
async def open_machine(folder: Path) -> AsyncIterator[Machine]:
    async with open_door() as door:
        machine = Machine(folder, door)
        pair = machine.serving
        machine.port = await machine.server.start(
            "127.0.0.1", 0, folder / "ca.crt", pair.certificate_path, pair.key_path
        )
        try:
            yield machine
        finally:
            await machine.connections.close()
            await machine.server.close()


async def read(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def test_logs_come_as_they_are_asked_for(tmp_path: Path) -> None:
    async with open_machine(tmp_path) as machine:
        options = LogOptions("main", True, True, 7, 12.5, True, 100)
        assert await read(machine.remote().logs(POD, options)) == b"first\nsecond\n"
        assert machine.backend.asked == [options]
        assert await read(machine.remote().logs(POD, LogOptions("main"))) == b"first\nsecond\n"


async def test_faults_keep_their_kind_and_their_words(tmp_path: Path) -> None:
    async with open_machine(tmp_path) as machine:
        with pytest.raises(BadRequest, match='container "waiting" in pod "web" is waiting to start: ContainerCreating'):
            await read(machine.remote().logs(POD, LogOptions("waiting")))
        other = Pod(metadata=ObjectMeta(namespace="default", name="other", uid="9"))
        with pytest.raises(NotFound, match='pod "other" does not exist on this node'):
            await read(machine.remote().logs(other, LogOptions("main")))
        streams = await machine.remote().exec(POD, "gone", ["ls"], tty=False, stdin=False)
        assert [piece async for piece in streams.output()] == []
        with pytest.raises(BadRequest, match='container not found \\("gone"\\)'):
            await streams.exit_code()
        await streams.close()


async def test_a_session_carries_input_output_sizes_and_the_exit_code(tmp_path: Path) -> None:
    async with open_machine(tmp_path) as machine:
        streams = await machine.remote().exec(POD, "main", ["sh", "-c", "a b&c"], tty=True, stdin=True)
        await streams.write(b"hello")
        await streams.resize(80, 24)
        await streams.close_stdin()
        assert [piece async for piece in streams.output()] == [(1, b"HELLO"), (1, b"80x24"), (2, b"end of input")]
        assert await streams.exit_code() == 3
        await streams.close()
        assert machine.backend.asked == [("1-2-3", "main", ("sh", "-c", "a b&c"), True, True)]
        assert machine.backend.talk.closed


async def test_a_session_ends_on_the_node_when_the_client_goes(tmp_path: Path) -> None:
    async with open_machine(tmp_path) as machine:
        streams = await machine.remote().attach(POD, "main")
        await streams.write(b"x")
        assert await anext(aiter(streams.output())) == (1, b"X")
        await streams.close()
        async with asyncio.timeout(30):
            while not machine.backend.talk.closed:  # noqa: ASYNC110 (the other end tells no one)
                await asyncio.sleep(0.01)
        with pytest.raises(InternalError, match="was lost"):
            await streams.exit_code()


async def test_a_forwarded_port_carries_both_directions_and_their_ends(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await reader.read()  # until the client's end
        writer.write(body[::-1])
        writer.write_eof()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with open_machine(tmp_path) as machine, listening:
        port = listening.sockets[0].getsockname()[1]
        reader, writer = await machine.remote().port_forward(POD, port)
        body = bytes(range(256)) * 1000
        writer.write(body)
        writer.write_eof()
        assert await reader.read() == body[::-1]
        writer.close()
        await writer.wait_closed()
        with pytest.raises(InternalError, match="failed to connect to localhost:1 inside namespace of pod web"):
            await machine.remote().port_forward(POD, 1)


async def test_other_clients_forward_ports_over_channels(tmp_path: Path) -> None:
    async with open_machine(tmp_path) as machine:
        socket = await machine.connections.session.ws_connect(
            f"https://127.0.0.1:{machine.port}/portForward/default/web?port=1",
            protocols=[PORT_SUBPROTOCOL],
            server_hostname=NAME,
        )
        messages = [(await socket.receive()).data for _ in range(3)]
        assert messages[:2] == [b"\0\1\0", b"\1\1\0"]
        assert messages[2].startswith(b"\1failed to connect")
        await socket.close()


async def test_figures_and_pages_are_the_nodes_own(tmp_path: Path) -> None:
    async with open_machine(tmp_path) as machine:
        assert await machine.remote().usage(NAME) == FIGURES
        page = await machine.remote().page(NAME, "stats/summary")
        assert (page.status, page.body) == (200, b"page /stats/summary")
        assert (await machine.remote().page(NAME, "missing")).status == 404


async def test_a_node_that_is_gone_or_is_another_is_unavailable(tmp_path: Path) -> None:
    async with open_machine(tmp_path) as machine:
        # Whoever has the address now must prove that it is the node that is meant.
        with pytest.raises(ServiceUnavailable, match="node third can't be reached"):
            await machine.remote("third").usage("third")
        await machine.server.close()
        for ask in (
            machine.remote().usage(NAME),
            machine.remote().exec(POD, "main", ["ls"], tty=False, stdin=False),
            read(machine.remote().logs(POD, LogOptions("main"))),
            machine.remote().port_forward(POD, 80),
        ):
            with pytest.raises(ServiceUnavailable, match="node second can't be reached"):
                await ask
    with pytest.raises(ServiceUnavailable, match="has not said how it can be reached"):
        RemoteNode(Node(metadata=ObjectMeta(name="new")), machine.connections)


async def test_each_pod_is_asked_for_at_its_own_node(tmp_path: Path) -> None:
    async with open_machine(tmp_path) as machine:
        here = Backend()
        nodes = Nodes({"first": here}, lambda name: machine.remote() if name == NAME else None)
        assert (await nodes.page("first", "x")).body == b"page x"
        assert (await nodes.page(NAME, "x")).body == b"page /x"
        with pytest.raises(ServiceUnavailable):
            await nodes.page("third", "x")


async def test_folders_of_local_volumes_are_made_and_removed_where_the_node_keeps_them(tmp_path: Path) -> None:
    async with open_machine(tmp_path) as machine:
        folders = RemoteFolders(machine.remote, str(tmp_path / "volumes"))
        await folders.make("pvc-1")
        await folders.make("pvc-1")
        assert [each.name for each in (tmp_path / "volumes").iterdir()] == ["pvc-1"]
        assert await folders.empty() == ["pvc-1"]
        await folders.remove("pvc-1")
        await folders.remove("pvc-1")
        assert list((tmp_path / "volumes").iterdir()) == []
        for path in ("..", ".", "%2e%2e", "a%2fb", "A"):
            status, _ = await machine.get(f"/knarr/volumes/{path}", machine.client_pair, method="PUT")
            assert status in (400, 405), path
        (tmp_path / "volumes" / "full").write_text("in the way")
        with pytest.raises(OSError, match="File exists"):
            await folders.make("full")
        with pytest.raises(ServiceUnavailable, match="is gone"):
            await RemoteFolders(lambda: None, "/").make("x")


async def test_who_may_not_is_refused(tmp_path: Path) -> None:
    async with open_machine(tmp_path) as machine:
        stranger = pki.client_pair(tmp_path, SystemClock(), "ann", "ann", ["devs"])
        other_node = pki.client_pair(tmp_path, SystemClock(), "other", "system:node:other", ["system:nodes"])
        for path in ("/pods", "/containerLogs/default/web/main", "/exec/default/web/main?command=ls", "/healthz"):
            assert (await machine.get(path))[0] == 401
            assert (await machine.get(path, token="no.such.token"))[0] == 401
            for pair in (stranger, other_node):
                status, text = await machine.get(path, pair)
                assert status == 403
                assert text.startswith("Forbidden (user=")
        assert not machine.backend.asked
        assert (await machine.get("/pods", machine.client_pair))[0] == 200
        assert (await machine.get("/pods", machine.client_pair, method="DELETE"))[0] == 405


async def test_rights_are_those_of_the_subresource(tmp_path: Path) -> None:
    async with open_machine(tmp_path) as machine:
        for name, resources in (("scraper", ["nodes/metrics"]), ("lister", ["nodes/pods"])):
            role = {
                "metadata": {"name": name},
                "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": resources}],
            }
            binding = {
                "metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}],
            }
            for plural, body in (("clusterroles", role), ("clusterrolebindings", binding)):
                await machine.door.done("POST", f"/apis/rbac.authorization.k8s.io/v1/{plural}", body)
        scraper, lister = (pki.client_pair(tmp_path, SystemClock(), name, name, []) for name in ("scraper", "lister"))
        assert (await machine.get("/metrics/resource", scraper))[0] == 200
        assert (await machine.get("/pods", scraper))[0] == 403
        assert (await machine.get("/pods", lister))[0] == 200
        assert (await machine.get("/metrics", lister))[0] == 403
        assert subresources_of("/stats/summary") == ("stats",)
        assert subresources_of("/pods") == ("pods", "proxy")
        assert subresources_of("/exec/a/b/c") == ("proxy",)


async def test_a_token_of_a_service_account_is_as_good_as_a_certificate(tmp_path: Path) -> None:
    async with open_machine(tmp_path) as machine:
        asked = await machine.door.done(
            "POST", "/api/v1/namespaces/default/serviceaccounts/default/token", {"spec": {"expirationSeconds": 3600}}
        )
        token = asked["status"]["token"]
        status, text = await machine.get("/metrics", token=token)
        assert status == 403
        assert "user=system:serviceaccount:default:default" in text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/containerLogs/default/web/main?tailLines=x", 400),
        ("/containerLogs/default/web/main?tailLines=-1", 400),
        ("/containerLogs/default/web/main?sinceTime=yesterday", 400),
        ("/containerLogs/default/web", 200),
        ("/containerLogs/%00/%ff/x", 404),
        ("/exec/default/web/main", 400),
        ("/exec/default/web/main?command=ls", 400),
        ("/exec/default/web/9-9-9/main?command=ls", 404),
        ("/portForward/default/web", 400),
        ("/portForward/default/web?port=http", 400),
        ("/portForward/default/web?port=0", 400),
        ("/portForward/default/web?port=70000", 400),
        ("/portForward/default/other?port=80", 404),
    ],
)
async def test_requests_that_make_no_sense_are_the_callers_fault(path: str, status: int, tmp_path: Path) -> None:
    async with open_machine(tmp_path) as machine:
        assert (await machine.get(path, machine.client_pair))[0] == status


@pytest.mark.parametrize(
    "told", [b"", b"null", b"[]", b'{"status": "Failure", "reason": "NonZeroExitCode"}', b'{"status": 1, "details": 2}']
)
def test_an_end_that_cannot_be_read_is_a_fault(told: bytes) -> None:
    with pytest.raises(APIError):
        exit_code_of(told)
    assert ERROR == 3
