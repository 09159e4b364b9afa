"""Network Load Balancers of AWS, by boto3 (`pip install knarr[aws]`).

A Service has one load balancer and one security group, named by its uid, and a target group and a listener for each of
its ports. All carry the tags kubernetes.io/cluster/<cluster>=owned and kubernetes.io/service-name=<namespace>/<name>,
by which they are found again. Targets are the nodes' instances (or their addresses) at the node ports; the nodes'
security group lets the load balancer in. What a Service's annotations ask for is told by `aws_wishes`.

boto3 blocks: each call of the contract runs in a thread of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from msgspec import Struct

from knarr.api.core.v1 import LoadBalancerIngress
from knarr.edge.providers.aws_security import GONE, SecurityGroups, listed, own_tags, unless
from knarr.edge.providers.aws_wishes import (
    Listener,
    Wishes,
    health_check,
    instance_of,
    listeners_of,
    target_attributes,
    wishes_of,
)
from knarr.edge.providers.blocking import BlockingProvider
from knarr.edge.providers.contract import (
    Ingress,
    LoadBalancer,
    ProviderFailure,
    Target,
    quiet,
    without_secrets,
)

CONNECT_TIMEOUT_S, READ_TIMEOUT_S, ATTEMPTS = 5, 20, 3
TARGETS_AT_ONCE = 100
"""Registered by one call."""


class AwsSettings(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The file that cloudConfig names."""

    region: str = ""
    """Empty: of the environment (AWS_REGION), else that of the nodes."""
    vpc: str = ""
    """Empty: that of the nodes."""
    subnets: tuple[str, ...] = ()
    """Empty: those tagged kubernetes.io/role/elb (or internal-elb), else one of each zone."""
    target_type: str = "instance"
    """instance, or ip: by the nodes' addresses."""
    endpoint_url: str = ""
    """Of another service that speaks AWS's API."""


