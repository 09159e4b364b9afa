"""Small rules of the node: back-off, amounts, names, probes' tallies, patches of a status."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Container, Pod, PodSpec, PodStatus
from knarr.node.back_off import BackOff, shown
from knarr.node.name_files import (
    ResolverConfiguration,
    host_name,
    hosts_file,
    parse_resolv_conf,
    resolver_configuration,
)
from knarr.node.probes import Tally
from knarr.node.resources import container_resources, oom_score_adj, pod_bounds, qos_class
from knarr.node.status_writer import patch_of, plain


def test_back_off_doubles_to_five_minutes_and_forgets() -> None:
    back_off, now_s, waits = BackOff(), 1000.0, []
    for _ in range(8):
        due_s = back_off.until_s(now_s, now_s)
        waits.append(due_s - now_s)
        now_s = due_s
        back_off.tried(now_s)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    quiet_s = now_s + 601
    assert back_off.until_s(quiet_s, quiet_s) == quiet_s
    back_off.tried(quiet_s)
    assert back_off.delay_s == 10
    assert [shown(each) for each in (10, 60, 80, 300)] == ["10s", "1m0s", "1m20s", "5m0s"]


def spec(*containers: dict[str, Any], **fields: Any) -> PodSpec:
    named = [{"name": f"c{number}", "resources": each} for number, each in enumerate(containers)]
    return msgspec.convert({"containers": named, **fields}, PodSpec)


BOTH = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}


@pytest.mark.parametrize(
    ("containers", "level"),
    [
        (({},), "BestEffort"),
        (({}, {"requests": {"ephemeral-storage": "1Gi"}}), "BestEffort"),
        ((BOTH,), "Guaranteed"),
        ((BOTH, {"limits": BOTH["limits"]}), "Guaranteed"),
        ((BOTH, {}), "Burstable"),
        (({"requests": {"cpu": "1"}},), "Burstable"),
        (({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},), "Burstable"),
    ],
)
def test_quality_of_service(containers: tuple[dict[str, Any], ...], level: str) -> None:
    assert qos_class(spec(*containers)) == level


@pytest.mark.parametrize(
    ("given", "shares", "quota_us", "memory"),
    [
        ({}, 2, None, None),
        ({"requests": {"cpu": "250m"}}, 256, None, None),
        ({"limits": {"cpu": "1500m", "memory": "64Mi"}}, 1536, 150_000, 64 << 20),
        ({"limits": {"cpu": "1"}, "requests": {"cpu": "0"}}, 2, 100_000, None),
        ({"limits": {"cpu": "1m"}}, 2, 1000, None),
        ({"requests": {"cpu": "1000"}}, 262144, None, None),
    ],
)
def test_bounds_of_a_container(given: dict[str, Any], shares: int, quota_us: int | None, memory: int | None) -> None:
    found = container_resources(msgspec.convert({"name": "c", "resources": given}, Container))
    assert (found.cpu_shares, found.cpu_quota_us, found.memory_limit_bytes) == (shares, quota_us, memory)


def test_bounds_of_a_pod_are_of_what_runs_at_once() -> None:
    init = {"name": "init", "resources": {"limits": {"cpu": "4", "memory": "1Gi"}}}
    side = {"name": "side", "restartPolicy": "Always", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}
    one = {"limits": {"cpu": "1", "memory": "1Gi"}}
    bounds = pod_bounds(spec(one, one, initContainers=[side, init]))
    assert (bounds.cpu_shares, bounds.cpu_quota_us, bounds.memory_limit_bytes) == (5 * 1024, 500_000, 3 << 30)
    assert pod_bounds(spec(one, {})).memory_limit_bytes is None, "one without a limit leaves the pod without"


def test_who_is_killed_first_when_memory_runs_out() -> None:
    node = 10 << 30
    burstable = spec({"requests": {"memory": "1Gi"}}, {})
    assert oom_score_adj(spec(BOTH), spec(BOTH).containers[0], node) == -997
    assert oom_score_adj(spec({}), spec({}).containers[0], node) == 1000
    assert [oom_score_adj(burstable, each, node) for each in burstable.containers] == [900, 999]


def pod(**fields: Any) -> Pod:
    return msgspec.convert(
        {"metadata": {"name": "web-0", "namespace": "shop"}, "spec": {"containers": [], **fields}}, Pod
    )


NODE = ResolverConfiguration(["192.0.2.53"], ["corp.example"], ["timeout:1"])


@pytest.mark.parametrize(
    ("fields", "servers", "searches", "options"),
    [
        (
            {},
            ["10.96.0.10"],
            ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"],
            ["ndots:5"],
        ),
        ({"dnsPolicy": "Default"}, NODE.servers, NODE.searches, NODE.options),
        ({"hostNetwork": True}, NODE.servers, NODE.searches, NODE.options),
        (
            {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
            ["10.96.0.10"],
            ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"],
            ["ndots:5"],
        ),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {
                    "nameservers": ["1.1.1.1"],
                    "searches": ["a.example"],
                    "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}],
                },
            },
            ["1.1.1.1"],
            ["a.example"],
            ["ndots:1", "edns0"],
        ),
    ],
)
def test_resolver(fields: dict[str, Any], servers: list[str], searches: list[str], options: list[str]) -> None:
    found = resolver_configuration(pod(**fields), NODE, ["10.96.0.10"], "cluster.local")
    assert (found.servers, found.searches, found.options) == (servers, searches, options)


def test_resolv_conf_is_read_and_written() -> None:
    text = "# made\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a.example b.example.\noptions ndots:2 rotate\n"
    found = parse_resolv_conf(text)
    assert (found.servers, found.searches) == (["10.0.0.1", "10.0.0.2"], ["a.example", "b.example"])
    assert parse_resolv_conf(found.text()) == found
    many = ResolverConfiguration([f"10.0.0.{number}" for number in range(9)])
    assert many.text().count("nameserver") == 3, "libc reads no more"


def test_host_names() -> None:
    assert host_name(pod()) == "web-0"
    assert host_name(pod(hostname="db")) == "db"
    long = msgspec.convert({"metadata": {"name": "x" * 62 + "-long"}, "spec": {"containers": []}}, Pod)
    assert host_name(long) == "x" * 62
    text = hosts_file(pod(hostname="db", subdomain="set"), ["10.1.2.3", "fd00::3"], "cluster.local")
    assert "10.1.2.3\tdb.set.shop.svc.cluster.local\tdb\nfd00::3\tdb.set.shop.svc.cluster.local\tdb\n" in text


@pytest.mark.parametrize(
    ("results", "verdicts"),
    [
        ("+", [True]),
        ("---", [None, None, False]),
        ("--+--", [None, None, None, None, None]),
        ("++---+++", [None, True, True, True, False, False, True, True]),
    ],
)
def test_a_probe_says_what_a_row_of_results_says(results: str, verdicts: list[bool | None]) -> None:
    successes = 1 if results == "+" else 2
    tally = Tally(successes, 3)
    assert [tally.add(result == "+") for result in results] == verdicts


def status(**fields: Any) -> dict[str, Any]:
    return plain(msgspec.convert(fields, PodStatus))


def test_a_status_patch_holds_only_what_has_changed() -> None:
    before = status(
        phase="Running",
        message="old",
        podIPs=[{"ip": "10.0.0.1"}],
        conditions=[
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
            {"type": "Initialized", "status": "True"},
            {"type": "example.com/gate", "status": "True"},
        ],
    )
    after = status(
        phase="Running",
        podIPs=[{"ip": "10.0.0.2"}],
        conditions=[{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}],
    )
    assert patch_of(before, before) == {}
    assert patch_of(before, after) == {
        "message": None,
        "podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.2"}],
        "conditions": [{"type": "Ready", "status": "True", "reason": None}],
        "$setElementOrder/conditions": [{"type": "Ready"}, {"type": "Initialized"}],
    }
