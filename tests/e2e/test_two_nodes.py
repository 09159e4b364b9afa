"""Two machines: what runs on either is reached from everywhere, and outlives what may happen to one of them.

Real kubectl, real containers on both, real packets in between (`two_nodes.py`).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import TOOLS
from tests.e2e.test_process import iptables_are_free
from tests.e2e.two_nodes import NODES, TwoNodes, started

PORT = 8080
ASKED = 8
"""Requests to a Service with two endpoints that take turns: each must be among the answers."""

SERVER = f"""
mkdir /www; echo $NODE >/www/index.html; trap 'exit 0' TERM
httpd -f -v -p {PORT} -h /www & wait"""


def server(name: str, node: str, **labels: str) -> dict[str, Any]:
    """A pod that answers by HTTP with the name of its node, and logs who asks."""
    container = {
        "name": "main",
        "image": TOOLS,
        "command": ["sh", "-c", SERVER],
        "env": [{"name": "NODE", "value": node}],
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1},
    }
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": PORT}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "web"}, "ports": ports, **spec},
    }


def apply(cluster: TwoNodes, *objects: dict[str, Any]) -> None:
    cluster.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def ask(cluster: TwoNodes, pod: str, host: str, port: int = 80) -> str:
    """By HTTP, from within a pod."""
    return cluster.kubectl("exec", pod, "--", "wget", "-qO-", f"http://{host}:{port}/").strip()


def reaches(cluster: TwoNodes, pod: str, host: str, there: str) -> None:
    """A pod is answered at another's own address, as soon as the routes between their machines are there."""
    script = f"timeout 5 wget -qO- http://{host}:{PORT}/ || true"
    asked = ("exec", pod, "--", "sh", "-c", script)
    cluster.until(lambda: cluster.kubectl(*asked).strip() == there, f"{pod} is answered by {host}")


def ask_from_outside(cluster: TwoNodes, address: str, port: int) -> str:
    return cluster.inside("client", "curl", "-sS", "-m", "20", f"http://{address}:{port}/").strip()


def pod_ips(cluster: TwoNodes, pod: str) -> list[str]:
    return [each["ip"] for each in cluster.get("pod", pod)["status"]["podIPs"]]


@pytest.fixture(scope="module", params=["nftables", "iptables"])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    """Two machines with a server on each, and Services over both."""
    if request.param == "iptables" and not iptables_are_free():
        pytest.skip("chains named KUBE-… are on this machine: its own kube-proxy's, or another test's")
    run = started(TwoNodes(tmp_path_factory.mktemp("two"), request.param))
    cluster = next(run)
    try:
        apply(
            cluster,
            *(server(f"web-{name}", name, app="web") for name in NODES),
            service("web"),
            service("outside", type="NodePort"),
            service("local", type="NodePort", externalTrafficPolicy="Local"),
        )
        # In the rules of both machines, of which a pod's being ready says nothing.
        cluster.kubectl("wait", "--for=condition=knarr.dev/InService", "pod", "--all", "--timeout=40s")
        cluster.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=40s")
        yield cluster
    finally:
        assert next(run, None) is None


def test_the_second_machine_is_a_node_like_the_first(two: TwoNodes) -> None:
    nodes = {each["metadata"]["name"]: each for each in two.get("nodes")["items"]}
    assert sorted(nodes) == list(NODES)
    for name, node in nodes.items():
        addresses = {each["type"]: each["address"] for each in node["status"]["addresses"]}
        assert addresses == {"InternalIP": two.addresses[name], "Hostname": name}
        assert {each["type"]: each["status"] for each in node["status"]["conditions"]}["Ready"] == "True"
    assert nodes["first"]["spec"]["podCIDR"] != nodes["second"]["spec"]["podCIDR"]
    requests = {each["spec"]["signerName"]: each for each in two.get("csr")["items"]}
    assert sorted(requests) == ["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"]


def test_pods_on_both_machines_reach_each_other_by_address_service_and_name(two: TwoNodes) -> None:
    addresses = {name: pod_ips(two, f"web-{name}")[0] for name in NODES}
    cluster_ip = two.get("service", "web")["spec"]["clusterIP"]
    for here in NODES:
        pod = f"web-{here}"
        for there in NODES:
            reaches(two, pod, addresses[there], there)
        assert {ask(two, pod, cluster_ip) for _ in range(ASKED)} == set(NODES)
        assert {ask(two, pod, "web") for _ in range(ASKED)} == set(NODES)
        found = two.kubectl("exec", pod, "--", "nslookup", "web.default.svc.cluster.local")
        assert cluster_ip in found


def test_services_are_reached_from_the_machines_themselves(two: TwoNodes) -> None:
    cluster_ip = two.get("service", "web")["spec"]["clusterIP"]
    command = ["curl", "-sS", "-m", "20", f"http://{cluster_ip}/"]
    here = {subprocess.check_output(command, text=True) for _ in range(ASKED)}
    there = {two.inside("node", *command) for _ in range(ASKED)}
    assert {each.strip() for each in here} == {each.strip() for each in there} == set(NODES)


