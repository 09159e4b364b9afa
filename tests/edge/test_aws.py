"""AWS: what annotations ask for, what can't be had, and that nobody reads a credential."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("moto")

import msgspec

from knarr.api.core.v1 import Event, Node, Service
from knarr.clock import SystemClock
from knarr.edge.loadbalancer import LoadBalancers
from knarr.edge.providers.aws import Aws, AwsSettings
from knarr.edge.providers.aws_wishes import instance_of, listeners_of, wishes_of
from knarr.edge.providers.contract import LoadBalancer, ProviderFailure
from tests.controllers.loops import Loops
from tests.edge.aws_bench import AwsBench
from tests.edge.test_loadbalancer import service
from tests.edge.test_providers import balancer

PREFIX = "service.beta.kubernetes.io/aws-load-balancer-"
KEY_ID, KEY = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
BOTH = [
    {"name": "t", "port": 53, "nodePort": 30053, "protocol": "TCP"},
    {"name": "u", "port": 53, "nodePort": 30053, "protocol": "UDP"},
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    from tests.edge.moto_server import moto_server

    with moto_server() as url:
        yield url


@pytest.fixture
def bench(url: str) -> AwsBench:
    return AwsBench(url)


def annotated(wanted: LoadBalancer, **annotations: str) -> LoadBalancer:
    given = {f"{PREFIX}{key.replace('_', '-')}": value for key, value in annotations.items()}
    return msgspec.structs.replace(wanted, annotations=given)


async def test_annotations_shape_the_load_balancer(bench: AwsBench) -> None:
    subnets = [each["SubnetId"] for each in bench.account.ec2.describe_subnets()["Subnets"]][:2]
    wanted = annotated(
        balancer(sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 60}}),
        internal="true",
        subnets=",".join(subnets),
        cross_zone_load_balancing_enabled="true",
        additional_resource_tags="team=shop,stage=test",
        nlb_target_type="ip",
        proxy_protocol="*",
        healthcheck_protocol="http",
        healthcheck_path="/up",
        healthcheck_interval="10",
    )
    await bench.provider().ensure(wanted, bench.nodes)
    elb = bench.account.elb
    (made,) = elb.describe_load_balancers()["LoadBalancers"]
    arn = made["LoadBalancerArn"]
    assert made["Scheme"] == "internal"
    assert {zone["SubnetId"] for zone in made["AvailabilityZones"]} == set(subnets)
    tags = elb.describe_tags(ResourceArns=[arn])["TagDescriptions"][0]["Tags"]
    assert {each["Key"]: each["Value"] for each in tags} == {
        "team": "shop",
        "stage": "test",
        "kubernetes.io/cluster/kubernetes": "owned",
        "kubernetes.io/service-name": "default/web",
    }
    attributes = elb.describe_load_balancer_attributes(LoadBalancerArn=arn)["Attributes"]
    assert {"Key": "load_balancing.cross_zone.enabled", "Value": "true"} in attributes
    for group in elb.describe_target_groups()["TargetGroups"]:
        assert (group["TargetType"], group["HealthCheckPath"], group["HealthCheckIntervalSeconds"]) == ("ip", "/up", 10)
        attributes = elb.describe_target_group_attributes(TargetGroupArn=group["TargetGroupArn"])["Attributes"]
        found = {each["Key"]: each["Value"] for each in attributes}
        assert found["stickiness.type"] == "source_ip"
        assert found["proxy_protocol_v2.enabled"] == "true"
    targets = {target[0] for each in bench.snapshot()["targets"] for target in each[4:]}
    assert targets == {"10.0.0.0", "10.0.0.1", "10.0.0.2"}


async def test_another_scheme_is_another_load_balancer(bench: AwsBench) -> None:
    await bench.provider().ensure(balancer(), bench.nodes)
    await bench.provider().ensure(annotated(balancer(), scheme="internal"), bench.nodes)
    assert [each[1] for each in bench.snapshot()["balancers"]] == ["internal"]


async def test_a_load_balancer_of_that_name_that_is_not_ours_is_left_alone(bench: AwsBench) -> None:
    subnet = bench.account.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    bench.account.elb.create_load_balancer(Name=balancer().unique_name, Type="network", Subnets=[subnet])
    with pytest.raises(ProviderFailure, match="is not this cluster's"):
        await bench.provider().ensure(balancer(), bench.nodes)
    with pytest.raises(ProviderFailure, match="is not this cluster's"):
        await bench.provider().delete(balancer())


async def test_source_ranges_and_node_ports_are_the_only_ways_in(bench: AwsBench) -> None:
    local = {"externalTrafficPolicy": "Local", "healthCheckNodePort": 31000}
    wanted = balancer(loadBalancerSourceRanges=["192.0.2.0/24"], **local)
    await bench.provider().ensure(wanted, bench.nodes)
    own = f"k8s-elb-{wanted.unique_name}"
    assert bench.snapshot()["rules"] == [
        (own, "tcp", 80, "192.0.2.0/24"),
        (own, "udp", 53, "192.0.2.0/24"),
        ("nodes", "tcp", 30053, own),
        ("nodes", "tcp", 30080, own),
        ("nodes", "tcp", 31000, own),
        ("nodes", "udp", 30053, own),
    ]


def test_a_port_of_both_protocols_is_one_listener() -> None:
    assert [(each.port, each.protocol) for each in listeners_of(balancer(ports=BOTH))] == [(53, "TCP_UDP")]
    certified = annotated(balancer(), ssl_cert="arn:aws:acm:x", ssl_ports="http")
    assert [each.protocol for each in listeners_of(certified)] == ["TLS", "UDP"]


@pytest.mark.parametrize(
    ("spec", "annotations", "why"),
    [
        ({"ports": [{"port": 9, "nodePort": 30009, "protocol": "SCTP"}]}, {}, "don't know SCTP"),
        ({"ports": [{"port": 9, "protocol": "TCP"}]}, {}, "has no node port"),
        ({"ports": [BOTH[0], {**BOTH[1], "nodePort": 30054}]}, {}, "the same node port"),
        ({}, {"scheme": "secret"}, "must be internal or internet-facing"),
        ({}, {"nlb_target_type": "pod"}, "must be instance or ip"),
        ({}, {"healthcheck_interval": "often"}, "must be a number"),
    ],
)
async def test_what_cannot_be_had_is_said(
    bench: AwsBench, spec: dict[str, Any], annotations: dict[str, str], why: str
) -> None:
    before = bench.snapshot()
    with pytest.raises(ProviderFailure, match=why):
        await bench.provider().ensure(annotated(balancer(**spec), **annotations), bench.nodes)
    assert bench.snapshot() == before


async def test_nodes_of_no_cloud_are_said_to_be_none(bench: AwsBench) -> None:
    strangers = [msgspec.structs.replace(node, provider_id="") for node in bench.nodes]
    with pytest.raises(ProviderFailure, match="no node has a providerID of AWS"):
        await bench.provider().ensure(balancer(), strangers)


def test_an_instance_is_known_by_the_providers_id() -> None:
    assert instance_of("aws:///eu-west-1a/i-0abc123") == "i-0abc123"
    assert [instance_of(each) for each in ("", "gce://p/z/n", "aws:///eu-west-1a/fargate-x")] == ["", "", ""]
    assert wishes_of(balancer()).scheme == "internet-facing"


async def test_a_service_gets_a_network_load_balancer_and_nobody_reads_the_credentials(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole loop at a running server, everything logged that can be."""
    caplog.set_level(logging.DEBUG)
    bench = AwsBench(url)
    aws = Aws(AwsSettings(endpoint_url=url), bench.account.session)

    async def scenario(loops: Loops) -> None:
        for node in bench.nodes:
            spec = {"metadata": {"name": node.name}, "spec": {"providerID": node.provider_id}}
            await loops.client.create(msgspec.convert(spec, Node))
        await loops.client.create(service(allocateLoadBalancerNodePorts=True))

        async def reached() -> Any:
            status = (await loops.client.get(Service, "web", "default")).status
            return status and status.load_balancer and status.load_balancer.ingress

        (ingress,) = await loops.until(reached)
        assert ingress.hostname.endswith(".amazonaws.com")
        assert ingress.ip is None
        bench.account.faults.error = lambda: RuntimeError(f"{KEY_ID} {KEY}")
        bench.account.faults.reset(1)
        await loops.client.delete(Service, "web", "default")

        async def failed() -> Any:
            events = (await loops.client.list(Event, "default")).items
            return [event for event in events if event.reason == "SyncLoadBalancerFailed"]

        told = await loops.until(failed)
        assert "RuntimeError: *** ***" in (told[0].message or "")

        async def gone() -> bool:
            return not (await loops.client.list(Service, "default")).items

        await loops.until(gone)
        assert bench.snapshot()["balancers"] == []

    def make(loops: Loops) -> list[LoadBalancers]:
        return [LoadBalancers(loops.account("service-controller"), loops.informers, loops.clock, aws)]

    await Loops(SystemClock(), make).run(scenario)
    await asyncio.sleep(0)
    for secret in (KEY_ID, KEY, "X-Amz-Signature", "Credential="):
        assert secret not in caplog.text


async def test_nodes_without_an_id_at_the_cloud_are_targets_by_their_addresses(bench: AwsBench) -> None:
    """On machines that AWS doesn't know as the cluster's: targetType ip, and a network that is named."""
    vpc = bench.account.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    settings = AwsSettings(endpoint_url=bench.account.url, vpc=vpc, target_type="ip")
    strangers = [msgspec.structs.replace(node, provider_id="") for node in bench.nodes]
    provider, empty = Aws(settings, bench.account.session), bench.snapshot()
    await provider.ensure(balancer(), strangers)
    there = bench.snapshot()
    assert {target for each in there["targets"] for target in each[4:]} == {
        (f"10.0.0.{number}", port) for number in range(3) for port in (30053, 30080)
    }
    assert not any(group == "nodes" for group, *_ in there["rules"])
    await provider.delete(balancer())
    assert bench.snapshot() == empty
