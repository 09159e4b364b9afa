"""A pod's end waits for the rules of every machine, and not for a machine that is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import TOOLS
from tests.e2e.test_truth_under_change import INGRESS_PORT, REPLICAS, Application, failures
from tests.e2e.two_nodes import NODES, TwoNodes, started

LEASE_S = 15


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    made = TwoNodes(tmp_path_factory.mktemp("two"))
    made.flags += ["--ingress-http-port", str(INGRESS_PORT), "--ingress-https-port", "0"]
    yield from started(made)


@pytest.fixture
def web(two: TwoNodes, request: pytest.FixtureRequest) -> Iterator[Application]:
    application = Application(two, TOOLS, f"drain-{len(request.node.name)}")
    application.start()
    yield application
    two.kubectl("delete", "namespace", application.namespace)  # until it is gone: the next one has the same node port


def told(web: Application, pod: str) -> tuple[str, str]:
    """Whether a pod's end was waited for in vain, and what the event about that says."""

    def found() -> list[tuple[str, str]]:
        events = web.cluster.get("events", "-n", web.namespace)["items"]
        ours = [each for each in events if each["involvedObject"]["name"] == pod]
        return [(each["reason"], each["message"]) for each in ours if each["reason"] in ("Drained", "NotDrained")]

    (one,) = web.cluster.until(found, f"an event about the end of {pod}")
    return str(one[0]), str(one[1])


def test_a_rolling_update_over_two_machines_loses_no_request(web: Application) -> None:
    leases = web.cluster.get("leases", "-n", "kube-system", "-l", "knarr.dev/data-plane=data-plane")["items"]
    assert sorted(each["metadata"]["name"] for each in leases) == [f"data-plane.{name}" for name in NODES]
    assert {pod["spec"]["nodeName"] for pod in web.pods()} == set(NODES)
    with web.under_load() as result:
        web.becomes("v2")
        web.settle(REPLICAS)
    assert failures(result) == {}
    ways = {f"{way} of {name}, new connections" for way in ("node port", "ingress") for name in NODES}
    assert ways <= result["targets"].keys()


def test_a_machine_that_says_nothing_holds_up_nobody_for_longer_than_the_bound(web: Application, two: TwoNodes) -> None:
    here = [pod["metadata"]["name"] for pod in web.pods() if pod["spec"]["nodeName"] == "first"]
    assert len(here) >= 2
    os.kill(two.pids["second"], signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        web.kubectl("delete", "pod", here[0], "--grace-period=6")
        assert time.monotonic() - began_s > 3.0  # half of the grace period
        reason, message = told(web, here[0])
        assert reason == "NotDrained"
        assert message.endswith("not confirmed within 3 s by data-plane.second, edge.second")
        time.sleep(max(0.0, began_s + LEASE_S + 2.0 - time.monotonic()))
        web.kubectl("delete", "pod", here[1])
        assert told(web, here[1])[0] == "Drained"
    finally:
        os.kill(two.pids["second"], signal.SIGCONT)
