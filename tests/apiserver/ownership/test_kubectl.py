"""kubectl's ways of applying, patching and replacing, as users type them."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver.ownership.door import config_map, deployment, owned
from tests.apiserver.pipeline.served import serve
from tests.apiserver.pipeline.test_kubectl import Kubectl

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
SERVER_SIDE = ("apply", "--server-side", "-f")


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with serve(tmp_path / "pki") as served:
        yield Kubectl(served, tmp_path)


async def found(kubectl: Kubectl, *what: str) -> Any:
    return json.loads(await kubectl.run("get", *what, "-o", "json", "--show-managed-fields"))


async def test_apply_on_the_servers_side_with_conflicts_and_force(kubectl: Kubectl) -> None:
    path = kubectl.manifest("a.json", config_map({"x": "1"}))
    assert await kubectl.run(*SERVER_SIDE, path) == "configmap/a serverside-applied\n"
    assert owned(await found(kubectl, "cm", "a"), "kubectl") == {"f:data": {"f:x": {}}}
    path = kubectl.manifest("a.json", config_map({"x": "2"}))
    said = await kubectl.run(*SERVER_SIDE, path, "--field-manager=other", code=1)
    assert 'Apply failed with 1 conflict: conflict with "kubectl": .data.x' in said
    await kubectl.run(*SERVER_SIDE, path, "--field-manager=other", "--force-conflicts")
    taken = await found(kubectl, "cm", "a")
    assert taken["data"] == {"x": "2"}
    assert (owned(taken, "kubectl"), owned(taken, "other")) == ({}, {"f:data": {"f:x": {}}})
    assert "--show-managed-fields" not in await kubectl.run("get", "cm", "a", "-o", "yaml")
    assert "managedFields" not in await kubectl.run("get", "cm", "a", "-o", "yaml")


async def test_differences_in_both_modes(kubectl: Kubectl) -> None:
    await kubectl.run(*SERVER_SIDE, kubectl.manifest("a.json", config_map({"x": "1", "y": "1"})))
    path = kubectl.manifest("a.json", config_map({"x": "2"}))
    # Its output is on standard output; code 1 says that there is a difference.
    server_side = await kubectl.run_both("diff", "--server-side", "-f", path, code=1)
    assert '+  x: "2"' in server_side
    assert '-  "y": "1"' in server_side
    client_side = await kubectl.run_both("diff", "-f", path, code=1)
    assert '+  x: "2"' in client_side
    assert (await found(kubectl, "cm", "a"))["data"] == {"x": "1", "y": "1"}


async def test_what_was_applied_on_the_clients_side_moves(kubectl: Kubectl) -> None:
    one = deployment([{"name": "c", "image": "one"}], replicas=2)
    await kubectl.run("apply", "-f", kubectl.manifest("web.json", one))
    before = await found(kubectl, "deploy", "web")
    assert owned(before, "kubectl-client-side-apply", "Update")["f:spec"]["f:replicas"] == {}
    two = deployment([{"name": "c", "image": "two"}])
    await kubectl.run(*SERVER_SIDE, kubectl.manifest("web.json", two))
    moved = await found(kubectl, "deploy", "web")
    # The annotation itself kubectl keeps under a name of its own.
    managers = {(each["manager"], each["operation"]) for each in moved["metadata"]["managedFields"]}
    assert managers == {("kubectl", "Apply"), ("kubectl-last-applied", "Apply")}
    spec = moved["spec"]
    assert (spec["replicas"], spec["template"]["spec"]["containers"][0]["image"]) == (1, "two")
    last = "kubectl.kubernetes.io/last-applied-configuration"
    assert json.loads(moved["metadata"]["annotations"][last])["spec"] == two["spec"]
    # And back: what is left out goes, as kubectl finds in the annotation what it applied last.
    three = deployment([{"name": "c", "image": "two"}], minReadySeconds=3)
    await kubectl.run(*SERVER_SIDE, kubectl.manifest("web.json", three))
    await kubectl.run("apply", "-f", kubectl.manifest("web.json", two))
    assert "minReadySeconds" not in (await found(kubectl, "deploy", "web"))["spec"]


async def test_prune_takes_what_is_no_longer_applied(kubectl: Kubectl) -> None:
    def labelled(name: str) -> dict[str, Any]:
        return config_map({"x": "1"}) | {"metadata": {"name": name, "labels": {"app": "shop"}}}

    both = {"apiVersion": "v1", "kind": "List", "items": [labelled("one"), labelled("two")]}
    await kubectl.run("apply", "-f", kubectl.manifest("all.json", both))
    await kubectl.run("create", "configmap", "three")
    await kubectl.run("label", "configmap", "three", "app=shop")
    path = kubectl.manifest("all.json", labelled("one"))
    said = await kubectl.run(
        *("apply", "-f", path, "--prune", "-l", "app=shop", "--prune-allowlist=core/v1/ConfigMap"),
    )
    assert said == "configmap/one unchanged\nconfigmap/two pruned\n"
    names = (await kubectl.run("get", "cm", "-l", "app=shop", "-o", "name")).split()
    assert names == ["configmap/one", "configmap/three"]
    assert "configmap/one pruned" in await kubectl.run(
        *("apply", "-f", kubectl.manifest("all.json", labelled("two")), "--prune", "-l", "app=shop")
    )


async def test_replace_by_force_makes_it_anew(kubectl: Kubectl) -> None:
    path = kubectl.manifest("a.json", config_map({"x": "1"}))
    await kubectl.run("create", "-f", path)
    first = await found(kubectl, "cm", "a")
    assert await kubectl.run("replace", "-f", path) == "configmap/a replaced\n"
    assert (await found(kubectl, "cm", "a"))["metadata"]["uid"] == first["metadata"]["uid"]
    assert "replaced" in await kubectl.run("replace", "--force", "-f", path)
    assert (await found(kubectl, "cm", "a"))["metadata"]["uid"] != first["metadata"]["uid"]


async def test_the_three_patches(kubectl: Kubectl) -> None:
    await kubectl.run("create", "-f", kubectl.manifest("web.json", deployment([{"name": "c", "image": "one"}])))
    side = '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"two"}]}}}}'
    assert await kubectl.run("patch", "deploy", "web", "-p", side) == "deployment.apps/web patched\n"
    assert await kubectl.run("patch", "deploy", "web", "-p", side) == "deployment.apps/web patched (no change)\n"
    containers = (await found(kubectl, "deploy", "web"))["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in containers] == ["side", "c"]
    await kubectl.run("patch", "deploy", "web", "--type=merge", "-p", side)
    containers = (await found(kubectl, "deploy", "web"))["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in containers] == ["side"]
    failing = '[{"op":"test","path":"/spec/replicas","value":7}]'
    said = await kubectl.run("patch", "deploy", "web", "--type=json", "-p", failing, code=1)
    assert said == ("The request is invalid: the server rejected our request due to an error in our request\n")
    await kubectl.run("patch", "deploy", "web", "--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":4}}')
    assert (await found(kubectl, "deploy", "web"))["spec"]["replicas"] == 4


async def test_edit_says_what_was_wrong(kubectl: Kubectl) -> None:
    await kubectl.run("create", "-f", kubectl.manifest("web.json", deployment([{"name": "c", "image": "one"}])))
    assert await kubectl.run("edit", "deploy", "web", editor="sed -i s/replicas:.1/replicas:\\ 6/") == (
        "deployment.apps/web edited\n"
    )
    assert "cancelled" in await kubectl.run_both("edit", "deploy", "web", editor="true")


@pytest.mark.parametrize(
    ("cascade", "finalizers"), [("background", None), ("foreground", ["foregroundDeletion"]), ("orphan", ["orphan"])]
)
async def test_delete_cascades_as_asked(kubectl: Kubectl, cascade: str, finalizers: list[str] | None) -> None:
    await kubectl.run("create", "-f", kubectl.manifest("web.json", deployment([{"name": "c", "image": "one"}])))
    await kubectl.run("delete", "deploy", "web", f"--cascade={cascade}", "--wait=false")
    if finalizers is None:
        assert "not found" in await kubectl.run("get", "deploy", "web", code=1)
    else:
        assert (await found(kubectl, "deploy", "web"))["metadata"]["finalizers"] == finalizers


async def test_a_pod_deleted_by_force_is_gone(kubectl: Kubectl) -> None:
    await kubectl.run("run", "one", "--image=busybox")
    assert "force deleted" in await kubectl.run_both("delete", "pod", "one", "--force", "--grace-period=0")
    assert "not found" in await kubectl.run("get", "pod", "one", code=1)


async def test_server_side_dry_runs_store_nothing(kubectl: Kubectl) -> None:
    path = kubectl.manifest("a.json", config_map({"x": "1"}))
    assert (
        await kubectl.run(*SERVER_SIDE, path, "--dry-run=server") == "configmap/a serverside-applied (server dry run)\n"
    )
    assert "not found" in await kubectl.run("get", "cm", "a", code=1)
    await kubectl.run("create", "-f", path)
    await kubectl.run("delete", "cm", "a", "--dry-run=server")
    await kubectl.run("label", "cm", "a", "l=1", "--dry-run=server")
    assert "labels" not in (await found(kubectl, "cm", "a"))["metadata"]
