"""Ingress at every machine's address: the one that joined serves as the first does, whatever happens to either."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from knarr.edge.ingress.terms import PATH
from knarr.network.netlink import entered
from tests.e2e.apart import Apart
from tests.e2e.conftest import TOOLS
from tests.e2e.constant_load import constant_load
from tests.e2e.test_truth_under_change import REPLICAS, SERVER, application
from tests.e2e.two_nodes import NODES, started
from tests.edge.ingress.objects import tls_secret

HOST = "shop.example"
AGENT_PORT = 10350
RATE = 400
NOBODY = "no healthy upstream|503"
LEASE_S = 15.0
"""A machine that says nothing for so long is taken for gone."""
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"


class Machines(Apart):
    """The second's agent answers where nobody would look for it."""

    def second(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        more = ("--port", str(AGENT_PORT)) if arguments[0] == "node" else ()
        return super().second(*arguments, *more, check=check)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """An application on both machines, and an Ingress with TLS that leads to it."""
    run = started(Machines(tmp_path_factory.mktemp("two")))
    cluster = next(run)
    try:
        cluster.kubectl("create", "configmap", "server", f"--from-literal=polite_server.py={SERVER}")
        spec = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
        apply(cluster, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
        apply(cluster, application(TOOLS, "v1", {}, {}), secret(), ingress("shop", HOST, "web"))
        cluster.kubectl("rollout", "status", "deploy/web", "--timeout=55s")
        yield cluster
    finally:
        assert next(run, None) is None


def apply(cluster: Machines, *objects: dict[str, Any]) -> None:
    cluster.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def secret() -> dict[str, Any]:
    """With a new pair each time."""
    data = {name: base64.b64encode(each).decode() for name, each in tls_secret("shop", HOST).data.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "shop"},
        "type": "kubernetes.io/tls",
        "data": data,
    }


def ingress(name: str, host: str, service: str, **annotations: str) -> dict[str, Any]:
    backend = {"service": {"name": service, "port": {"name": "http"}}}
    rule = {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    spec = {"rules": [rule], "tls": [{"hosts": [host], "secretName": "shop"}]}
    metadata = {"name": name, "annotations": {"knarr.dev/ssl-redirect": "false", **annotations}}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec}


def asked(cluster: Machines, address: str, host: str = HOST, *, tls: bool = False, said: str = "%{http_code}") -> str:
    """What the client is answered by name at an address: the body, and what curl says of it."""
    port = cluster.ingress_ports[tls]
    place = f"[{address}]" if ":" in address else address
    command = ["curl", "-sk", "-m", "20", "--resolve", f"{host}:{port}:{place}", "-w", f"|{said}"]
    enter = ["nsenter", f"--net={cluster.path('client')}"]
    done = subprocess.run(
        [*enter, *command, f"http{'s' * tls}://{host}:{port}/"], capture_output=True, text=True, timeout=40, check=False
    )
    return done.stdout.replace("\n", "")


def serial(cluster: Machines, address: str, host: str = HOST) -> str:
    """Of the certificate that is shown there."""
    told = asked(cluster, address, host, tls=True, said="%{certs}")
    return next((line for line in told.split("Serial Number:")[1:]), "")[:40]


def addresses(cluster: Machines) -> list[str]:
    """Of the Ingress' status."""
    status = cluster.get("ingress", "shop").get("status", {})
    return [each["ip"] for each in status.get("loadBalancer", {}).get("ingress", [])]


def all_of(cluster: Machines, *names: str) -> list[str]:
    """The addresses of nodes, of both families."""
    nodes = {each["metadata"]["name"]: each["status"]["addresses"] for each in cluster.get("nodes")["items"]}
    found = [each["address"] for name in names for each in nodes[name] if each["type"] == "InternalIP"]
    assert len(found) == 2 * len(names)
    return found


def envoy_of(pid: int) -> int:
    """The Envoy that a process has started; 0 for none."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"envoy" in (path / "cmdline").read_bytes().partition(b"\0")[0]:
                return int(path.name)
        except (OSError, IndexError):
            continue
    return 0


@contextmanager
def somebody_on_the_second(cluster: Machines, port: int) -> Iterator[None]:
    """Who listens there, at every address."""
    with entered(cluster.path("second")):
        listening = socket.socket(socket.AF_INET6)
    with listening:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("::", port))
        listening.listen()
        yield


@contextmanager
def under_load(cluster: Machines) -> Iterator[dict[str, Any]]:
    """What is done inside meets requests at both machines' Envoys; afterwards the result is in the dictionary."""
    port = cluster.ingress_ports[0]
    targets = [{"name": name, "host": cluster.addresses[name], "port": port, "header": HOST} for name in NODES]
    with constant_load(RATE, targets, ("nsenter", f"--net={cluster.path('client')}")) as result:
        yield result


def test_both_machines_serve_by_name_in_both_families_with_and_without_tls(two: Machines) -> None:
    two.until(lambda: addresses(two) == all_of(two, *NODES), "the addresses of both in the status")
    for address in all_of(two, *NODES):
        two.until(lambda: asked(two, address) == "v1|200", f"an answer at {address}")  # noqa: B023
        two.until(lambda: asked(two, address, tls=True) == "v1|200", f"an answer by TLS at {address}")  # noqa: B023
        assert asked(two, address, "other.example").endswith("|404")

    def shown() -> set[str]:
        return {serial(two, address) for address in all_of(two, *NODES)}

    two.until(lambda: len(shown()) == 1 and "" not in shown(), "the same certificate everywhere")
    ours = shown()
    assert serial(two, two.addresses["second"], "other.example") not in ours


def test_what_the_second_machine_does_is_logged_and_counted_there(two: Machines) -> None:
    asked(two, two.addresses["second"])
    log = two.node_data / "logs" / "ingress" / "access.log"

    def logged() -> set[tuple[str, str]]:
        whole, _, _ = log.read_text().rpartition("\n") if log.exists() else ("", "", "")
        lines = [json.loads(line) for line in whole.splitlines()]
        return {(line["client"], line["ingress"]) for line in lines}

    two.until(lambda: (two.client_address, "default/shop") in logged(), "a line in the access log")
    metrics = two.kubectl("get", "--raw", "/api/v1/nodes/second/proxy/metrics")
    assert "knarr_ingress_envoy_starts_total 1.0" in metrics
    assert "kubelet_running_pods" in metrics


def test_a_node_is_handed_certificates_and_can_read_no_secret(two: Machines) -> None:
    """And who may do everything else is handed nothing."""
    pki, server = two.node_data / "pki", f"https://{two.addresses['first']}:{two.port}"
    shown = ["--cert", str(pki / "kubelet-client.crt"), "--key", str(pki / "kubelet-client.key")]
    ask = ["nsenter", f"--net={two.path('second')}", "curl", "-sNk", "-m", "20", *shown]
    secret = f"{server}/api/v1/namespaces/default/secrets/shop"
    refused = json.loads(subprocess.run([*ask, secret], capture_output=True, text=True, check=True).stdout)
    assert (refused["code"], "no relationship found between node 'second'" in refused["message"]) == (403, True)
    lines: list[Any] = []
    with subprocess.Popen([*ask, f"{server}{PATH}"], stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout
        while not lines or "complete" not in lines[-1]:
            lines.append(json.loads(asking.stdout.readline()))
        asking.terminate()
    assert [each["name"] for each in lines if "name" in each] == ["default/shop"]
    assert "certificates of Ingress are for nodes" in two.kubectl("get", "--raw", PATH, code=1, both=True)


def test_a_new_certificate_is_shown_by_both(two: Machines) -> None:
    before = serial(two, two.addresses["first"])
    apply(two, secret())

    def shown() -> set[str]:
        return {serial(two, each) for each in two.addresses.values()}

    two.until(lambda: len(shown()) == 1 and before not in shown(), "the new certificate at both")


def by_hand(name: str, address: str, port: int, **annotations: str) -> list[dict[str, Any]]:
    """A Service with an endpoint that somebody wrote, and an Ingress that leads to it."""
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port}],
        "endpoints": [{"addresses": [address]}],
    }
    spec = {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
    return [service, slice_, ingress(name, f"{name}.example", name, **annotations)]


def test_an_endpoint_that_somebody_wrote_is_served_unless_it_is_the_agent_of_a_machine(two: Machines) -> None:
    """The agent's port is told by the Node alone."""
    pod = two.get("pods", "-l", "app=web")["items"][0]["status"]["podIP"]
    tls = {"knarr.dev/backend-protocol": "HTTPS"}
    apply(two, *by_hand("pod", pod, 8080), *by_hand("agent", two.addresses["second"], AGENT_PORT, **tls))
    for address in two.addresses.values():
        two.until(lambda at=address: asked(two, at, "pod.example") == "v1|200", "an answer of the pod")
        two.until(lambda at=address: asked(two, at, "agent.example") == NOBODY, "that the agent is none")
    two.kubectl("delete", "ingress,service", "pod", "agent")


def test_a_rolling_update_loses_no_request_at_either_without_any_pre_stop(two: Machines) -> None:
    assert {pod["spec"]["nodeName"] for pod in two.get("pods", "-l", "app=web")["items"]} == set(NODES)
    with under_load(two) as result:
        apply(two, application(TOOLS, "v2", {}, {}))
        two.kubectl("rollout", "status", "deploy/web", "--timeout=55s")
        two.until(lambda: len(two.get("pods", "-l", "app=web")["items"]) == REPLICAS, "that old pods have ended")
    assert {name: told["failures"] for name, told in result["targets"].items() if told["failed"]} == {}
    assert len(result["targets"]) == 4
    for told in result["targets"].values():
        assert set(told["bodies"]) == {"v1", "v2"}


def test_a_pods_end_waits_for_the_envoy_of_the_second_machine_and_not_for_longer_than_the_bound(two: Machines) -> None:
    pod = two.get("pods", "-l", "app=web")["items"][0]["metadata"]["name"]
    envoy = envoy_of(two.pids["second"])
    os.kill(envoy, signal.SIGSTOP)
    try:
        two.kubectl("delete", "pod", pod, "--grace-period=6")
    finally:
        os.kill(envoy, signal.SIGCONT)

    def told() -> list[str]:
        events = [each for each in two.get("events")["items"] if each["involvedObject"]["name"] == pod]
        return [each["message"] for each in events if each["reason"] in ("Drained", "NotDrained")]

    (message,) = two.until(told, "an event about its end")
    assert message.endswith("not confirmed within 3 s by edge.second")
    two.until(lambda: asked(two, two.addresses["second"]).endswith("|200"), "that it serves on")


def test_an_envoy_that_is_killed_is_back_at_once_even_while_the_first_machine_is_away(two: Machines) -> None:
    there = two.addresses["second"]
    os.kill(two.pids["first"], signal.SIGSTOP)
    try:
        before = envoy_of(two.pids["second"])
        os.kill(before, signal.SIGKILL)
        killed_s = time.monotonic()
        two.until(lambda: asked(two, there, tls=True).endswith("|200"), "that it serves again")
        print(f"back after {(time.monotonic() - killed_s) * 1000:.0f} ms")
        assert envoy_of(two.pids["second"]) not in (0, before)
    finally:
        os.kill(two.pids["first"], signal.SIGCONT)
    two.until(lambda: addresses(two) == all_of(two, *NODES), "both machines' addresses")


def test_a_machine_that_is_not_to_serve_does_not_until_it_is_again(two: Machines) -> None:
    there = two.addresses["second"]
    two.kubectl("label", "node", "second", f"{EXCLUDED}=")
    two.until(lambda: addresses(two) == all_of(two, "first"), "the first machine's addresses alone")
    two.until(lambda: asked(two, there) == "|000", "that nobody listens there")
    assert asked(two, two.addresses["first"]).endswith("|200")
    two.kubectl("label", "node", "second", f"{EXCLUDED}-")
    two.until(lambda: asked(two, there, tls=True).endswith("|200"), "that it serves again")
    two.until(lambda: addresses(two) == all_of(two, *NODES), "both machines' addresses")


def test_envoy_ends_with_its_node_and_comes_back_with_it(two: Machines) -> None:
    envoy = envoy_of(two.pids["second"])
    os.kill(two.pids["second"], signal.SIGKILL)
    two.until(lambda: not Path(f"/proc/{envoy}").exists(), "that Envoy has ended")
    assert asked(two, two.addresses["first"]).endswith("|200")
    port = two.ingress_ports[0]
    with somebody_on_the_second(two, port):
        two.join()
        two.until(lambda: asked(two, two.addresses["second"], tls=True).endswith("|200"), "that it serves again")
        told = f"node second, port {port}: Address already in use; it is tried again"
        two.until(lambda: told in two.kubectl("describe", "ingress", "shop"), "an event about the port")
    two.until(lambda: addresses(two) == all_of(two, *NODES), "both machines' addresses")


def test_a_machine_that_ends_in_order_is_out_of_the_status_at_once(two: Machines) -> None:
    envoy = envoy_of(two.pids["second"])
    two.second("down")
    assert not Path(f"/proc/{envoy}").exists()
    assert [each.name for each in (two.node_data / "logs" / "ingress").iterdir()] == ["access.log"]
    began_s = time.monotonic()
    two.until(lambda: addresses(two) == all_of(two, "first"), "the first machine's addresses alone")
    assert time.monotonic() - began_s < LEASE_S, "by word, not by silence"
