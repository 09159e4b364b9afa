"""kubectl itself against the API server: each command as a user types it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from tests.apiserver.pipeline.door import PODS, deployment, pod
from tests.apiserver.pipeline.echo_node import EchoNode
from tests.apiserver.pipeline.served import Served, serve

KUBECTL = shutil.which("kubectl")
pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")
COMMAND_S = 60


class Kubectl:
    """Runs kubectl with a home of its own."""

    def __init__(self, served: Served, folder: Path) -> None:
        self.served = served
        self.folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "KUBECONFIG": served.kubeconfig(),
            "HOME": str(folder),
        }

    @asynccontextmanager
    async def running(self, *command: str) -> AsyncIterator[asyncio.StreamReader]:
        """A command that goes on until the test has seen enough of its standard output; its errors are there too."""
        assert KUBECTL
        process = await asyncio.create_subprocess_exec(
            KUBECTL, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=self._environment
        )
        assert process.stdout
        try:
            async with asyncio.timeout(COMMAND_S):
                yield process.stdout
        finally:
            with suppress(ProcessLookupError):  # it has ended by itself
                process.kill()
            await process.communicate()

    async def run(self, *command: str, stdin: str = "", code: int = 0, editor: str = "") -> str:
        """What it said on standard output (for a failure: on standard error)."""
        output, errors = await self._outputs(*command, stdin=stdin, code=code, editor=editor)
        return errors if code else output

    async def run_both(self, *command: str, code: int = 0, editor: str = "") -> str:
        """What it said on standard output, then what on standard error."""
        return "".join(await self._outputs(*command, code=code, editor=editor))

    async def _outputs(self, *command: str, stdin: str = "", code: int = 0, editor: str = "") -> tuple[str, str]:
        assert KUBECTL
        process = await asyncio.create_subprocess_exec(
            KUBECTL,
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment | ({"EDITOR": editor} if editor else {}),
        )
        async with asyncio.timeout(COMMAND_S):
            output, errors = await process.communicate(stdin.encode())
        assert process.returncode == code, (command, output.decode(), errors.decode())
        return output.decode(), errors.decode()

    def manifest(self, name: str, *objects: object) -> str:
        path = self.folder / name
        path.write_bytes(b"\n---\n".join(map(msgspec.json.encode, objects)))
        return str(path)


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with serve(tmp_path / "pki", EchoNode()) as served:
        yield Kubectl(served, tmp_path)


async def test_version_and_what_is_served(kubectl: Kubectl) -> None:
    version = json.loads(await kubectl.run("version", "-o", "json"))
    assert version["serverVersion"]["minor"] == "36"
    resources = await kubectl.run("api-resources")
    assert "deployments" in resources
    assert "deploy " in resources
    assert "apps/v1" in (await kubectl.run("api-versions")).splitlines()


async def test_create_commands_send_what_is_understood(kubectl: Kubectl) -> None:
    await kubectl.run("create", "namespace", "shop")
    await kubectl.run("create", "configmap", "settings", "--from-literal=color=red")
    await kubectl.run("create", "secret", "generic", "password", "--from-literal=word=x")
    await kubectl.run("create", "serviceaccount", "bot")
    await kubectl.run("create", "deployment", "web", "--image=nginx", "--replicas=2")
    await kubectl.run("create", "service", "nodeport", "web", "--tcp=80:8080")
    await kubectl.run("run", "one", "--image=busybox", "--", "sleep", "1")
    assert await kubectl.run("get", "cm", "settings", "-o", "jsonpath={.data.color}") == "red"
    assert await kubectl.run("get", "secret", "password", "-o", "jsonpath={.data.word}") == "eA=="
    assert await kubectl.run("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "2"
    assert await kubectl.run("get", "svc", "web", "-o", "jsonpath={.spec.ports[0].targetPort}") == "8080"
    assert (await kubectl.run("create", "token", "bot")).count(".") == 2
    assert "AlreadyExists" in await kubectl.run("create", "namespace", "shop", code=1)


async def test_get_prints_tables(kubectl: Kubectl) -> None:
    await kubectl.run("create", "deployment", "web", "--image=nginx", "--replicas=2")
    await kubectl.run("run", "one", "--image=busybox", "--labels=app=one")
    lines = (await kubectl.run("get", "deploy", "-o", "wide")).splitlines()
    assert lines[0].split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    assert lines[1].split()[:4] == ["web", "0/2", "0", "0"]
    lines = (await kubectl.run("get", "pods", "-A", "--show-labels")).splitlines()
    assert lines[0].split() == ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "LABELS"]
    assert lines[1].split()[:4] == ["default", "one", "0/1", "Pending"]
    assert "service/kubernetes" in await kubectl.run("get", "all")
    assert "ClusterIP" in await kubectl.run("get", "svc", "kubernetes")
    assert "Image:" in await kubectl.run("describe", "pod", "one")
    assert "RollingUpdate" in await kubectl.run("describe", "deploy", "web")
    assert "not found" in await kubectl.run("get", "pod", "two", code=1)


async def test_apply_creates_changes_prunes_fields_and_shows_the_difference(kubectl: Kubectl) -> None:
    path = kubectl.manifest("web.json", deployment())
    assert await kubectl.run("apply", "-f", path) == "deployment.apps/web created\n"
    assert await kubectl.run("apply", "-f", path) == "deployment.apps/web unchanged\n"
    changed = deployment(replicas=5)
    changed["spec"]["template"]["spec"]["containers"].pop()
    path = kubectl.manifest("web.json", changed)
    process = await kubectl.run("diff", "-f", path, code=1)
    assert process == ""
    assert (
        await kubectl.run("apply", "-f", path, "--dry-run=server")
        == "deployment.apps/web configured (server dry run)\n"
    )
    assert await kubectl.run("apply", "-f", path) == "deployment.apps/web configured\n"
    found = json.loads(await kubectl.run("get", "deploy", "web", "-o", "json"))
    assert found["spec"]["replicas"] == 5
    assert [container["name"] for container in found["spec"]["template"]["spec"]["containers"]] == ["c"]
    assert await kubectl.run("delete", "-f", path) == 'deployment.apps "web" deleted\n'


async def test_fields_that_do_not_exist_are_refused_by_the_server(kubectl: Kubectl) -> None:
    wrong = deployment()
    wrong["spec"]["replicaz"] = 3
    refused = await kubectl.run("apply", "-f", kubectl.manifest("web.json", wrong), code=1)
    assert 'strict decoding error: unknown field "spec.replicaz"' in refused


async def test_edit_patch_label_annotate_scale_and_set(kubectl: Kubectl) -> None:
    await kubectl.run("apply", "-f", kubectl.manifest("web.json", deployment()))
    await kubectl.run("edit", "deploy", "web", editor="sed -i s/image:.one/image:\\ edited/")
    await kubectl.run("patch", "deploy", "web", "-p", '{"spec":{"minReadySeconds":7}}')
    await kubectl.run(
        "patch", "deploy", "web", "--type=json", "-p", '[{"op":"add","path":"/spec/paused","value":true}]'
    )
    await kubectl.run("label", "deploy", "web", "tier=front")
    await kubectl.run("annotate", "deploy", "web", "note=hello")
    await kubectl.run("scale", "deploy", "web", "--replicas=4")
    await kubectl.run("set", "image", "deploy/web", "side=three")
    await kubectl.run("set", "env", "deploy/web", "-c", "c", "A=b")
    await kubectl.run("expose", "deploy", "web", "--port=80")
    found = json.loads(await kubectl.run("get", "deploy", "web", "-o", "json"))
    spec = found["spec"]
    assert (spec["minReadySeconds"], spec["paused"], spec["replicas"]) == (7, True, 4)
    assert {each["name"]: each["image"] for each in spec["template"]["spec"]["containers"]} == {
        "c": "edited",
        "side": "three",
    }
    assert spec["template"]["spec"]["containers"][0]["env"] == [{"name": "A", "value": "b"}]
    assert found["metadata"]["labels"] == {"tier": "front"}
    assert found["metadata"]["annotations"]["note"] == "hello"
    assert "tier=front" not in await kubectl.run("label", "deploy", "web", "tier-")


async def test_wait_follows_changes(kubectl: Kubectl) -> None:
    await kubectl.run("apply", "-f", kubectl.manifest("web.json", deployment()))
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(
            kubectl.run("wait", "--for=jsonpath={.spec.replicas}=9", "deploy/web", f"--timeout={COMMAND_S}s")
        )
        await kubectl.run("scale", "deploy", "web", "--replicas=9")
    assert "condition met" in waiting.result()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(kubectl.run("wait", "--for=delete", "deploy/web", f"--timeout={COMMAND_S}s"))
        await kubectl.run("delete", "deploy", "web")
    assert waiting.done()


async def test_explain_knows_every_field(kubectl: Kubectl) -> None:
    assert "FIELD: image <string>" in await kubectl.run("explain", "pod.spec.containers.image")
    assert "<IntOrString>" in await kubectl.run("explain", "service.spec.ports.targetPort")
    assert "progressDeadlineSeconds" in await kubectl.run("explain", "deployment", "--recursive")
    assert 'field "nothing" does not exist' in await kubectl.run("explain", "pod.spec.nothing", code=1)


async def test_logs_exec_attach_and_port_forward(kubectl: Kubectl) -> None:
    await kubectl.served.door.done("POST", PODS, pod("web", "a", "b", nodeName="n1"))
    assert await kubectl.run("logs", "web", "-c", "b") == "first of b\n"
    assert await kubectl.run("exec", "web", "-c", "a", "--", "echo", "x") == "echo x\n"
    assert "exit code 3" in await kubectl.run("exec", "web", "-c", "a", "--", "exit", "3", code=3)
    assert await kubectl.run("exec", "-i", "web", "-c", "a", "--", "cat", stdin="hello") == "hello"


async def test_a_namespace_is_terminating_until_its_controller_has_cleared_it(kubectl: Kubectl) -> None:
    await kubectl.run("create", "namespace", "shop")
    await kubectl.run("delete", "namespace", "shop", "--wait=false")
    assert "Terminating" in await kubectl.run("get", "namespace", "shop")
    assert "is being terminated" in await kubectl.run("create", "configmap", "a", "-n", "shop", code=1)


async def shouting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
    finally:
        writer.close()


async def test_port_forward_carries_many_connections_at_once(kubectl: Kubectl) -> None:
    await kubectl.served.door.done("POST", PODS, pod("web", nodeName="n1"))
    running = {"status": {"phase": "Running"}}
    await kubectl.served.door.done("PATCH", f"{PODS}/web/status", running, content_type="application/merge-patch+json")
    async with await asyncio.start_server(shouting, "127.0.0.1", 0, limit=2_000_000) as server:
        port = server.sockets[0].getsockname()[1]
        async with kubectl.running("port-forward", "pod/web", "--address", "127.0.0.1", f":{port}") as said:
            first = (await said.readline()).decode()
            assert first.startswith("Forwarding from 127.0.0.1:"), first
            here = int(first.split(":")[1].split(" ")[0])
            ends = [await asyncio.open_connection("127.0.0.1", here) for _ in range(5)]
            for number, (_, writer) in enumerate(ends):
                writer.write(b"hello %d\n" % number)
            answers = [await reader.readline() for reader, _ in ends]
            assert answers == [b"HELLO %d\n" % number for number in range(5)]
            for reader, writer in ends:
                writer.write_eof()
                assert await reader.read() == b""
                writer.close()
            big = b"x" * 1_000_000 + b"\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", here, limit=2_000_000)
            writer.write(big)
            assert await reader.readexactly(len(big)) == big.upper()
            writer.close()


async def test_port_forward_says_what_is_wrong(kubectl: Kubectl) -> None:
    await kubectl.served.door.done("POST", PODS, pod("web", nodeName="n1"))
    running = {"status": {"phase": "Running"}}
    await kubectl.served.door.done("PATCH", f"{PODS}/web/status", running, content_type="application/merge-patch+json")
    async with kubectl.running("port-forward", "pod/web", "--address", "127.0.0.1", ":1") as said:
        here = int((await said.readline()).decode().split(":")[1].split(" ")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", here)
        assert await reader.read() == b""
        writer.close()
        while b"error forwarding port 1 to pod web" not in (line := await said.readline()):
            assert line, "kubectl said nothing of it"


async def test_explain_reads_both_versions_of_openapi(kubectl: Kubectl) -> None:
    for output in ("plaintext", "plaintext-openapiv2"):
        said = await kubectl.run("explain", "--output", output, "pod.spec.containers.ports")
        assert "containerPort" in said, output
        assert "-required-" in said, output
