"""sig-cli: commands of kubectl that need an API server and nothing behind it."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from tests.apiserver.pipeline.door import deployment
from tests.apiserver.pipeline.served import serve
from tests.apiserver.pipeline.test_kubectl import Kubectl

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
VERSION = r"v[0-9]+\.[0-9]+\.[0-9]+"


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with serve(tmp_path / "pki") as served:
        yield Kubectl(served, tmp_path)


async def test_api_versions_lists_v1(kubectl: Kubectl) -> None:
    """[sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions"""
    assert "v1" in (await kubectl.run("api-versions")).splitlines()


async def test_cluster_info_names_the_control_plane(kubectl: Kubectl) -> None:
    """[sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in
    cluster-info"""
    said = re.sub(r"\x1b\[[0-9;]*m", "", await kubectl.run("cluster-info"))
    assert f"Kubernetes control plane is running at {kubectl.served.url}" in said


async def test_version_tells_of_client_and_server(kubectl: Kubectl) -> None:
    """[sig-cli] Kubectl client Kubectl version should check is all data is printed"""
    said = await kubectl.run("version")
    assert re.search(rf"^Client Version: {VERSION}", said, re.MULTILINE)
    assert re.search(rf"^Server Version: {VERSION}", said, re.MULTILINE)
    whole = msgspec.json.decode(await kubectl.run("version", "-o", "json"))["serverVersion"]
    for field in ("major", "minor", "gitVersion", "gitTreeState", "buildDate", "compiler", "platform"):
        assert whole[field], field


async def test_diff_shows_what_apply_would_change(kubectl: Kubectl) -> None:
    """[sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments"""
    wanted = deployment("httpd", 1)
    wanted["spec"]["template"]["spec"]["containers"] = [{"name": "httpd", "image": "httpd:one"}]
    await kubectl.run("create", "-f", kubectl.manifest("live.json", wanted))
    wanted["spec"]["template"]["spec"]["containers"][0]["image"] = "busybox:two"
    path = kubectl.manifest("declared.json", wanted)
    async with kubectl.running("diff", "-f", path) as said:
        shown = (await said.read()).decode()
    assert re.search(r"^-\s+- image: httpd:one$", shown, re.MULTILINE), shown
    assert re.search(r"^\+\s+- image: busybox:two$", shown, re.MULTILINE), shown
    image = await kubectl.run("get", "deployment/httpd", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
    assert image == "httpd:one", "nothing is changed"


async def test_a_dry_run_at_the_server_changes_nothing(kubectl: Kubectl) -> None:
    """[sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods"""
    await kubectl.run("run", "httpd", "--image=httpd:one", "--labels=run=httpd")
    patch = '{"spec":{"containers":[{"name":"httpd","image":"busybox:two"}]}}'
    said = await kubectl.run("patch", "pod", "httpd", "-p", patch, "--dry-run=server", "-o", "json")
    assert msgspec.json.decode(said)["spec"]["containers"][0]["image"] == "busybox:two"
    image = ("get", "pod", "httpd", "-o", "jsonpath={.spec.containers[0].image}")
    assert await kubectl.run(*image) == "httpd:one"
    await kubectl.run("patch", "pod", "httpd", "-p", patch)
    assert await kubectl.run(*image) == "busybox:two"


async def test_run_makes_a_pod_of_an_image(kubectl: Kubectl) -> None:
    """[sig-cli] Kubectl client Kubectl run pod should create a pod from an image when restart is Never"""
    said = await kubectl.run("run", "httpd", "--restart=Never", "--pod-running-timeout=2m0s", "--image=httpd:one")
    assert said == "pod/httpd created\n"
    made = msgspec.json.decode(await kubectl.run("get", "pod", "httpd", "-o", "json"))
    assert [each["image"] for each in made["spec"]["containers"]] == ["httpd:one"]
    assert made["spec"]["restartPolicy"] == "Never"


async def versions(connector: aiohttp.BaseConnector, url: str) -> list[str]:
    async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as answer:
        assert answer.status == 200
        found: list[str] = (await answer.json())["versions"]
        return found


async def test_a_proxy_takes_any_free_port(kubectl: Kubectl) -> None:
    """[sig-cli] Kubectl client Proxy server should support proxy with --port 0"""
    async with kubectl.running("proxy", "-p", "0", "--disable-filter") as said:
        while not (found := re.search(r"Starting to serve on 127\.0\.0\.1:([0-9]+)", (await said.readline()).decode())):
            pass
        assert await versions(aiohttp.TCPConnector(), f"http://127.0.0.1:{found[1]}/api/") == ["v1"]


async def test_a_proxy_listens_at_a_socket(kubectl: Kubectl) -> None:
    """[sig-cli] Kubectl client Proxy server should support --unix-socket=/path"""
    path = str(kubectl.folder / "socket")
    async with kubectl.running("proxy", f"--unix-socket={path}") as said:
        assert (await said.readline()).decode().startswith(f"Starting to serve on {path}")
        assert await versions(aiohttp.UnixConnector(path), "http://localhost/api/") == ["v1"]
