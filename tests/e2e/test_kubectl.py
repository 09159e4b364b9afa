"""What users of kubectl do, with the real kubectl."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import COMMAND_S_MAX, SHOP, Cluster

NODE_PORT = 30080
FOREVER = "trap 'exit 0' TERM; sleep 3600 & wait"
"""Until it is told to end."""


@pytest.fixture(scope="module")
def shop(cluster: Cluster) -> Cluster:
    """The cluster with the shop in it."""
    cluster.kubectl("apply", "-f", str(SHOP))
    for name in ("backend", "frontend"):
        cluster.kubectl("rollout", "status", "-n", "shop", f"deploy/{name}", "--timeout=80s")
    return cluster


def backend(shop: Cluster) -> str:
    pods = shop.get("pods", "-n", "shop", "-l", "app=backend")["items"]
    living = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    name: str = living[0]
    return name


def pod(name: str, script: str, **spec: Any) -> str:
    """A manifest, as JSON, which kubectl reads as well."""
    container = {"name": "main", "image": "shop-backend:v1", "command": ["sh", "-c", script]} | spec.pop(
        "container", {}
    )
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **spec},
        }
    )


def test_the_frontend_finds_the_backend_by_name(shop: Cluster) -> None:

    def page() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{NODE_PORT}/", timeout=20) as answer:
                text: str = answer.read().decode()
        except OSError:
            return ""
        return text

    text = shop.until(page, "a page")
    assert "frontend v1" in text
    assert "backend v1 backend-" in text


def test_tables_show_what_upstreams_show(shop: Cluster) -> None:
    head = shop.kubectl("get", "deploy,pods,svc", "-n", "shop", "-o", "wide").splitlines()
    assert head[0].split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "CONTAINERS", "IMAGES", "SELECTOR"]
    assert any(line.split()[1:3] == ["3/3", "3"] for line in head if line.startswith("deployment.apps/backend"))
    nodes = shop.kubectl("get", "nodes").splitlines()
    assert nodes[0].split() == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert nodes[1].split()[1] == "Ready"


def test_exec_carries_streams_exit_codes_and_terminals(shop: Cluster) -> None:
    name = backend(shop)
    assert shop.kubectl("exec", "-n", "shop", name, "--", "sh", "-c", "echo out; exit 3", code=3) == "out\n"
    assert shop.kubectl("exec", "-i", "-n", "shop", name, "--", "cat", given="through\n") == "through\n"
    inside = shop.kubectl("exec", "-n", "shop", name, "--", "cat", "/etc/resolv.conf")
    assert "search shop.svc.cluster.local svc.cluster.local cluster.local" in inside
    primary, secondary = pty.openpty()
    command = ["kubectl", "--kubeconfig", str(shop.kubeconfig), "exec", "-it", "-n", "shop", name, "--", "sh", "-c"]
    done = subprocess.run(
        [*command, "test -t 0 && echo terminal"],
        stdin=secondary,
        capture_output=True,
        timeout=COMMAND_S_MAX,
        check=False,
    )
    assert b"terminal" in done.stdout
    os.close(primary)
    os.close(secondary)


def test_logs_by_tail_previous_since_and_follow(shop: Cluster) -> None:
    # The second run goes on, so that there is none that has said nothing yet.
    script = f"echo one; echo two; echo three; mkdir /kept/been 2>/dev/null && exit 7; {FOREVER}"
    kept = {"container": {"volumeMounts": [{"name": "kept", "mountPath": "/kept"}]}}
    volumes = [{"name": "kept", "emptyDir": {}}]
    shop.kubectl("apply", "-f", "-", given=pod("logs", script, volumes=volumes, **kept))
    shop.until(lambda: shop.restarts("logs"), "a restart")
    assert shop.kubectl("logs", "logs", "--previous") == "one\ntwo\nthree\n"
    shop.until(lambda: "three" in shop.kubectl("logs", "logs"), "the log of the second run")
    assert shop.kubectl("logs", "logs", "--tail=1") == "three\n"
    assert shop.kubectl("logs", "logs", "--since=1h").startswith("one\n")
    ended = shop.get("pod", "logs")["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (7, "Error")
    shop.kubectl("delete", "pod", "logs", "--now")
    script = "echo 1; until [ -e /go ]; do sleep 0.1; done; echo 2; echo 3"
    shop.kubectl("apply", "-f", "-", given=pod("follow", script, restartPolicy="Never"))
    shop.kubectl("wait", "pod/follow", "--for=jsonpath={.status.phase}=Running", "--timeout=60s")
    command = ["kubectl", "--kubeconfig", str(shop.kubeconfig), "logs", "-f", "follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout
        try:
            assert following.stdout.readline() == "1\n"
            shop.kubectl("exec", "follow", "--", "sh", "-c", ": >/go")
            assert following.stdout.read() == "2\n3\n"
        finally:
            following.kill()
    shop.kubectl("wait", "pod/follow", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    shop.kubectl("delete", "pod", "follow", "--now")


def test_configuration_reaches_the_container(shop: Cluster) -> None:
    objects = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {mode: fast, file.txt: from a file}
---
apiVersion: v1
kind: Secret
metadata: {name: password}
stringData: {pw: hidden}
"""
    shop.kubectl("apply", "-f", "-", given=objects)
    env = [
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}},
        {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "password", "key": "pw"}}},
        {"name": "ALL", "value": "$(MODE)-$(PW)-$$(MODE)"},
        {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    mounts = [{"name": "settings", "mountPath": "/settings"}, {"name": "scratch", "mountPath": "/scratch"}]
    volumes = [{"name": "settings", "configMap": {"name": "settings"}}, {"name": "scratch", "emptyDir": {}}]
    script = "echo $ALL $WHO; cat /settings/file.txt; echo; echo x > /scratch/x && cat /scratch/x"
    container = {"env": env, "volumeMounts": mounts}
    manifest = pod("configured", script, container=container, volumes=volumes, restartPolicy="Never")
    shop.kubectl("apply", "-f", "-", given=manifest)
    shop.kubectl("wait", "pod/configured", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    assert shop.kubectl("logs", "configured") == "fast-hidden-$(MODE) configured\nfrom a file\nx\n"
    shop.kubectl("delete", "pod", "configured", "--now")


def test_probes_take_an_unready_pod_out_and_restart_a_dead_one(shop: Cluster) -> None:
    probes = {
        "readinessProbe": {
            "exec": {"command": ["sh", "-c", "test ! -e /unready"]},
            "periodSeconds": 1,
            "timeoutSeconds": 30,
        },
        "livenessProbe": {
            "exec": {"command": ["sh", "-c", "test ! -e /dead"]},
            "periodSeconds": 1,
            "timeoutSeconds": 30,
            "failureThreshold": 1,
        },
    }
    shop.kubectl("apply", "-f", "-", given=pod("probed", FOREVER, container=probes))
    shop.kubectl("wait", "pod/probed", "--for=condition=Ready", "--timeout=60s")
    shop.kubectl("exec", "probed", "--", "sh", "-c", "echo > /unready")
    shop.kubectl("wait", "pod/probed", "--for=condition=Ready=False", "--timeout=60s")
    shop.kubectl("exec", "probed", "--", "sh", "-c", "echo > /dead")
    shop.until(lambda: shop.restarts("probed") == 1, "a restart")
    events = ("get", "events", "--field-selector", "involvedObject.name=probed")
    for reason in ("Unhealthy", "Killing"):
        shop.until(lambda reason=reason: reason in shop.kubectl(*events), f"the event {reason}")
    shop.kubectl("delete", "pod", "probed", "--now")


def test_an_image_that_can_not_be_had_says_why(shop: Cluster) -> None:
    shop.kubectl("apply", "-f", "-", given=pod("absent", "true", container={"image": "127.0.0.1:1/no/such:v1"}))

    def reason() -> str:
        statuses = shop.get("pod", "absent")["status"].get("containerStatuses") or [{}]
        word: str = statuses[0].get("state", {}).get("waiting", {}).get("reason", "")
        return word

    shop.until(lambda: reason() in ("ErrImagePull", "ImagePullBackOff"), "the pull's failure")
    shop.until(lambda: reason() == "ImagePullBackOff", "the back-off")
    shop.until(lambda: "Failed to pull image" in shop.kubectl("describe", "pod", "absent"), "the event")
    shop.kubectl("delete", "pod", "absent", "--now")


def test_a_rollout_forth_and_back(shop: Cluster) -> None:
    shop.kubectl("set", "image", "-n", "shop", "deploy/backend", "*=shop-backend:v2")
    assert "successfully rolled out" in shop.kubectl(
        "rollout", "status", "-n", "shop", "deploy/backend", "--timeout=80s"
    )
    history = shop.kubectl("rollout", "history", "-n", "shop", "deploy/backend")
    assert [line.split()[0] for line in history.splitlines()[2:] if line] == ["1", "2"]
    shop.kubectl("rollout", "undo", "-n", "shop", "deploy/backend")
    shop.kubectl("rollout", "status", "-n", "shop", "deploy/backend", "--timeout=80s")
    template = shop.get("deploy", "backend", "-n", "shop")["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == "shop-backend:v1"
    shop.kubectl("scale", "-n", "shop", "deploy/backend", "--replicas=2")
    shop.until(lambda: shop.get("deploy", "backend", "-n", "shop")["status"].get("readyReplicas") == 2, "two replicas")


def test_small_changes(shop: Cluster, tmp_path: Path) -> None:
    target = ("-n", "shop", "deploy/backend")
    shop.kubectl("label", *target, "team=a")
    shop.kubectl("annotate", *target, "note=b")
    shop.kubectl("patch", *target, "-p", '{"spec":{"minReadySeconds":1}}')
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i s/minReadySeconds:.*/minReadySeconds:\\ 2/ $1\n")
    editor.chmod(0o755)
    shop.kubectl("edit", *target, KUBE_EDITOR=str(editor))
    found = shop.get(*target)
    assert found["metadata"]["labels"]["team"] == "a"
    assert found["spec"]["minReadySeconds"] == 2
    shop.kubectl("diff", "-f", str(SHOP), code=1)
    assert "rollingUpdate" in shop.kubectl("explain", "deployment.spec.strategy")
    assert "deployments" in shop.kubectl("api-resources")
    assert "RollingUpdateStrategy:" in shop.kubectl("describe", *target)


def test_deleting_a_namespace_takes_all_that_is_in_it(shop: Cluster) -> None:
    shop.kubectl("delete", "-f", str(SHOP), "--timeout=80s")
    assert "No resources found" in shop.kubectl("get", "all", "-n", "shop", both=True)
