"""What the service rules must do: kube-proxy's choices, as tables."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.core.v1 import (
    ClientIPConfig,
    LoadBalancerIngress,
    LoadBalancerStatus,
    ServiceStatus,
    SessionAffinityConfig,
)
from knarr.api.discovery.v1 import Endpoint, EndpointHints, ForNode, ForZone
from knarr.network.netlink import TrackedConnection
from knarr.network.proxy.conntrack import stale_flows
from knarr.network.proxy.mode import short_hash
from knarr.network.proxy.model import (
    HealthCheck,
    NodeView,
    PortRules,
    Verdict,
    health_check,
    may_lead_to,
    refused_addresses,
    service_rules,
)
from knarr.network.proxy.node_ports import answering_addresses
from tests.network.proxy.objects import ELSEWHERE, NODE, balanced, endpoint, endpoint_slice, service

HERE = NodeView(NODE, zone="north")
READY = endpoint("10.0.0.1")
READY_ELSEWHERE = endpoint("10.0.0.2", node=ELSEWHERE)
ENDING = endpoint("10.0.0.3", ready=False, terminating=True)
ENDING_ELSEWHERE = endpoint("10.0.0.4", node=ELSEWHERE, ready=False, terminating=True)
DEAD = endpoint("10.0.0.5", ready=False, serving=False, terminating=True)
STARTING = endpoint("10.0.0.6", ready=False, serving=False)
UNKNOWN = Endpoint(addresses=["10.0.0.7"], node_name=NODE)


def rules(*endpoints: Endpoint, node: NodeView = HERE, **spec: Any) -> PortRules:
    (found,) = service_rules(service(**spec), [endpoint_slice(*endpoints)], node)
    return found


def last_octets(endpoints: Any) -> list[int]:
    return [int(each.address.rpartition(".")[2]) for each in endpoints]


@pytest.mark.parametrize(
    ("endpoints", "everywhere", "here"),
    [
        ([], [], []),
        ([READY, READY_ELSEWHERE], [1, 2], [1]),
        ([READY, ENDING, DEAD, STARTING], [1], [1]),
        ([ENDING, DEAD], [3], [3]),
        ([READY_ELSEWHERE, ENDING], [2], [3]),
        ([ENDING_ELSEWHERE], [4], []),
        ([DEAD, STARTING], [], []),
        ([UNKNOWN], [7], [7]),
        ([READY_ELSEWHERE, READY, READY], [1, 2], [1]),
    ],
)
def test_ready_endpoints_are_used_and_serving_ones_that_end_when_there_are_none(
    endpoints: list[Endpoint], everywhere: list[int], here: list[int]
) -> None:
    found = rules(*endpoints)
    assert last_octets(found.cluster_endpoints) == everywhere
    assert last_octets(found.local_endpoints) == here


@pytest.mark.parametrize(
    ("endpoints", "policy", "internal", "external"),
    [
        ([READY], {}, Verdict.FORWARD, Verdict.FORWARD),
        ([], {}, Verdict.REJECT, Verdict.REJECT),
        ([DEAD], {}, Verdict.REJECT, Verdict.REJECT),
        ([READY_ELSEWHERE], {}, Verdict.FORWARD, Verdict.FORWARD),
        ([READY_ELSEWHERE], {"external_traffic_policy": "Local"}, Verdict.FORWARD, Verdict.DROP),
        ([READY_ELSEWHERE], {"internal_traffic_policy": "Local"}, Verdict.DROP, Verdict.FORWARD),
        ([], {"internal_traffic_policy": "Local"}, Verdict.REJECT, Verdict.REJECT),
        ([READY], {"internal_traffic_policy": "Local"}, Verdict.FORWARD, Verdict.FORWARD),
    ],
)
def test_policies_decide_between_forward_reject_and_drop(
    endpoints: list[Endpoint], policy: dict[str, str], internal: Verdict, external: Verdict
) -> None:
    found = rules(*endpoints, node_port=30080, **policy)
    assert (found.internal, found.external) == (internal, external)


@pytest.mark.parametrize(
    "other",
    [
        service(cluster_ip="None"),
        service(cluster_ip=""),
        service(type="ExternalName", external_name="example.org"),
        service(cluster_ip="10.96.0.10"),
    ],
)
def test_some_services_need_no_rules(other: Any) -> None:
    node = NodeView(NODE, own_addresses=frozenset({"10.96.0.10"}))
    assert service_rules(other, [endpoint_slice(READY)], node) == ()


def test_a_service_of_another_proxy_is_left_alone() -> None:
    other = service()
    other.metadata.labels["service.kubernetes.io/service-proxy-name"] = "another"
    assert service_rules(other, [endpoint_slice(READY)], HERE) == ()


def test_ports_are_matched_by_name_and_protocol() -> None:
    found = service_rules(
        service(port_name="http"),
        [
            endpoint_slice(endpoint("10.0.0.1"), name="a", port_name="http", port=8080),
            endpoint_slice(endpoint("10.0.0.2"), name="b", port_name="metrics", port=9090),
            endpoint_slice(endpoint("10.0.0.3"), name="c", port_name="http", protocol="UDP"),
            endpoint_slice(endpoint("10.0.0.4"), name="d", port_name="http", port=8081),
        ],
        HERE,
    )
    assert [str(each) for each in found[0].cluster_endpoints] == ["10.0.0.1:8080", "10.0.0.4:8081"]
    assert (found[0].name, found[0].protocol) == ("default/web:http", "tcp")


def hinted(address: str, *, zones: list[str] | None = None, nodes: list[str] | None = None) -> Endpoint:
    made = endpoint(address)
    made.hints = EndpointHints(
        for_zones=[ForZone(name=each) for each in zones or []], for_nodes=[ForNode(name=each) for each in nodes or []]
    )
    return made


@pytest.mark.parametrize(
    ("endpoints", "used"),
    [
        ([hinted("10.0.0.1", zones=["north"]), hinted("10.0.0.2", zones=["south"])], [1]),
        ([hinted("10.0.0.1", zones=["south"]), hinted("10.0.0.2", zones=["south"])], [1, 2]),
        ([hinted("10.0.0.1", zones=["north"]), READY_ELSEWHERE], [1, 2]),
        ([hinted("10.0.0.1", nodes=[NODE]), hinted("10.0.0.2", nodes=[ELSEWHERE])], [1]),
        ([hinted("10.0.0.1", zones=["north"], nodes=[ELSEWHERE]), hinted("10.0.0.2", nodes=[NODE])], [2]),
    ],
)
def test_hints_narrow_the_choice_when_all_have_them(endpoints: list[Endpoint], used: list[int]) -> None:
    assert last_octets(rules(*endpoints).cluster_endpoints) == used


def test_affinity_has_a_timeout() -> None:
    configured = SessionAffinityConfig(client_ip=ClientIPConfig(timeout_seconds=60))
    assert rules().affinity_timeout_s == 0
    assert rules(session_affinity="ClientIP").affinity_timeout_s == 10_800
    assert rules(session_affinity="ClientIP", session_affinity_config=configured).affinity_timeout_s == 60


def test_only_addresses_that_packets_arrive_at_count_as_load_balancers() -> None:
    balanced = service(type="LoadBalancer")
    ingress = [
        LoadBalancerIngress(ip="203.0.113.1"),
        LoadBalancerIngress(ip="203.0.113.2", ip_mode="VIP"),
        LoadBalancerIngress(ip="203.0.113.3", ip_mode="Proxy"),
        LoadBalancerIngress(hostname="lb.example.org"),
    ]
    balanced.status = ServiceStatus(load_balancer=LoadBalancerStatus(ingress=ingress))
    (found,) = service_rules(balanced, [], HERE)
    assert found.load_balancer_ips == ("203.0.113.1", "203.0.113.2")


def test_chains_are_named_as_upstream_names_them() -> None:
    # Seen in every cluster: the chains of default/kubernetes:https and kube-system/kube-dns.
    assert short_hash("default/kubernetes:https", "tcp") == "NPX46M4PTMTKRN6Y"
    assert short_hash("kube-system/kube-dns:dns", "udp") == "TCOU7JCQXEZGVUNU"
    assert short_hash("kube-system/kube-dns:dns-tcp", "tcp") == "ERIFXISQEP7F7OF4"


def flow(destination: str, port: int, answered_by: str, answered_port: int) -> TrackedConnection:
    return TrackedConnection(17, destination, port, answered_by, answered_port, b"")


def test_flows_that_no_endpoint_answers_are_stale() -> None:
    (now,) = service_rules(
        service(protocol="UDP", port=53, node_port=30053),
        [endpoint_slice(READY, protocol="UDP", port=5300)],
        HERE,
    )
    good = [
        flow("10.96.0.20", 53, "10.0.0.1", 5300),
        flow("192.0.2.1", 30053, "10.0.0.1", 5300),
        flow("10.96.0.99", 53, "10.0.0.9", 5300),  # another service
        flow("198.51.100.1", 30053, "198.51.100.1", 30053),  # a node port's number on some other machine
    ]
    stale = [
        flow("10.96.0.20", 53, "10.0.0.2", 5300),
        flow("10.96.0.20", 53, "10.0.0.1", 5301),
        flow("10.96.0.20", 53, "10.96.0.20", 53),  # began before there was any endpoint
        flow("192.0.2.1", 30053, "10.0.0.2", 5300),
    ]
    assert stale_flows([*good, *stale], [now], [], {"192.0.2.1"}) == stale
    assert stale_flows(good, [], [now], {"192.0.2.1"}) == good[:2], "of a service that is gone, all are"


def test_each_family_has_rules_of_its_own() -> None:
    dual = service(cluster_ip="10.96.0.20,fd96::20", node_port=30080)
    here = NodeView(NODE, node_port_addresses=("192.0.2.1", "2001:db8::1"))
    slices = [endpoint_slice(READY), endpoint_slice(endpoint("fd00::1"), name="web-6")]
    four, six = service_rules(dual, slices, here)
    assert [str(each) for each in (*four.cluster_endpoints, *six.cluster_endpoints)] == [
        "10.0.0.1:8080",
        "[fd00::1]:8080",
    ]
    assert (four.node_addresses, six.node_addresses) == (("192.0.2.1",), ("2001:db8::1",))


def test_nothing_leads_to_loopback_or_to_a_link() -> None:
    bad = ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"]
    found = rules(*(endpoint(each) for each in bad), READY, external_ips=[*bad, "203.0.113.9"])
    assert last_octets(found.endpoints) == [1]
    assert found.external_ips == ("203.0.113.9",)
    assert not may_lead_to("::ffff:127.0.0.1")
    assert refused_addresses(service(external_ips=["fe80::1"]), [endpoint_slice(endpoint("127.0.0.1"))]) == [
        "127.0.0.1",
        "fe80::1",
    ]


def test_nothing_leads_to_the_agent_of_a_node() -> None:
    """Neither an endpoint that somebody wrote nor a pod on the node's network; a pod's own port 10250 is its own."""
    here = NodeView(NODE, pod_ranges=("10.0.0.0/16", "fd00::/64"), agents=frozenset({("192.0.2.9", 10350)}))
    both = [endpoint("10.0.0.1"), endpoint("192.0.2.9"), endpoint("192.0.2.8")]
    for port, octets in ((10250, [1]), (10350, [1, 8]), (8080, [1, 9, 8])):
        (found,) = service_rules(service(), [endpoint_slice(*both, port=port)], here)
        assert sorted(last_octets(found.endpoints)) == sorted(octets), port


@pytest.mark.parametrize(
    ("ranges", "admitted"),
    [
        ([], ()),
        (["10.0.0.0/8", " 10.1.0.0/16 ", "fd00::/8"], ("10.0.0.0/8",)),
        (["192.0.2.0/24"], ("192.0.2.0/24", "203.0.113.1/32")),
        (["fd00::/8"], ()),
        (["no range"], ()),
    ],
)
def test_source_ranges_are_of_the_family_and_let_a_node_use_an_address_that_it_took(
    ranges: list[str], admitted: tuple[str, ...]
) -> None:
    made = balanced(service(load_balancer_source_ranges=ranges), "203.0.113.1")
    (found,) = service_rules(made, [endpoint_slice(READY)], NodeView(NODE, addresses=("192.0.2.1",)))
    assert found.source_ranges == admitted


@pytest.mark.parametrize(
    ("setting", "any_address", "expected"),
    [
        (["primary"], False, ("192.0.2.1", "2001:db8::1")),
        (["primary", "127.0.0.0/8"], False, ("127.0.0.1", "192.0.2.1", "2001:db8::1")),
        (["0.0.0.0/0", "::/0"], True, ("0.0.0.0", "::")),
        (["0.0.0.0/0", "::/0"], False, ("10.0.0.7", "192.0.2.1", "2001:db8::1")),
        (["10.0.0.0/8"], False, ("10.0.0.7", "2001:db8::1")),
        (["::1/128", "fe80::/64", "10.0.0.0/8"], False, ("10.0.0.7",)),  # node ports work at none of the first two
    ],
)
def test_node_ports_are_answered_where_the_setting_says(
    setting: list[str], any_address: bool, expected: tuple[str, ...]
) -> None:
    local = ["127.0.0.1", "192.0.2.1", "10.0.0.7", "169.254.1.1", "::1", "fe80::1", "2001:db8::1"]
    primary = ["192.0.2.1", "2001:db8::1"]
    assert answering_addresses(setting, primary, local, any_address=any_address) == expected


def test_load_balancers_may_ask_about_services_that_stay_on_their_node() -> None:
    made = balanced(service(external_traffic_policy="Local", health_check_node_port=32000), "203.0.113.1")
    slices = [endpoint_slice(READY, READY_ELSEWHERE, ENDING), endpoint_slice(READY, name="other")]
    assert health_check(made, slices, HERE) == HealthCheck(32000, 1)
    assert health_check(made, [], HERE) == HealthCheck(32000, 0)
    both = [endpoint_slice(READY), endpoint_slice(endpoint("fd00::1"), name="six")]
    assert health_check(made, both, HERE) == HealthCheck(32000, 1), "a pod of both families is one endpoint"
    assert health_check(balanced(service(health_check_node_port=32000), "203.0.113.1"), slices, HERE) is None
