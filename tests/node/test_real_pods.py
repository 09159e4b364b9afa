"""Pods with real containers: what only the kernel can show."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import ConfigMap, Pod, Secret, Service
from knarr.api.errors import BadRequest
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.nodes import LogOptions
from knarr.clock import SystemClock
from knarr.node import log_rotation
from tests.node.cluster import NodeCluster
from tests.node.conftest import IMAGE

pytestmark = pytest.mark.e2e

WAIT_S_MAX = 60.0
RUN = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"
"""Until it is told to end, and then at once."""


def script(text: str, **fields: Any) -> dict[str, Any]:
    return {"image": IMAGE, "command": ["sh", "-c", text], **fields}


async def started(real: NodeCluster, name: str, *containers: dict[str, Any], **spec: Any) -> Pod:
    await real.pod(name, *containers, **spec)
    await real.until(lambda: real.ready(name))
    found = real.get(name)
    assert found is not None
    return found


async def out(real: NodeCluster, name: str, *command: str, container: str = "main") -> str:
    """What a command in the container prints."""
    result = await real.runtime.exec_sync(await real.container_id(name, container), command, WAIT_S_MAX)
    return result.output.decode()


async def log(real: NodeCluster, name: str, **options: Any) -> str:
    pod = real.get(name)
    assert pod is not None
    return b"".join([chunk async for chunk in real.backend.logs(pod, LogOptions("main", **options))]).decode()


async def soon(holds: Callable[[], Awaitable[Any]]) -> None:
    """Wait until something outside of the API holds."""
    async with asyncio.timeout(WAIT_S_MAX):
        while not await holds():  # noqa: ASYNC110 (nothing tells)
            await asyncio.sleep(0.02)


class At(SystemClock):
    """A clock that shows a certain time."""

    def __init__(self, now_s: float) -> None:
        super().__init__()
        self._now_s = now_s

    def time_s(self) -> float:
        return self._now_s


async def test_a_pod_runs_in_well_under_a_second_and_leaves_nothing(real: NodeCluster, tmp_path: Path) -> None:
    await started(real, "warm", script(RUN))
    took_s = []
    for name in ("one", "two", "web"):  # the best of them says what it takes, the others what else the machine did
        began_s = real.clock.monotonic_s()
        pod = await started(real, name, script(RUN))
        took_s.append(real.clock.monotonic_s() - began_s)
    assert min(took_s) < 1.0  # 0.07 s here when nothing else runs
    assert pod.status is not None
    assert pod.status.pod_ip
    assert await out(real, "web", "hostname") == "web\n"
    await real.delete("web")
    await real.until(lambda: real.get("web") is None)
    assert not list((tmp_path / "logs").glob("default_web_*"))


async def test_the_environment_of_a_container(real: NodeCluster) -> None:
    metadata = ObjectMeta(name="settings", namespace="default")
    await real.create(ConfigMap(metadata=metadata, data={"COLOUR": "red", "size": "7"}))
    await real.create(Secret(metadata=ObjectMeta(name="keys", namespace="default"), data={"token": b"s3cret"}))
    port = {"port": 80, "name": "http"}
    service = {"metadata": {"name": "shop-back", "namespace": "default"}, "spec": {"ports": [port]}}
    made = await real.create(msgspec.convert(service, Service))
    assert made.spec is not None
    env = [
        {"name": "GREETING", "value": "$(COLOUR) $(size) $(NOBODY) $$(COLOUR)"},
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "nobody", "key": "x", "optional": True}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
    ]
    limits = {"limits": {"memory": "64Mi", "cpu": "500m"}, "requests": {"cpu": "250m", "memory": "64Mi"}}
    from_map = [{"configMapRef": {"name": "settings"}}]
    main = script(RUN, env=env, envFrom=from_map, resources=limits, args=["$(COLOUR)"])
    pod = await started(real, "web", main)
    variables = dict(line.split("=", 1) for line in (await out(real, "web", "env")).splitlines())
    assert variables["GREETING"] == "red 7 $(NOBODY) $(COLOUR)"
    assert variables["TOKEN"] == "s3cret"
    assert "NONE" not in variables
    assert pod.status is not None
    assert variables["IP"] == pod.status.pod_ip
    assert variables["LIMIT"] == "64"
    assert variables["HOSTNAME"] == "web"
    assert variables["SHOP_BACK_SERVICE_HOST"] == made.spec.cluster_ip
    assert variables["SHOP_BACK_PORT_80_TCP_PROTO"] == "tcp"
    assert pod.status.qos_class == "Burstable"
    [container] = await real.runtime.containers()
    groups = await asyncio.to_thread(Path(f"/proc/{container.pid}/cgroup").read_text)
    assert f"/burstable/pod{pod.metadata.uid}/" in groups


async def test_volumes_show_what_the_api_has_and_follow_it(real: NodeCluster) -> None:
    metadata = ObjectMeta(name="settings", namespace="default")
    await real.create(ConfigMap(metadata=metadata, data={"colour": "red", "old": "1"}))
    await real.create(Secret(metadata=ObjectMeta(name="keys", namespace="default"), data={"token": b"s3cret"}))
    volumes = [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "me", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]
    mounts = [{"name": volume["name"], "mountPath": f"/v/{volume['name']}"} for volume in volumes]
    mounts.append({"name": "settings", "mountPath": "/one/colour", "subPath": "colour"})
    mounts.append({"name": "scratch", "mountPath": "/part", "subPathExpr": "of/$(NAME)"})
    env = [{"name": "NAME", "value": "mine"}]
    main = script(RUN, volumeMounts=mounts, env=env)
    await started(real, "web", main, volumes=volumes, metadata={"labels": {"app": "web"}})
    assert await out(real, "web", "cat", "/v/settings/colour", "/one/colour", "/v/me/labels") == 'redredapp="web"'
    assert await out(real, "web", "stat", "-L", "-c", "%a", "/v/keys/token", "/v/scratch") == "400\n777\n"
    assert "tmpfs" in await out(real, "web", "sh", "-c", "mount | grep /v/keys")
    assert "size=1024k" in await out(real, "web", "sh", "-c", "mount | grep /v/fast")
    assert "Read-only" in await out(real, "web", "touch", "/v/settings/x")
    await out(real, "web", "touch", "/part/file")
    assert await out(real, "web", "ls", "/v/scratch/of/mine") == "file\n"
    token = await out(real, "web", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    assert token.count(".") == 2
    await real.client.patch(ConfigMap, "settings", {"data": {"colour": "blue", "old": None}}, "default")

    async def updated() -> bool:
        return await out(real, "web", "cat", "/v/settings/colour") == "blue"

    await soon(updated)
    assert await out(real, "web", "ls", "/v/settings") == "colour\n"
    assert await out(real, "web", "cat", "/one/colour") == "red", "a subPath doesn't follow, as upstream"
    await real.client.patch(Pod, "web", {"metadata": {"labels": {"app": "two"}}}, "default")

    async def relabelled() -> bool:
        return await out(real, "web", "cat", "/v/me/labels") == 'app="two"'

    await soon(relabelled)


async def test_fs_group_and_users(real: NodeCluster) -> None:
    security = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000, "supplementalGroups": [3000]}
    mounts = [{"name": "scratch", "mountPath": "/scratch"}]
    main = script(RUN, volumeMounts=mounts)
    await started(real, "web", main, volumes=[{"name": "scratch", "emptyDir": {}}], securityContext=security)
    ids = await out(real, "web", "id")
    assert "uid=1000(app) gid=1000(app)" in ids
    assert "2000" in ids
    assert "3000" in ids
    assert await out(real, "web", "sh", "-c", "touch /scratch/x && stat -c %g /scratch/x") == "2000\n"
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert (await out(real, "web", "cat", token)).count(".") == 2


async def test_a_sub_path_cannot_leave_its_volume(real: NodeCluster, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    os.symlink("/etc", shared / "out")
    volumes = [{"name": "shared", "hostPath": {"path": str(shared), "type": "Directory"}}]
    mounts = [{"name": "shared", "mountPath": "/in", "subPath": "out"}]
    await real.pod("web", script(RUN, volumeMounts=mounts), volumes=volumes)
    await real.until(lambda: real.status("web").state.waiting.reason == "CreateContainerConfigError")  # type: ignore[union-attr]
    state = real.status("web").state
    assert state is not None
    assert state.waiting is not None
    assert "is outside of its volume" in (state.waiting.message or "")


async def test_a_host_path_of_the_wrong_type_keeps_the_pod_from_starting(real: NodeCluster, tmp_path: Path) -> None:
    volumes = [{"name": "host", "hostPath": {"path": str(tmp_path / "nothing"), "type": "File"}}]
    await real.pod("web", script(RUN), volumes=volumes)

    async def told() -> bool:
        return any(reason == "FailedMount" for reason, _ in await real.events("web"))

    await soon(told)
    message = next(message for reason, message in await real.events("web") if reason == "FailedMount")
    assert 'MountVolume.SetUp failed for volume "host" : hostPath type check failed' in message
    assert real.phase("web") == "Pending"


async def test_names_in_a_pod(real: NodeCluster) -> None:
    pod = await started(
        real,
        "web-0",
        script(RUN),
        subdomain="web",
        hostAliases=[{"ip": "10.9.8.7", "hostnames": ["db", "db.example"]}],
        dnsConfig={"options": [{"name": "ndots", "value": "2"}], "searches": ["example.com"]},
    )
    assert pod.status is not None
    hosts = await out(real, "web-0", "cat", "/etc/hosts")
    assert f"{pod.status.pod_ip}\tweb-0.web.default.svc.cluster.local\tweb-0\n" in hosts
    assert "10.9.8.7\tdb\tdb.example\n" in hosts
    resolver = await out(real, "web-0", "cat", "/etc/resolv.conf")
    assert resolver.startswith("search default.svc.cluster.local svc.cluster.local cluster.local")
    assert "example.com\n" in resolver
    assert "nameserver 10.96.0.10\noptions ndots:2\n" in resolver


async def test_hooks_run_after_the_start_and_before_the_end(real: NodeCluster, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    volumes = [{"name": "shared", "hostPath": {"path": str(shared)}}]
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    lifecycle = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo began >>/shared/log"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo ending >>/shared/log"]}},
    }
    text = "trap 'echo terminated >>/shared/log; exit 0' TERM; while :; do sleep 3600 & wait $!; done"
    await started(real, "web", script(text, volumeMounts=mounts, lifecycle=lifecycle), volumes=volumes)
    assert (shared / "log").read_text() == "began\n"
    await real.delete("web")
    await real.until(lambda: real.get("web") is None)
    assert (shared / "log").read_text() == "began\nending\nterminated\n"
    assert shared.exists(), "a hostPath outlives its pods"


async def test_a_failed_post_start_hook_ends_the_container(real: NodeCluster) -> None:
    lifecycle = {"postStart": {"exec": {"command": ["sh", "-c", "echo no; exit 1"]}}}
    await real.pod("web", script(RUN, lifecycle=lifecycle))
    await real.until(lambda: real.status("web").restart_count >= 1)
    assert ("FailedPostStartHook", "PostStartHook failed: no\n") in await real.events("web")


async def test_an_exit_is_seen_at_once_with_its_code_and_message(real: NodeCluster) -> None:
    await real.pod("job", script("echo done >/dev/termination-log; exit 3"), restartPolicy="Never")
    await real.until(lambda: real.phase("job") == "Failed")
    state = real.status("job").state
    assert state is not None
    assert state.terminated is not None
    assert (state.terminated.exit_code, state.terminated.reason, state.terminated.message) == (3, "Error", "done\n")
    fallback = script("echo last words; exit 4", terminationMessagePolicy="FallbackToLogsOnError")
    await real.pod("talks", fallback, restartPolicy="Never")
    await real.until(lambda: real.phase("talks") == "Failed")
    state = real.status("talks").state
    assert state is not None
    assert state.terminated is not None
    assert state.terminated.message == "last words\n"


async def test_http_and_tcp_probes(real: NodeCluster) -> None:
    server = "mkdir /www; echo fine >/www/healthz; httpd -p 8080 -h /www; " + RUN
    probe = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1, "failureThreshold": 1}
    ports = [{"name": "http", "containerPort": 8080}]
    tcp = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    await started(real, "web", script(server, ports=ports, readinessProbe=probe, startupProbe=tcp))
    await out(real, "web", "rm", "/www/healthz")
    await real.until(lambda: not real.ready("web"))

    async def told() -> bool:
        return ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404") in (
            await real.events("web")
        )

    await soon(told)


async def test_logs_whole_tail_since_previous_and_followed(real: NodeCluster) -> None:
    text = "for i in 1 2 3; do echo line $i; done; echo error >&2; read x </tmp/go; echo more; exit 1"
    await real.pod("web", script("mkfifo /tmp/go 2>/dev/null || busybox mknod /tmp/go p; " + text))
    await real.until(lambda: real.ready("web"))

    async def printed() -> bool:
        return (await log(real, "web")).count("\n") == 4

    await soon(printed)
    assert sorted((await log(real, "web")).splitlines()) == ["error", "line 1", "line 2", "line 3"]
    assert len((await log(real, "web", tail_lines=2)).splitlines()) == 2
    assert await log(real, "web", limit_bytes=6, tail_lines=4) in ("line 1", "error\n")
    assert await log(real, "web", since_s=real.clock.time_s() + 60) == ""
    stamped = (await log(real, "web", timestamps=True)).splitlines()
    assert stamped[0][:2] == "20"
    following = asyncio.create_task(log(real, "web", follow=True))
    await asyncio.sleep(0)
    await out(real, "web", "sh", "-c", "echo >/tmp/go")
    followed = await asyncio.wait_for(following, WAIT_S_MAX)
    assert followed.splitlines()[-1] == "more"
    await real.until(lambda: real.status("web").restart_count == 1)
    assert "more\n" in await log(real, "web", previous=True)


async def test_a_large_log_is_put_aside_and_followers_see_every_line(real: NodeCluster) -> None:
    text = "for i in 1 2 3 4 5 6 7; do until read x </tmp/go; do :; done; echo line $i; done; " + RUN
    await started(real, "web", script("mkfifo /tmp/go 2>/dev/null || busybox mknod /tmp/go p; " + text))
    [container] = await real.runtime.containers()
    pod = real.get("web")
    assert pod is not None
    following = real.backend.logs(pod, LogOptions("main", follow=True))
    for number in range(1, 8):
        await out(real, "web", "sh", "-c", "echo >/tmp/go")
        assert await asyncio.wait_for(anext(following), WAIT_S_MAX) == f"line {number}\n".encode()
        await log_rotation.rotate(real.runtime, At(number), container.id, container.log_path)
        await soon(lambda: asyncio.to_thread(os.path.exists, container.log_path))
    kept = [path.name for path in log_rotation.rotated(container.log_path)]
    assert len(kept) == log_rotation.LOG_FILES_MAX - 1
    assert kept == [f"0.log.19700101-00000{number}" for number in (4, 5, 6, 7)]


async def test_exec_attach_and_port_forward(real: NodeCluster) -> None:
    server = "mkdir /www; echo fine >/www/index.html; httpd -p 127.0.0.1:8080 -h /www; " + RUN
    pod = await started(real, "web", script(server))
    streams = await real.backend.exec(pod, "main", ["cat"], tty=False, stdin=True)
    await streams.write(b"hello")
    await streams.close_stdin()
    assert [data async for data in streams.output()] == [(1, b"hello")]
    assert await streams.exit_code() == 0
    await streams.close()

    async def serves() -> bool:
        return "fine\n" in await out(real, "web", "wget", "-qO-", "http://127.0.0.1:8080/")

    await soon(serves)
    reader, writer = await real.backend.port_forward(pod, 8080)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await reader.read()).endswith(b"fine\n"), "a port on the pod's own loopback"
    writer.close()
    with pytest.raises(BadRequest):
        await real.backend.exec(pod, "nobody", ["true"], tty=False, stdin=False)


async def test_a_restarted_agent_takes_over_running_containers(real: NodeCluster) -> None:
    await started(real, "web", script(RUN))
    before = await real.container_id("web")
    await real.stop_agent()
    real.start_agent()
    await real.agent.ready.wait()
    await real.client.patch(Pod, "web", {"metadata": {"labels": {"seen": "yes"}}}, "default")
    await real.runtime.stop_container(before, 0)
    await real.until(lambda: real.status("web").restart_count == 1 and real.ready("web"))
    last = real.status("web").last_state
    assert last is not None
    assert last.terminated is not None
    assert last.terminated.exit_code == 137
    assert last.terminated.container_id == f"knarr://{before}"


async def test_ready_is_taken_back_at_once_when_a_container_ends(real: NodeCluster) -> None:
    took_s = []
    for name in ("one", "two", "web"):  # the best of them says what it takes, the others what else the machine did
        await started(real, name, script(RUN))
        seen = len(real.history[name])
        await real.runtime.stop_container(await real.container_id(name), 0)
        began_s = real.clock.monotonic_s()
        await real.until(lambda name=name, seen=seen: any(_unready(pod) for pod in real.history[name][seen:]))
        took_s.append(real.clock.monotonic_s() - began_s)
        await real.until(lambda name=name: real.status(name).restart_count == 1 and real.ready(name))
    assert min(took_s) < 0.5


def _unready(pod: Pod) -> bool:
    conditions = {each.type: each.status for each in pod.status.conditions} if pod.status else {}
    return conditions.get("Ready") == "False" and json.dumps(conditions) != "{}"
