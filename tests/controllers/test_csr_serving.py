"""Serving certificates of nodes: approved for a node's own addresses, left to people otherwise."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import pytest
from cryptography import x509

from knarr.api.certificates.requests import KUBELET_SERVING
from knarr.api.certificates.v1 import CertificateSigningRequest
from knarr.api.core.v1 import Node, NodeAddress, NodeStatus
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.controller import Controller
from knarr.controllers.csr_serving import ServingApproval
from tests.controllers.loops import Loops, play
from tests.controllers.test_certificates import SERVING_USAGES, asked, certificate_request, conditions

NODE = "system:node:n1"


def loops(parts: Loops) -> list[Controller]:
    return [ServingApproval(parts.account("kubelet-serving-approver"), parts.informers, parts.clock)]


def node(name: str, *addresses: str) -> Node:
    kinds = [NodeAddress(type="Hostname", address=name)]
    kinds += [NodeAddress(type="InternalIP", address=each) for each in addresses]
    return Node(metadata=ObjectMeta(name=name), status=NodeStatus(addresses=kinds))


def request(names: Sequence[str], common_name: str = NODE) -> CertificateSigningRequest:
    parts: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(each)) if each[0].isdecimal() or ":" in each else x509.DNSName(each)
        for each in names
    ]
    return asked(
        "serve", KUBELET_SERVING, certificate_request(common_name, "system:nodes", names=parts), SERVING_USAGES
    )


@pytest.mark.parametrize(
    ("names", "asker", "approved"),
    [
        (["n1", "192.0.2.1"], NODE, True),
        (["n1", "192.0.2.1", "2001:db8::1"], NODE, True),
        (["192.0.2.1"], NODE, True),
        (["n1", "192.0.2.9"], NODE, False),
        (["kubernetes", "192.0.2.1"], NODE, False),
        (["n2"], NODE, False),
        (["192.0.2.2"], NODE, False),
        (["n1"], "system:node:n2", False),
        (["n1"], "system:node:n3", False),
    ],
)
def test_a_node_gets_one_for_its_own_names_only(names: list[str], asker: str, approved: bool) -> None:
    async def scenario(parts: Loops) -> None:
        # n2 claims an address of n1 besides its own: whose it is, nobody can tell.
        for each in (node("n1", "192.0.2.1", "2001:db8::1", "192.0.2.2"), node("n2", "192.0.2.2")):
            await parts.client.create(each)
        client = parts.client_as(asker, "system:nodes", "system:authenticated")
        await client.create(request(names))
        await parts.clock.sleep(2)
        found = await conditions(parts, "serve")
        assert [each.type for each in found] == (["Approved"] if approved else [])

    play(loops, scenario)


def test_a_request_that_came_before_the_nodes_addresses_is_approved_when_they_are_there() -> None:
    async def scenario(parts: Loops) -> None:
        await parts.client.create(Node(metadata=ObjectMeta(name="n1")))
        client = parts.client_as(NODE, "system:nodes", "system:authenticated")
        await client.create(request(["n1", "192.0.2.1"]))
        await parts.clock.sleep(2)
        assert not await conditions(parts, "serve")
        told = await parts.client.get(Node, "n1")
        told.status = node("n1", "192.0.2.1").status
        await parts.client.update_status(told)
        await parts.clock.sleep(1)
        (condition,) = await conditions(parts, "serve")
        assert (condition.type, condition.reason) == ("Approved", "AutoApproved")

    play(loops, scenario)
