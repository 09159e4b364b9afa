"""kubectl explain, api-resources and what kubectl checks by itself: all that it makes of discovery and OpenAPI."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from knarr.api import descriptions
from knarr.api.apps.v1 import DeploymentSpec
from knarr.api.core.v1 import Container, ContainerPort, Pod
from knarr.api.registry import built_in
from tests.apiserver.pipeline.door import deployment
from tests.apiserver.pipeline.served import serve
from tests.apiserver.pipeline.test_kubectl import Kubectl

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with serve(tmp_path / "pki") as served:
        yield Kubectl(served, tmp_path)


def flat(text: str) -> str:
    """Without line breaks, which kubectl puts where it likes."""
    return " ".join(text.split())


@pytest.mark.parametrize("output", ["plaintext", "plaintext-openapiv2"])
async def test_explain_shows_our_texts_of_a_kind_and_of_its_fields(kubectl: Kubectl, output: str) -> None:
    said = flat(await kubectl.run("explain", "--output", output, "pods"))
    assert descriptions.of_type(Pod) in said
    for field in ("spec", "status", "metadata", "kind"):
        assert descriptions.of_field(Pod, field) in said
    said = flat(await kubectl.run("explain", "--output", output, "pod.spec.containers"))
    assert descriptions.of_field(Container, "livenessProbe") in said
    assert "name <string> -required-" in said
    said = flat(await kubectl.run("explain", "--output", output, "pod.spec.containers.ports.hostPort"))
    assert descriptions.of_field(ContainerPort, "hostPort") in said
    assert "<integer>" in said


async def test_explain_knows_kinds_by_version_short_name_and_group(kubectl: Kubectl) -> None:
    text = descriptions.of_field(DeploymentSpec, "minReadySeconds")
    assert text in flat(await kubectl.run("explain", "deploy.spec"))
    assert text in flat(await kubectl.run("explain", "deployments.spec", "--api-version", "apps/v1"))
    said = await kubectl.run("explain", "deploy.spec.nothing", code=1)
    assert 'field "nothing" does not exist' in said


async def test_explain_shows_the_whole_tree(kubectl: Kubectl) -> None:
    said = (await kubectl.run("explain", "statefulset", "--recursive")).splitlines()
    for line in ("spec\t<StatefulSetSpec>", "volumeClaimTemplates\t<[]PersistentVolumeClaim>", "stopSignal\t<string>"):
        assert any(each.strip().startswith(line) for each in said), line
    quantity = await kubectl.run("explain", "pod.spec.containers.resources.limits")
    assert "map[string]Quantity" in quantity


async def test_api_resources_are_those_of_the_registry(kubectl: Kubectl) -> None:
    lines = (await kubectl.run("api-resources", "-o", "wide", "--no-headers")).splitlines()
    assert len(lines) == len({resource.qualified for resource in built_in()})
    assert any(line.startswith("deployments") and " deploy " in line and line.endswith("all") for line in lines)
    assert any("create,delete,deletecollection,get,list,patch,update,watch" in line for line in lines)
    versions = set((await kubectl.run("api-versions")).split())
    assert versions == {resource.group_version for resource in built_in()}


@pytest.mark.parametrize("verb", ["create", "apply"])
async def test_an_unknown_field_is_refused_or_told_of_or_dropped(kubectl: Kubectl, verb: str) -> None:
    odd = deployment("odd")
    odd["spec"]["replicsa"] = 3
    path = kubectl.manifest("odd.json", odd)
    said = await kubectl.run(verb, "-f", path, "--validate=strict", code=1)
    assert 'unknown field "spec.replicsa"' in said
    said = await kubectl.run(verb, "-f", path, "--validate=warn", "--dry-run=server")
    assert "created" in said
    assert "created" in await kubectl.run(verb, "-f", path, "--validate=ignore")
