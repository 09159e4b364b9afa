"""No request is lost on two machines, whoever asks and whichever of them is asked, in both address families.

The application has no preStop. It is asked from the LAN at the node ports of both machines, and from the second machine
at its cluster IPs: by the rules of the machine that the ending pods are not on as well as by their own.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.e2e.apart import Apart
from tests.e2e.conftest import TOOLS
from tests.e2e.constant_load import constant_load
from tests.e2e.packets import OPEN, Ask, answers
from tests.e2e.test_truth_under_change import REPLICAS, SERVER, application, failures
from tests.e2e.two_nodes import NODES

SPACE = "drained"
RATE = 500
DRAIN_S_MAX = 3.0
"""Half of a grace period."""


class Web:
    """The application, ready, behind a Service of both families."""

    def __init__(self, cluster: Apart) -> None:
        self.cluster = cluster
        cluster.kubectl("create", "namespace", SPACE)
        self.kubectl("create", "configmap", "server", f"--from-literal=polite_server.py={SERVER}")
        spec = {"type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "selector": {"app": "web"}}
        spec["ports"] = [{"name": "http", "port": 80, "targetPort": "http"}]
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
        self.kubectl("create", "-f", "-", given=json.dumps(service))
        self.becomes("v1")
        made = cluster.get("service", "web", "-n", SPACE)["spec"]
        self.cluster_ips = made["clusterIPs"]
        self.node_port = made["ports"][0]["nodePort"]

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return self.cluster.kubectl("-n", SPACE, *arguments, given=given)

    def becomes(self, text: str) -> None:
        self.kubectl("apply", "-f", "-", given=json.dumps(application(TOOLS, text, {}, {})))
        self.kubectl("rollout", "status", "deploy/web", "--timeout=55s")

    def pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.cluster.get("pods", "-n", SPACE)["items"]
        return found

    def settle(self) -> None:
        """Until those that end have ended, and those that begin are ready."""
        self.cluster.until(lambda: len(self.pods()) == REPLICAS, "the pods")
        self.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=40s")

    def outside(self, node: str) -> list[str]:
        return [self.cluster.addresses[node], self.cluster.addresses6[node]]

    @contextmanager
    def under_load(self) -> Iterator[dict[str, Any]]:
        """What is done inside meets constant load; afterwards the result of each target is in the dictionary."""
        ports = [
            {"name": f"node port at {address}", "host": address, "port": self.node_port}
            for node in NODES
            for address in self.outside(node)
        ]
        inside = [{"name": f"cluster IP {address}", "host": address, "port": 80} for address in self.cluster_ips]
        result: dict[str, Any] = {"targets": {}, "rate": 0}
        with ExitStack() as stack:
            loads = [
                stack.enter_context(constant_load(RATE / 2, targets, ("nsenter", f"--net={self.cluster.path(where)}")))
                for where, targets in (("client", ports), ("second", inside))
            ]
            yield result
        for each in loads:
            result["targets"] |= each["targets"]
            result["rate"] += each["rate"]


@pytest.fixture(scope="module")
def web(apart: Apart) -> Iterator[Web]:
    yield Web(apart)
    apart.kubectl("delete", "namespace", SPACE, "--wait=false")


def test_a_rolling_update_loses_no_request_from_the_lan_or_by_the_other_machines_rules(web: Web) -> None:
    assert {pod["spec"]["nodeName"] for pod in web.pods()} == set(NODES)
    with web.under_load() as result:
        web.becomes("v2")
        web.settle()
    assert failures(result) == {}
    assert len(result["targets"]) == 12
    for told in result["targets"].values():
        assert set(told["bodies"]) == {"v1", "v2"}
    assert result["rate"] > RATE * 0.9
    print({name: (told["answered"], told["p99_ms"]) for name, told in result["targets"].items()})


def test_a_dead_agent_holds_up_a_pods_end_for_its_bound_and_its_rules_follow_when_it_is_back(web: Web) -> None:
    """In between they lead to the pod that is gone, as those of a dead kube-proxy do."""
    asks = [Ask(web.cluster.path("client"), address, web.node_port) for address in web.outside("second")]

    def at_second() -> set[str]:
        """Each family's endpoints in turn, each at least once."""
        return {told for _ in range(REPLICAS) for told in answers(asks).values()}

    web.cluster.until(lambda: at_second() == {OPEN}, "rules that lead to pods alone")
    os.kill(web.cluster.pids["second"], signal.SIGKILL)
    web.cluster.until(lambda: web.cluster.second("status", check=False).returncode == 3, "the process's end")
    ending = next(pod["metadata"]["name"] for pod in web.pods() if pod["spec"]["nodeName"] == "first")
    began_s = time.monotonic()
    web.kubectl("delete", "pod", ending, f"--grace-period={2 * DRAIN_S_MAX:.0f}")
    assert time.monotonic() - began_s > DRAIN_S_MAX

    def told() -> list[str]:
        events = web.cluster.get("events", "-n", SPACE)["items"]
        ours = [each for each in events if each["involvedObject"]["name"] == ending]
        return [each["message"] for each in ours if each["reason"] == "NotDrained"]

    (message,) = web.cluster.until(told, "an event")
    assert message.endswith("not confirmed within 3 s by data-plane.second")
    assert at_second() != {OPEN}
    web.cluster.join()
    web.settle()
    web.cluster.until(lambda: at_second() == {OPEN}, "rules without the pod that ended")