def test_node_ports_are_open_on_each_machine(two: TwoNodes) -> None:
    port = two.get("service", "outside")["spec"]["ports"][0]["nodePort"]
    for address in two.addresses.values():
        assert {ask_from_outside(two, address, port) for _ in range(ASKED)} == set(NODES)


def test_a_local_node_port_answers_from_its_own_machine_and_sees_the_client(two: TwoNodes) -> None:
    port = two.get("service", "local")["spec"]["ports"][0]["nodePort"]
    for name, address in two.addresses.items():
        assert {ask_from_outside(two, address, port) for _ in range(ASKED)} == {name}
        two.until(lambda name=name: two.client_address in two.kubectl("logs", f"web-{name}"), "the client in the log")


def test_kubectl_works_with_pods_of_the_second_machine(two: TwoNodes, tmp_path: Path) -> None:
    pod = "web-second"
    assert two.kubectl("exec", pod, "--", "hostname").strip() == pod
    assert two.kubectl("exec", "-i", pod, "--", "cat", given="some input") == "some input"
    assert "exit code 7" in two.kubectl("exec", pod, "--", "sh", "-c", "exit 7", code=7, both=True)
    assert two.kubectl("exec", pod, "--", "sh", "-c", "seq 100000").count("\n") == 100_000
    ask(two, pod, "127.0.0.1", PORT)
    two.until(lambda: "127.0.0.1" in two.kubectl("logs", pod), "the log of what was asked")
    assert two.kubectl("logs", pod, "-c", "none", code=1, both=True).startswith("error: container none is not valid")
    body = os.urandom(300_000)
    (tmp_path / "there").write_bytes(body)
    two.kubectl("cp", str(tmp_path / "there"), f"{pod}:/tmp/file")
    two.kubectl("cp", f"{pod}:/tmp/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == body
    assert f'"name":"{pod}"' in two.kubectl("get", "--raw", "/api/v1/nodes/second/proxy/pods")
    metrics = "/apis/metrics.k8s.io/v1beta1"
    two.until(lambda: pod in two.kubectl("get", "--raw", f"{metrics}/namespaces/default/pods"), "figures of the pod")
    two.until(lambda: "second" in two.kubectl("get", "--raw", f"{metrics}/nodes"), "figures of the node")
    assert pod in two.kubectl("top", "pods")
    assert "second" in two.kubectl("top", "nodes")


def test_a_port_of_a_pod_on_the_second_machine_is_forwarded(two: TwoNodes) -> None:
    command = ["kubectl", "--kubeconfig", str(two.kubeconfig), "port-forward", "pod/web-second", f":{PORT}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
        assert forwarding.stdout
        port = forwarding.stdout.readline().split("127.0.0.1:")[1].split()[0]
        try:
            found = subprocess.check_output(["curl", "-sS", "-m", "20", f"http://127.0.0.1:{port}/"], text=True)
            assert found.strip() == "second"
        finally:
            forwarding.terminate()


def test_a_log_is_followed_on_the_second_machine(two: TwoNodes) -> None:
    command = ["kubectl", "--kubeconfig", str(two.kubeconfig), "logs", "-f", "--tail", "0", "web-second"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as following:
        assert following.stdout
        descriptor, seen = following.stdout.fileno(), b""

        def is_told() -> bool:
            nonlocal seen
            ask(two, "web-second", "127.0.0.1", PORT)
            if select.select([descriptor], [], [], 0.1)[0]:
                seen += os.read(descriptor, 65536)
            return b"127.0.0.1" in seen

        try:
            two.until(is_told, "a line of the log")
        finally:
            following.terminate()


def test_a_claim_gets_its_folder_on_the_machine_of_its_pod(two: TwoNodes) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    pod = server("keeps", "second")
    del pod["spec"]["nodeName"]
    pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "second"}
    pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    apply(two, claim, pod)
    two.kubectl("wait", "--for=condition=Ready", "pod/keeps", "--timeout=30s")
    two.kubectl("exec", "keeps", "--", "sh", "-c", "echo kept >/data/file")
    (folder,) = (two.node_data / "volumes").iterdir()
    assert (folder / "file").read_text() == "kept\n"
    two.kubectl("delete", "pod/keeps", "pvc/data")
    two.until(lambda: not folder.exists(), "the folder's end")


def containers(two: TwoNodes) -> dict[str, tuple[str, int]]:
    pods = two.get("pods", "-l", "app=web")["items"]
    statuses = {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0] for pod in pods}
    return {name: (status["containerID"], status["restartCount"]) for name, status in statuses.items()}


def test_a_killed_node_process_ends_nothing_and_comes_back_to_its_containers(two: TwoNodes) -> None:
    there = containers(two)
    port = two.get("service", "outside")["spec"]["ports"][0]["nodePort"]
    os.kill(two.pids["second"], signal.SIGKILL)
    two.until(lambda: two.second("status", check=False).returncode == 3, "the process's end")
    assert {ask_from_outside(two, two.addresses["second"], port) for _ in range(ASKED)} == set(NODES)
    fault = two.kubectl("exec", "web-second", "--", "hostname", code=1, both=True)
    assert "node second can't be reached" in fault
    two.join()
    assert "ready" in two.second("status").stdout
    assert containers(two) == there
    assert two.kubectl("exec", "web-second", "--", "hostname").strip() == "web-second"


def test_a_node_goes_on_while_the_api_server_is_away(two: TwoNodes) -> None:
    there = containers(two)
    port = two.get("service", "outside")["spec"]["ports"][0]["nodePort"]
    os.kill(two.pids["first"], signal.SIGKILL)
    two.until(lambda: two.knarr("status", check=False).returncode == 3, "the process's end")
    assert {ask_from_outside(two, two.addresses["second"], port) for _ in range(ASKED)} == set(NODES)
    assert "ready" in two.second("status").stdout
    two.pids["first"] = two.up()
    assert containers(two) == there
    apply(two, server("later", "second"))
    two.kubectl("wait", "--for=condition=Ready", "pod/later", "--timeout=40s")
    assert two.kubectl("exec", "later", "--", "hostname").strip() == "later"
    two.kubectl("delete", "pod", "later")


def test_pods_of_a_machine_that_is_lost_are_replaced_on_another(two: TwoNodes) -> None:
    if two.proxy_mode != "nftables":
        pytest.skip("takes a minute, and says nothing about service rules: once is enough")
    away = [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
        for key in ("unreachable", "not-ready")
    ]
    template = server("", "")
    spec = {**template["spec"], "tolerations": away, "affinity": {}}
    del spec["nodeName"]
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "spread"}},
        }
    ]
    labels = {"app": "spread"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "spread"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
    apply(two, deployment)
    two.kubectl("rollout", "status", "deploy/spread", "--timeout=40s")

    def where(*, ready: bool) -> list[str]:
        pods = two.get("pods", "-l", "app=spread")["items"]
        found = []
        for pod in pods:
            conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
            if not ready or (conditions.get("Ready") == "True" and not pod["metadata"].get("deletionTimestamp")):
                found.append(pod["spec"].get("nodeName", ""))
        return sorted(found)

    assert where(ready=True) == list(NODES)
    os.kill(two.pids["second"], signal.SIGKILL)

    def status() -> str:
        conditions = two.get("node", "second")["status"]["conditions"]
        return str(next(each["status"] for each in conditions if each["type"] == "Ready"))

    deadline = time.monotonic() + 150
    while status() != "Unknown" or where(ready=True) != ["first", "first"]:
        assert time.monotonic() < deadline, (status(), where(ready=True))
        time.sleep(0.5)
    taints = {each["key"] for each in two.get("node", "second")["spec"]["taints"]}
    assert "node.kubernetes.io/unreachable" in taints

    two.join()
    two.until(lambda: status() == "True", "the node's return")
    two.until(lambda: where(ready=False) == ["first", "first"], "the end of what was replaced")
    two.kubectl("delete", "deploy", "spread")


def test_a_machine_that_ends_in_order_is_waited_for_by_nobody(two: TwoNodes) -> None:
    """Its leases as a data plane go at once; one that was killed is waited for until they run out."""

    def leases() -> set[str]:
        return {each["metadata"]["name"] for each in two.get("leases", "-n", "kube-system")["items"]}

    two.until(lambda: {"data-plane.first", "data-plane.second"} <= leases(), "the leases of both")
    two.second("down", "--keep")
    assert "data-plane.second" in leases(), "its rules are still there"
    two.join()
    two.until(lambda: "data-plane.second" in leases(), "its lease")
    two.second("down")
    assert "data-plane.second" not in leases()
    assert "data-plane.first" in leases()


def test_pods_have_addresses_of_both_families_and_reach_each_other_by_both(tmp_path: Path) -> None:
    run = started(TwoNodes(tmp_path, dual=True))
    two = next(run)
    try:
        apply(two, *(server(f"web-{name}", name, app="web") for name in NODES))
        two.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=40s")
        ips = {name: pod_ips(two, f"web-{name}") for name in NODES}
        for name in NODES:
            version4, version6 = ips[name]
            assert "." in version4
            assert version6.startswith(two.net6)
            hosts = [each["ip"] for each in two.get("pod", f"web-{name}")["status"]["hostIPs"]]
            assert hosts[0] == two.addresses[name]
            assert len(two.get("node", name)["spec"]["podCIDRs"]) == 2
        assert two.get("pod", "web-second")["status"]["hostIPs"][1]["ip"] == f"{two.net6}::2"
        for here in NODES:
            for there in NODES:
                version4, version6 = ips[there]
                reaches(two, f"web-{here}", version4, there)
                reaches(two, f"web-{here}", f"[{version6}]", there)
                two.kubectl("exec", f"web-{here}", "--", "ping", "-c", "1", "-w", "30", version6)
    finally:
        assert next(run, None) is None