class Aws(BlockingProvider):
    """The provider `aws`. `session` is a boto3 Session, by default that of the environment."""

    name = "aws"
    load_balancer_class = "knarr.dev/aws"

    def __init__(self, settings: AwsSettings, session: Any = None) -> None:
        self._settings = settings
        self._session = session
        self._clients: dict[tuple[str, str], Any] = {}
        self._region = settings.region
        quiet("boto3", "botocore", "urllib3", "s3transfer")

    async def close(self) -> None:
        for client in self._clients.values():
            client.close()

    def _told(self, error: Exception) -> Exception | None:
        from botocore.exceptions import BotoCoreError, ClientError

        if isinstance(error, ClientError):
            told = error.response.get("Error", {})
            text = f"{error.operation_name}: {told.get('Code', '')}: {told.get('Message', '')}"
            return ProviderFailure(without_secrets(text))
        return ProviderFailure(without_secrets(f"AWS: {error}")) if isinstance(error, BotoCoreError) else None

    def _client(self, service: str) -> Any:
        import boto3  # 60 ms and 15 MB that only its users pay for
        from botocore.config import Config

        if self._session is None:
            self._session = boto3.session.Session()
        region = self._region or self._session.region_name
        if not region:
            raise ProviderFailure("the region of AWS is not known: set region in cloudConfig, or AWS_REGION")
        if (service, region) not in self._clients:
            self._clients[service, region] = self._session.client(
                service,
                region_name=region,
                endpoint_url=self._settings.endpoint_url or None,
                config=Config(
                    connect_timeout=CONNECT_TIMEOUT_S,
                    read_timeout=READ_TIMEOUT_S,
                    retries={"mode": "standard", "max_attempts": ATTEMPTS},
                    user_agent_extra="knarr",
                ),
            )
        return self._clients[service, region]

    @property
    def _elb(self) -> Any:
        return self._client("elbv2")

    @property
    def _ec2(self) -> Any:
        return self._client("ec2")

    @property
    def _security(self) -> SecurityGroups:
        return SecurityGroups(self._ec2)

    # The contract, blocking

    def _status(self, balancer: LoadBalancer) -> Ingress | None:
        found = self._found(balancer)
        if found is not None:
            return (LoadBalancerIngress(hostname=found["DNSName"]),)
        return () if self._target_groups(balancer) or self._security.of(balancer) else None

    def _ensure(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress:
        wishes, listeners = wishes_of(balancer), listeners_of(balancer)
        health_check(balancer, wishes)  # what can't be had is said before anything is made
        self._find_region(nodes)
        instances = self._instances(nodes)
        vpc = self._vpc(instances)
        groups = list(wishes.security_groups) or [self._security.made(balancer, vpc)]
        if not wishes.security_groups:
            self._security.allow_clients(groups[0], balancer, listeners)
        found = self._load_balancer(balancer, wishes, vpc, groups)
        arn = found["LoadBalancerArn"]
        targets = {each: self._target_group(balancer, wishes, vpc, each) for each in listeners}
        self._match_listeners(arn, balancer, wishes, targets)
        for listener, group in targets.items():
            self._match_targets(group, self._wanted_targets(wishes, listener, nodes, instances))
        for group in self._target_groups(balancer) - set(targets.values()):
            self._elb.delete_target_group(TargetGroupArn=group)
        self._security.let_in(balancer, listeners, groups[0], instances)
        return (LoadBalancerIngress(hostname=found["DNSName"]),)

    def _update_nodes(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress:
        self._find_region(nodes)
        found = self._found(balancer)
        if found is None:
            return self._ensure(balancer, nodes)
        wishes, listeners, instances = wishes_of(balancer), listeners_of(balancer), self._instances(nodes)
        names = {self._group_name(balancer, wishes, each): each for each in listeners}
        answer = self._elb.describe_target_groups(LoadBalancerArn=found["LoadBalancerArn"])
        for group in answer["TargetGroups"]:
            if (listener := names.get(group["TargetGroupName"])) is not None:
                wanted = self._wanted_targets(wishes, listener, nodes, instances)
                self._match_targets(group["TargetGroupArn"], wanted)
        groups = list(wishes.security_groups) or [each["GroupId"] for each in self._security.of(balancer)]
        if groups:
            self._security.let_in(balancer, listeners, groups[0], instances)
        return (LoadBalancerIngress(hostname=found["DNSName"]),)

    def _delete(self, balancer: LoadBalancer) -> None:
        found = self._found(balancer)
        if found is not None:
            unless(GONE, self._elb.delete_load_balancer, LoadBalancerArn=found["LoadBalancerArn"])
        for arn in self._target_groups(balancer):
            unless(GONE, self._elb.delete_target_group, TargetGroupArn=arn)
        for group in self._security.of(balancer):
            self._security.let_nobody_in(group["GroupId"])
            # AWS refuses while the load balancer's interfaces still go: it is tried again.
            unless(GONE, self._ec2.delete_security_group, GroupId=group["GroupId"])

    # The load balancer

    def _found(self, balancer: LoadBalancer) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            answer = self._elb.describe_load_balancers(Names=[balancer.unique_name])
        except ClientError as error:
            if error.response["Error"]["Code"] in GONE:
                return None
            raise
        found: dict[str, Any] = answer["LoadBalancers"][0]
        tags = self._elb.describe_tags(ResourceArns=[found["LoadBalancerArn"]])["TagDescriptions"][0]["Tags"]
        if not _has_tags(tags, own_tags(balancer)):
            raise ProviderFailure(f"the load balancer {balancer.unique_name} is not this cluster's: its tags differ")
        return found

    def _load_balancer(self, balancer: LoadBalancer, wishes: Wishes, vpc: str, groups: Sequence[str]) -> dict[str, Any]:
        found = self._found(balancer)
        if found is not None and found["Scheme"] != wishes.scheme:
            # A scheme is for life: another load balancer takes its place.
            self._elb.delete_load_balancer(LoadBalancerArn=found["LoadBalancerArn"])
            found = None
        subnets = self._subnets(wishes, vpc)
        if found is None:
            places: dict[str, Any] = {"Subnets": subnets}
            if wishes.allocations:
                pairs = zip(subnets, wishes.allocations, strict=False)
                places = {"SubnetMappings": [{"SubnetId": subnet, "AllocationId": one} for subnet, one in pairs]}
            made = self._elb.create_load_balancer(
                Name=balancer.unique_name,
                Type="network",
                Scheme=wishes.scheme,
                SecurityGroups=list(groups),
                IpAddressType=_address_type(balancer, wishes),
                Tags=listed({**wishes.tags, **own_tags(balancer)}),
                **places,
            )
            found = made["LoadBalancers"][0]
        else:
            arn = found["LoadBalancerArn"]
            if wishes.subnets and {zone["SubnetId"] for zone in found["AvailabilityZones"]} != set(subnets):
                self._elb.set_subnets(LoadBalancerArn=arn, Subnets=subnets)
            if set(found.get("SecurityGroups", groups)) != set(groups):
                self._elb.set_security_groups(LoadBalancerArn=arn, SecurityGroups=list(groups))
        if wishes.attributes:
            self._match_attributes(found["LoadBalancerArn"], wishes.attributes)
        return found

    def _match_attributes(self, arn: str, wanted: Mapping[str, str]) -> None:
        answer = self._elb.describe_load_balancer_attributes(LoadBalancerArn=arn)
        there = {each["Key"]: each["Value"] for each in answer["Attributes"]}
        if changed := listed({key: value for key, value in wanted.items() if there.get(key) != value}):
            self._elb.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=changed)

    def _subnets(self, wishes: Wishes, vpc: str) -> list[str]:
        """One of each zone."""
        if chosen := wishes.subnets or self._settings.subnets:
            return list(chosen)
        answer = self._ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
        role = "kubernetes.io/role/elb" if wishes.scheme == "internet-facing" else "kubernetes.io/role/internal-elb"
        there = sorted(answer["Subnets"], key=lambda subnet: subnet["SubnetId"])
        meant = [subnet for subnet in there if any(tag["Key"] == role for tag in subnet.get("Tags", []))]
        zones: dict[str, str] = {}
        for subnet in meant or there:
            zones.setdefault(subnet["AvailabilityZone"], subnet["SubnetId"])
        if not zones:
            raise ProviderFailure(f"the network {vpc} has no subnet for a load balancer")
        return list(zones.values())

    # Listeners, target groups, targets

    def _match_listeners(
        self, arn: str, balancer: LoadBalancer, wishes: Wishes, targets: Mapping[Listener, str]
    ) -> None:
        there = {each["Port"]: each for each in self._pages("describe_listeners", "Listeners", LoadBalancerArn=arn)}
        wanted = {listener.port: listener for listener in targets}
        for port in there.keys() - wanted.keys():
            unless(GONE, self._elb.delete_listener, ListenerArn=there[port]["ListenerArn"])
        for port, listener in wanted.items():
            made = _listener_request(wishes, listener, targets[listener])
            if port not in there:
                tags = listed(own_tags(balancer))
                self._elb.create_listener(LoadBalancerArn=arn, Port=port, Tags=tags, **made)
            elif not _is_as(there[port], made):
                self._elb.modify_listener(ListenerArn=there[port]["ListenerArn"], Port=port, **made)

    def _group_name(self, balancer: LoadBalancer, wishes: Wishes, listener: Listener) -> str:
        """All of a target group that can't be changed is in its name: what needs another one gets another one."""
        kind = wishes.target_type or self._settings.target_type
        text = f"{balancer.uid}/{listener.target_protocol}/{listener.port}/{kind}/{balancer.families[0]}"
        return f"k8s-{blake2b(text.encode(), digest_size=13).hexdigest()}"

    def _target_group(self, balancer: LoadBalancer, wishes: Wishes, vpc: str, listener: Listener) -> str:
        from botocore.exceptions import ClientError

        name, health = self._group_name(balancer, wishes, listener), health_check(balancer, wishes)
        try:
            group = self._elb.describe_target_groups(Names=[name])["TargetGroups"][0]
        except ClientError as error:
            if error.response["Error"]["Code"] not in GONE:
                raise
            group = self._elb.create_target_group(
                Name=name,
                Protocol=listener.target_protocol,
                Port=listener.node_port,
                VpcId=vpc,
                TargetType=wishes.target_type or self._settings.target_type,
                IpAddressType="ipv6" if balancer.families[0] == "IPv6" else "ipv4",
                Tags=listed({**wishes.tags, **own_tags(balancer)}),
                **health,
            )["TargetGroups"][0]
        arn: str = group["TargetGroupArn"]
        if changed := {key: value for key, value in health.items() if group.get(key) != value}:
            self._elb.modify_target_group(TargetGroupArn=arn, **{**health, **changed})
        wanted = target_attributes(balancer, wishes, listener)
        there = {
            each["Key"]: each["Value"]
            for each in self._elb.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"]
        }
        if attributes := listed({key: value for key, value in wanted.items() if there.get(key) != value}):
            self._elb.modify_target_group_attributes(TargetGroupArn=arn, Attributes=attributes)
        return arn

    def _target_groups(self, balancer: LoadBalancer) -> set[str]:
        """By their tags: those too that no listener uses, or that no port of the Service is for any more."""
        filters = [{"Key": key, "Values": [value]} for key, value in own_tags(balancer).items()]
        tagging = self._client("resourcegroupstaggingapi")
        pages = tagging.get_paginator("get_resources").paginate(
            TagFilters=filters, ResourceTypeFilters=["elasticloadbalancing:targetgroup"]
        )
        return {each["ResourceARN"] for page in pages for each in page["ResourceTagMappingList"]}

    def _wanted_targets(
        self, wishes: Wishes, listener: Listener, nodes: Sequence[Target], instances: Mapping[str, Any]
    ) -> set[tuple[str, int]]:
        if (wishes.target_type or self._settings.target_type) == "ip":
            return {(node.addresses[0], listener.node_port) for node in nodes if node.addresses}
        return {(instance, listener.node_port) for instance in instances}

    def _match_targets(self, group: str, wanted: set[tuple[str, int]]) -> None:
        answer = self._elb.describe_target_health(TargetGroupArn=group)
        there = {
            (each["Target"]["Id"], each["Target"]["Port"])
            for each in answer["TargetHealthDescriptions"]
            if each.get("TargetHealth", {}).get("State") != "draining"
        }
        for some in _batches(sorted(there - wanted)):
            self._elb.deregister_targets(TargetGroupArn=group, Targets=some)
        for some in _batches(sorted(wanted - there)):
            self._elb.register_targets(TargetGroupArn=group, Targets=some)

    # Where the nodes are

    def _find_region(self, nodes: Sequence[Target]) -> None:
        """Where neither the settings nor the environment name it."""
        if self._region:
            return
        for node in nodes:
            match = re.match(r"aws:///([a-z]+(?:-[a-z]+)+-\d+)[a-z]?/", node.provider_id)
            if match and self._session_region() is None:
                self._region = match[1]
                return

    def _session_region(self) -> str | None:
        import boto3

        if self._session is None:
            self._session = boto3.session.Session()
        region: str | None = self._session.region_name
        return region

    def _instances(self, nodes: Sequence[Target]) -> dict[str, dict[str, Any]]:
        """The nodes' instances that exist, by id."""
        ids = sorted(filter(None, (instance_of(node.provider_id) for node in nodes)))
        found: dict[str, dict[str, Any]] = {}
        if ids:
            chosen = [{"Name": "instance-id", "Values": ids}]
            for page in self._ec2.get_paginator("describe_instances").paginate(Filters=chosen):
                for reservation in page["Reservations"]:
                    for instance in reservation["Instances"]:
                        if instance["State"]["Name"] not in ("terminated", "shutting-down"):
                            found[instance["InstanceId"]] = instance
        return found

    def _vpc(self, instances: Mapping[str, Mapping[str, Any]]) -> str:
        if self._settings.vpc:
            return self._settings.vpc
        for instance in instances.values():
            if instance.get("VpcId"):
                vpc: str = instance["VpcId"]
                return vpc
        if self._settings.subnets:
            answer = self._ec2.describe_subnets(SubnetIds=list(self._settings.subnets[:1]))
            of_subnet: str = answer["Subnets"][0]["VpcId"]
            return of_subnet
        raise ProviderFailure(
            "no node has a providerID of AWS (aws:///<zone>/<instance>), so the network is not known: "
            "set vpc in cloudConfig"
        )

    def _pages(self, operation: str, key: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        for page in self._elb.get_paginator(operation).paginate(**arguments):
            yield from page[key]


def _listener_request(wishes: Wishes, listener: Listener, group: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "Protocol": listener.protocol,
        "DefaultActions": [{"Type": "forward", "TargetGroupArn": group}],
    }
    if listener.protocol == "TLS":
        made["Certificates"] = [{"CertificateArn": wishes.certificates[0]}]
        if wishes.tls_policy:
            made["SslPolicy"] = wishes.tls_policy
    return made


def _is_as(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """A listener is as it would be made."""
    actions = [action.get("TargetGroupArn") for action in there.get("DefaultActions", [])]
    certificates = [each["CertificateArn"] for each in there.get("Certificates", [])]
    return (
        there["Protocol"] == wanted["Protocol"]
        and actions == [wanted["DefaultActions"][0]["TargetGroupArn"]]
        and certificates == [each["CertificateArn"] for each in wanted.get("Certificates", [])]
        and ("SslPolicy" not in wanted or there.get("SslPolicy") == wanted["SslPolicy"])
    )


def _address_type(balancer: LoadBalancer, wishes: Wishes) -> str:
    if wishes.address_type:
        return wishes.address_type
    return "dualstack" if "IPv6" in balancer.families else "ipv4"


def _has_tags(there: Iterable[Mapping[str, str]], wanted: Mapping[str, str]) -> bool:
    return wanted.items() <= {each["Key"]: each["Value"] for each in there}.items()


def _batches(targets: Sequence[tuple[str, int]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(targets), TARGETS_AT_ONCE):
        yield [{"Id": one, "Port": port} for one, port in targets[start : start + TARGETS_AT_ONCE]]
