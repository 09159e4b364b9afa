"""The security groups of AWS's load balancers: who may connect to them, and that they may connect to the nodes.

A load balancer has a group of its own, with a rule for each port and source range. The nodes' groups have a rule for
each node port that names that group: by it they are found again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from knarr.edge.providers.aws_wishes import Listener
from knarr.edge.providers.contract import LoadBalancer

SERVICE_TAG = "kubernetes.io/service-name"
GONE = ("LoadBalancerNotFound", "TargetGroupNotFound", "ListenerNotFound", "InvalidGroup.NotFound")
PRESENT = ("InvalidPermission.Duplicate", "InvalidGroup.Duplicate")
NO_MORE = ("InvalidPermission.NotFound", "InvalidSecurityGroupRuleId.NotFound")
"""Codes of errors that say that what is to be done has been done."""


class SecurityGroups:
    """`client` is boto3's, of ec2."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def of(self, balancer: LoadBalancer) -> list[dict[str, Any]]:
        """The Service's own."""
        filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in own_tags(balancer).items()]
        filters.append({"Name": "group-name", "Values": [_group_of(balancer)]})
        groups: list[dict[str, Any]] = self._client.describe_security_groups(Filters=filters)["SecurityGroups"]
        return groups

    def made(self, balancer: LoadBalancer, vpc: str) -> str:
        """The id of the Service's own, which is made where there is none."""
        there = self.of(balancer)
        if there:
            known: str = there[0]["GroupId"]
            return known
        tags = listed(own_tags(balancer))
        made = self._client.create_security_group(
            GroupName=_group_of(balancer),
            Description=f"Security group for Kubernetes ELB {balancer.unique_name} ({balancer.key})",
            VpcId=vpc,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
        )
        group: str = made["GroupId"]
        return group

    def allow_clients(self, group: str, balancer: LoadBalancer, listeners: Iterable[Listener]) -> None:
        """Who may connect: the source ranges, else everybody."""
        everybody = {"IPv4": "0.0.0.0/0", "IPv6": "::/0"}
        ranges = balancer.source_ranges or tuple(everybody[family] for family in balancer.families)
        wanted = {
            (protocol, listener.port, listener.port, source)
            for listener in listeners
            for protocol in _transports(listener.protocol)
            for source in ranges
        }
        self._match_rules(group, self._rules(group), wanted)

    def let_in(
        self,
        balancer: LoadBalancer,
        listeners: Iterable[Listener],
        group: str,
        instances: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """The nodes' security groups let the load balancer's come to the node ports. Rules that name it are ours."""
        wanted = {
            (protocol, listener.node_port, listener.node_port, group)
            for listener in listeners
            for protocol in _transports(listener.protocol)
        }
        wanted |= {("tcp", listener.node_port, listener.node_port, group) for listener in listeners}  # health checks
        if balancer.health_check_port:
            wanted.add(("tcp", balancer.health_check_port, balancer.health_check_port, group))
        node_groups = self._node_groups(balancer, instances.values())
        there: dict[str, dict[tuple[str, int, int, str], str]] = {each: {} for each in node_groups}
        for node_group, rule, rule_id in self._rules_that_name(group):
            there.setdefault(node_group, {})[rule] = rule_id
        for node_group, rules in there.items():
            self._match_rules(node_group, rules, wanted if node_group in node_groups else set())

    def let_nobody_in(self, group: str) -> None:
        for node_group, _, rule_id in self._rules_that_name(group):
            self._revoke(node_group, [rule_id])

    def _node_groups(self, balancer: LoadBalancer, instances: Iterable[Mapping[str, Any]]) -> set[str]:
        """Of each instance the group that is tagged as the cluster's, else its first."""
        ids = sorted({each["GroupId"] for instance in instances for each in instance["SecurityGroups"]})
        if not ids:
            return set()
        key = cluster_tag(balancer.cluster)
        answer = self._client.describe_security_groups(GroupIds=ids)
        tagged = {
            group["GroupId"]
            for group in answer["SecurityGroups"]
            if any(tag["Key"] == key for tag in group.get("Tags", []))
        }
        found = set()
        for instance in instances:
            groups = [each["GroupId"] for each in instance["SecurityGroups"]]
            found.update([each for each in groups if each in tagged][:1] or groups[:1])
        return found

    def _rules(self, group: str) -> dict[tuple[str, int, int, str], str]:
        answer = self._client.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])
        return {_rule_of(each): each["SecurityGroupRuleId"] for each in answer["SecurityGroupRules"] if _is_in(each)}

    def _rules_that_name(self, group: str) -> Iterator[tuple[str, tuple[str, int, int, str], str]]:
        """Rules of other groups that let this one in."""
        naming = {"Name": "ip-permission.group-id", "Values": [group]}
        groups = [each["GroupId"] for each in self._client.describe_security_groups(Filters=[naming])["SecurityGroups"]]
        for each in groups:
            for rule, rule_id in self._rules(each).items():
                if rule[3] == group and each != group:
                    yield each, rule, rule_id

    def _match_rules(
        self,
        group: str,
        there: Mapping[tuple[str, int, int, str], str],
        wanted: set[tuple[str, int, int, str]],
    ) -> None:
        missing = sorted(wanted - there.keys())
        if missing:
            permissions = [_permission(rule) for rule in missing]
            unless(PRESENT, self._client.authorize_security_group_ingress, GroupId=group, IpPermissions=permissions)
        if extra := [rule_id for rule, rule_id in there.items() if rule not in wanted]:
            self._revoke(group, extra)

    def _revoke(self, group: str, rules: Sequence[str]) -> None:
        revoke = self._client.revoke_security_group_ingress
        unless((*NO_MORE, *GONE), revoke, GroupId=group, SecurityGroupRuleIds=list(rules))


def unless(codes: Sequence[str], call: Callable[..., Any], **arguments: Any) -> None:
    """Do what may have been done already."""
    from botocore.exceptions import ClientError

    try:
        call(**arguments)
    except ClientError as error:
        if error.response["Error"]["Code"] not in codes:
            raise


def cluster_tag(cluster: str) -> str:
    return f"kubernetes.io/cluster/{cluster}"


def own_tags(balancer: LoadBalancer) -> dict[str, str]:
    return {cluster_tag(balancer.cluster): "owned", SERVICE_TAG: balancer.key}


def listed(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in values.items()]


def _group_of(balancer: LoadBalancer) -> str:
    return f"k8s-elb-{balancer.unique_name}"


def _is_in(rule: Mapping[str, Any]) -> bool:
    return not rule.get("IsEgress", False)


def _rule_of(rule: Mapping[str, Any]) -> tuple[str, int, int, str]:
    """Protocol, first and last port, and who may come: a range or a group."""
    source = rule.get("CidrIpv4") or rule.get("CidrIpv6") or rule.get("ReferencedGroupInfo", {}).get("GroupId", "")
    return rule["IpProtocol"], rule.get("FromPort", -1), rule.get("ToPort", -1), source


def _permission(rule: tuple[str, int, int, str]) -> dict[str, Any]:
    protocol, first, last, source = rule
    made: dict[str, Any] = {"IpProtocol": protocol, "FromPort": first, "ToPort": last}
    if source.startswith("sg-"):
        return {**made, "UserIdGroupPairs": [{"GroupId": source}]}
    if ":" in source:
        return {**made, "Ipv6Ranges": [{"CidrIpv6": source}]}
    return {**made, "IpRanges": [{"CidrIp": source}]}


def _transports(protocol: str) -> tuple[str, ...]:
    return {"UDP": ("udp",), "TCP_UDP": ("tcp", "udp")}.get(protocol, ("tcp",))
