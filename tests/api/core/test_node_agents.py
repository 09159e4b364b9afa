"""Where the agents of nodes answer, by what Nodes tell."""

from __future__ import annotations

import pytest

from knarr.api.core.node_agents import agents, canonical
from knarr.api.core.v1 import DaemonEndpoint, Node, NodeAddress, NodeDaemonEndpoints, NodeSpec, NodeStatus
from knarr.api.meta.v1 import ObjectMeta


def node(port: int | None, *addresses: tuple[str, str], ranges: list[str] | None = None) -> Node:
    told = NodeDaemonEndpoints(kubelet_endpoint=DaemonEndpoint(port=port)) if port is not None else None
    status = NodeStatus(addresses=[NodeAddress(type=kind, address=each) for kind, each in addresses])
    status.daemon_endpoints = told
    return Node(metadata=ObjectMeta(name="n"), spec=NodeSpec(pod_cidrs=ranges or []), status=status)


def test_an_agent_answers_at_every_address_of_its_node_and_at_the_gateway_of_its_pods() -> None:
    found = agents(
        [
            node(
                10350,
                ("InternalIP", "192.0.2.1"),
                ("ExternalIP", "2001:DB8:0::1"),
                ("Hostname", "n"),
                ranges=["10.244.1.0/24", "fd00:1::/64"],
            ),
            node(10250, ("InternalIP", "192.0.2.2")),
        ]
    )
    of_the_first = {"192.0.2.1", "2001:db8::1", "10.244.1.1", "fd00:1::1"}
    assert found == {*((each, 10350) for each in of_the_first), ("192.0.2.2", 10250)}


@pytest.mark.parametrize("without", [node(None, ("InternalIP", "192.0.2.1")), node(0, ("InternalIP", "192.0.2.1"))])
def test_an_agent_within_the_api_servers_process_answers_nowhere(without: Node) -> None:
    assert agents([without, Node(metadata=ObjectMeta(name="new"))]) == set()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("no address", "no address"),
    ],
)
def test_addresses_are_compared_by_what_they_mean(written: str, meant: str) -> None:
    assert canonical(written) == meant
