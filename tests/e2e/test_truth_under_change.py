"""No request fails while pods come and go: every way to an application at once, under constant load, for real.

The application is behind a ClusterIP, a NodePort, a LoadBalancer and an Ingress. It is asked 1,000 times a second, on
connections that are kept and on new ones, for the whole of a rolling update.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Cluster, started
from tests.e2e.constant_load import constant_load

SERVER = (Path(__file__).parent / "polite_server.py").read_text()
RATE = 1000
QUIET_RATE = 200
"""Where a time is measured: the load must not be what it takes."""
REPLICAS = 4
NODE_PORT, PORT, INGRESS_PORT = 30480, 8480, 8481
HOST = "web.example.com"
MACHINE = list(dict.fromkeys(["/usr", "/lib", "/lib64", sys.base_prefix]))
"""Folders in which this machine's Python is, for containers to have it."""
ADDRESS = "jsonpath={.status.loadBalancer.ingress}"
NUMBERS = itertools.count()
"""Of namespaces."""
WITH_PAUSE = {"preStop": {"sleep": {"seconds": 2}}}


def application(image: str, text: str, lifecycle: dict[str, Any], annotations: dict[str, str]) -> dict[str, Any]:
    """The Deployment."""
    container = {
        "name": "web",
        "image": image,
        "command": [str(Path(sys.base_prefix) / "bin" / Path(sys.executable).name), "/server/polite_server.py", text],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
        "lifecycle": lifecycle,
        "volumeMounts": [
            {"name": "server", "mountPath": "/server"},
            *({"name": f"m{number}", "mountPath": path, "readOnly": True} for number, path in enumerate(MACHINE)),
        ],
    }
    volumes = [
        {"name": "server", "configMap": {"name": "server"}},
        *({"name": f"m{number}", "hostPath": {"path": path}} for number, path in enumerate(MACHINE)),
    ]
    labels = {"app": "web"}
    template = {
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 30},
    }
    spec = {"replicas": REPLICAS, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


class Application:
    """The application in a namespace of its own, and all ways to it."""

    def __init__(self, cluster: Cluster, image: str, namespace: str) -> None:
        self.cluster = cluster
        self.image = image
        self.namespace = namespace
        self.host = f"{namespace}.example"
        """By which the Ingress knows it."""
        self.lifecycle: dict[str, Any] = {}
        self.annotations: dict[str, str] = {}

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, given=given)

    def start(self) -> None:
        self.cluster.kubectl("create", "namespace", self.namespace)
        self.kubectl("create", "configmap", "server", f"--from-literal=polite_server.py={SERVER}")
        port = {"name": "http", "port": PORT, "targetPort": "http", "nodePort": NODE_PORT}
        spec = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [port]}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
        self.kubectl("apply", "-f", "-", given=json.dumps(service))
        self.kubectl("create", "ingress", "web", f"--rule={self.host}/*=web:{PORT}")
        self.becomes("v1")
        backend = {"service": {"name": "web", "port": {"name": "http"}}}
        rule = {"host": HOST, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
        metadata, group = {"name": "web"}, "networking.k8s.io/v1"
        ingress = {"apiVersion": group, "kind": "Ingress", "metadata": metadata, "spec": {"rules": [rule]}}
        self.kubectl("apply", "-f", "-", given=json.dumps(ingress))
        self.cluster.until(lambda: self.balanced("ingress"), "Envoy")

    def becomes(self, text: str) -> None:
        """Roll out the version that answers `text`."""
        wanted = application(self.image, text, self.lifecycle, self.annotations)
        self.kubectl("apply", "-f", "-", given=json.dumps(wanted))
        self.kubectl("rollout", "status", "deploy/web", "--timeout=55s")

    def settle(self, pods: int) -> None:
        """Wait until there are only so many pods: those that end have ended."""
        self.cluster.until(lambda: len(self.pods()) == pods, f"{pods} pods")

    def pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cluster.get("pods", "-n", self.namespace)["items"]
        return found

    def balanced(self, kind: str) -> Any:
        status = self.cluster.get("-n", self.namespace, kind, "web").get("status", {})
        return status.get("loadBalancer", {}).get("ingress")

    def ways(self) -> list[dict[str, Any]]:
        service = self.cluster.get("-n", self.namespace, "service", "web")
        [balanced, *_] = self.cluster.until(lambda: self.balanced("service"), "an address of the load balancer")
        internal = self.addresses()
        return [
            {"name": "cluster IP", "host": service["spec"]["clusterIP"], "port": PORT},
            *({"name": f"node port of {name}", "host": host, "port": NODE_PORT} for name, host in internal.items()),
            {"name": "load balancer", "host": balanced["ip"], "port": PORT},
            *(
                {"name": f"ingress of {name}", "host": host, "port": INGRESS_PORT, "header": HOST}
                for name, host in internal.items()
            ),
        ]

    def addresses(self) -> dict[str, str]:
        """Of the nodes, by name."""
        return {
            node["metadata"]["name"]: each["address"]
            for node in self.cluster.get("nodes")["items"]
            for each in node["status"]["addresses"]
            if each["type"] == "InternalIP"
        }

    @contextmanager
    def under_load(self, rate: float = RATE) -> Iterator[dict[str, Any]]:
        """What is done inside meets constant load; afterwards the result is in the dictionary."""
        with constant_load(rate, self.ways()) as result:
            yield result
        shown = {name: {**told, "failures": told["failures"][:3]} for name, told in result["targets"].items()}
        print(json.dumps({**result, "targets": shown}, indent=1))
        print(
            self.kubectl(
                "get", "events", "-o", "custom-columns=:.firstTimestamp,:.involvedObject.name,:.reason,:.message"
            )
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, archives: list[str]) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("truth"))
    made.flags += ["--ingress-http-port", str(INGRESS_PORT), "--ingress-https-port", "0"]
    yield from started(made, archives)


