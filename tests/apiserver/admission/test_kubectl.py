"""What kubectl shows of quotas, limits, pod security and classes, as a user sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.apiserver.pipeline.echo_node import EchoNode
from tests.apiserver.pipeline.served import serve
from tests.apiserver.pipeline.test_kubectl import COMMAND_S, KUBECTL, Kubectl

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="kubectl is not installed")


class Both(Kubectl):
    """All that a command says, warnings and errors too."""

    async def says(self, *command: str) -> list[str]:
        assert KUBECTL
        process = await asyncio.create_subprocess_exec(
            KUBECTL, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=self._environment
        )
        async with asyncio.timeout(COMMAND_S):
            output, _ = await process.communicate()
        return [line.rstrip() for line in output.decode().splitlines()]


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Both]:
    async with serve(tmp_path / "pki", EchoNode()) as served:
        yield Both(served, tmp_path)


async def quota(kubectl: Both) -> None:
    """A quota, counted."""
    await kubectl.run("create", "quota", "q", "--hard=pods=2,cpu=1,limits.memory=1Gi")
    status: dict[str, Any] = {"hard": {"pods": "2", "cpu": "1", "limits.memory": "1Gi"}}
    status["used"] = dict.fromkeys(status["hard"], "0")
    patch = msgspec.json.encode({"status": status}).decode()
    await kubectl.run("patch", "quota", "q", "--subresource=status", "--type=merge", "-p", patch)


LIMITS = {
    "apiVersion": "v1",
    "kind": "LimitRange",
    "metadata": {"name": "l"},
    "spec": {
        "limits": [
            {"type": "Container", "default": {"cpu": "500m", "memory": "64Mi"}, "max": {"cpu": "1"}},
            {"type": "Pod", "max": {"cpu": "2"}},
        ]
    },
}


async def test_quotas_and_limits(kubectl: Both) -> None:
    await quota(kubectl)
    assert (await kubectl.says("get", "quota"))[0].split() == ["NAME", "REQUEST", "LIMIT", "AGE"]
    assert "q      cpu: 0/1, pods: 0/2   limits.memory: 0/1Gi" in (await kubectl.says("get", "resourcequotas"))[1]
    shown = await kubectl.says("describe", "quota", "q")
    assert shown[2:] == [
        "Resource       Used  Hard",
        "--------       ----  ----",
        "cpu            0     1",
        "limits.memory  0     1Gi",
        "pods           0     2",
    ]
    await kubectl.run("create", "-f", kubectl.manifest("limits.json", LIMITS))
    assert (await kubectl.says("get", "limits"))[0].split() == ["NAME", "CREATED", "AT"]
    shown = await kubectl.says("describe", "limits", "l")
    assert sorted(line.split() for line in shown[4:]) == [
        ["Container", "cpu", "-", "1", "500m", "500m", "-"],
        ["Container", "memory", "-", "-", "64Mi", "64Mi", "-"],
        ["Pod", "cpu", "-", "2", "-", "-", "-"],
    ]
    whole = "\n".join(await kubectl.says("describe", "namespace", "default"))
    assert "Resource Quotas\n  Name:          q" in whole
    assert "Resource Limits\n Type       Resource" in whole
    for name in "ab":
        await kubectl.run("run", name, "--image=x")
    assert await kubectl.says("run", "c", "--image=x") == [
        'Error from server (Forbidden): pods "c" is forbidden: exceeded quota: q, requested: cpu=500m,pods=1, '
        "used: cpu=1,pods=2, limited: cpu=1,pods=2"
    ]


async def test_pod_security(kubectl: Both) -> None:
    for name in "ab":
        await kubectl.run("run", name, "--image=x")
    key = "pod-security.kubernetes.io"
    short = "allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"
    assert await kubectl.says("label", "ns", "default", f"{key}/enforce=restricted", "--dry-run=server") == [
        'Warning: existing pods in namespace "default" violate the new PodSecurity enforce level "restricted:latest"',
        f"Warning: a (and 1 other pod): {short}",
        "namespace/default labeled (server dry run)",
    ]
    await kubectl.says("label", "ns", "default", f"{key}/enforce=restricted")
    warned, made = await kubectl.says("create", "deployment", "web", "--image=x")
    assert warned.startswith('Warning: would violate PodSecurity "restricted:latest": allowPrivilegeEscalation')
    assert made == "deployment.apps/web created"
    (refused,) = await kubectl.says("run", "c", "--image=x")
    wanted = 'Error from server (Forbidden): pods "c" is forbidden: violates PodSecurity "restricted:latest": '
    assert refused.startswith(wanted)
    assert await kubectl.says("label", "ns", "default", f"{key}/warn=strict") == [
        f'The Namespace "default" is invalid: metadata.labels[{key}/warn]: Invalid value: "strict": '
        "must be one of privileged, baseline, restricted"
    ]


async def test_classes_and_namespaces_that_stay(kubectl: Both) -> None:
    await kubectl.run("create", "priorityclass", "high", "--value=100", "--description=for web")
    shown = [line.split() for line in await kubectl.says("get", "pc")]
    assert shown[0] == ["NAME", "VALUE", "GLOBAL-DEFAULT", "AGE", "PREEMPTIONPOLICY"]
    assert [(row[0], row[1], row[2], row[4]) for row in shown[1:]] == [
        ("high", "100", "false", "PreemptLowerPriority"),
        ("system-cluster-critical", "2000000000", "false", "PreemptLowerPriority"),
        ("system-node-critical", "2000001000", "false", "PreemptLowerPriority"),
    ]
    assert await kubectl.says("delete", "namespace", "kube-system") == [
        'Error from server (Forbidden): namespaces "kube-system" is forbidden: this namespace may not be deleted'
    ]