@pytest.fixture
def web(cluster: Cluster, tools: str) -> Iterator[Application]:
    application = Application(cluster, tools, f"truth-{next(NUMBERS)}")
    yield application
    cluster.kubectl("delete", "namespace", application.namespace)  # until it is gone: the next has the same node port


def failures(result: dict[str, Any]) -> dict[str, Any]:
    return {name: told["failures"] for name, told in result["targets"].items() if told["failed"]}


@pytest.mark.parametrize("lifecycle", [WITH_PAUSE, {}], ids=["with a preStop pause", "without any preStop"])
def test_a_rolling_update_loses_no_request(web: Application, lifecycle: dict[str, Any]) -> None:
    web.lifecycle = lifecycle
    web.start()
    with web.under_load() as result:
        web.becomes("v2")
        web.settle(REPLICAS)
    assert failures(result) == {}
    assert len(result["targets"]) == 8
    for told in result["targets"].values():
        assert set(told["bodies"]) == {"v1", "v2"}
    assert result["rate"] > RATE * 0.9


def test_pods_that_are_deleted_and_scaled_away_lose_no_request(web: Application) -> None:
    web.start()
    with web.under_load() as result:
        first = web.kubectl("get", "pods", "-o", "name").split()[0]
        web.kubectl("delete", first)
        web.kubectl("scale", "deploy/web", "--replicas=2")
        web.settle(2)
        web.kubectl("scale", "deploy/web", f"--replicas={REPLICAS}")
        web.kubectl("rollout", "status", "deploy/web", "--timeout=55s")
    assert failures(result) == {}


def test_when_a_process_is_killed_failures_end_within_a_second(web: Application) -> None:
    web.start()
    [pod, *_] = web.pods()
    container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("knarr://")
    with web.under_load(QUIET_RATE) as result:
        process = process_of(web.cluster, container)
        killed_s = time.monotonic()
        os.kill(process, signal.SIGKILL)
        time.sleep(4.0)
    late = {name: told["last_failure_s"] - killed_s for name, told in result["targets"].items() if told["failed"]}
    assert all(late_s < 1.0 for late_s in late.values()), late
    name = pod["metadata"]["name"]
    web.cluster.until(lambda: web.cluster.restarts(name, "-n", web.namespace) == 1, "the container's restart")


def test_who_drains_is_shown_by_condition_and_event(web: Application) -> None:
    web.start()
    [pod, *_] = web.pods()
    conditions = {each["type"]: each for each in pod["status"]["conditions"]}
    assert (conditions["knarr.dev/InService"]["status"], conditions["knarr.dev/InService"]["reason"]) == (
        "True",
        "Acknowledged",
    )
    web.kubectl("delete", "pod", pod["metadata"]["name"])

    def reasons() -> list[str]:
        """Of the events about the pod, oldest first; they are written beside what they tell of."""
        events = web.cluster.get("events", "-n", web.namespace)["items"]
        about = [each for each in events if each["involvedObject"]["name"] == pod["metadata"]["name"]]
        return [each["reason"] for each in sorted(about, key=lambda each: each["metadata"]["name"].split(".")[-1])]

    web.cluster.until(lambda: {"Drained", "Killing"} <= set(reasons()), "both events")
    told = reasons()
    assert told.index("Drained") < told.index("Killing")


def process_of(cluster: Cluster, container: str) -> int:
    """The first process of a container, as this machine numbers it."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            groups = (path / "cgroup").read_text()
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if container in groups and b"polite_server" in command:
            return int(path.name)
    raise AssertionError(f"no process of container {container}")
