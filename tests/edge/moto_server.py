"""A running moto server, and what it holds. Faults come in at the HTTP calls that boto3 makes."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config

from tests.edge.fake import Faults
from tests.ports import free_ports

REGION = "eu-west-1"
START_MAX_S = ANSWER_MAX_S = 300.0
"""It shares its cores with other tests."""


@contextmanager
def moto_server() -> Iterator[str]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_MAX_S
        while True:
            try:
                urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "moto did not start"
                time.sleep(0.1)
        yield url
    finally:
        server.kill()
        server.wait()


class Account:
    """An account at the server, with two instances as nodes."""

    def __init__(self, url: str) -> None:
        self.url = url
        reset = urllib.request.Request(f"{url}/moto-api/reset", method="POST")
        urllib.request.urlopen(reset, timeout=ANSWER_MAX_S).close()
        self.faults = Faults()
        self.session = boto3.session.Session(
            aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
            aws_secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            region_name=REGION,
        )
        self.calls: list[str] = []
        self.session.events.register("after-call", self._after)
        plain = boto3.session.Session("AKIAIOSFODNN7EXAMPLE", "secret", region_name=REGION)
        config = Config(retries={"max_attempts": 1})
        self.ec2 = plain.client("ec2", endpoint_url=url, config=config)
        self.elb = plain.client("elbv2", endpoint_url=url, config=config)
        subnet = self.ec2.describe_subnets()["Subnets"][0]
        nodes = self.ec2.create_security_group(GroupName="nodes", Description="nodes", VpcId=subnet["VpcId"])
        made = self.ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=3,
            MaxCount=3,
            InstanceType="t3.micro",
            SubnetId=subnet["SubnetId"],
            SecurityGroupIds=[nodes["GroupId"]],
        )
        self.instances = [each["InstanceId"] for each in made["Instances"]]

    def _after(self, model: Any, **_: Any) -> None:
        """What dies after a call that only looks leaves what it would have left after the one before."""
        self.calls.append(model.name)
        if not model.name.startswith(("Describe", "Get")):
            self.faults.before_call()
            self.faults.after_call()

    def _targets(self, group: str) -> list[tuple[str, int]]:
        health = self.elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        return sorted((each["Target"]["Id"], each["Target"]["Port"]) for each in health)

    def snapshot(self) -> dict[str, Any]:
        """Everything that costs money or lets somebody in, in a form that can be compared."""
        balancers = self.elb.describe_load_balancers()["LoadBalancers"]
        groups = self.elb.describe_target_groups()["TargetGroups"]
        named = {each["TargetGroupArn"]: each["TargetGroupName"] for each in groups}
        security = self.ec2.describe_security_groups()["SecurityGroups"]
        titles = {each["GroupId"]: each["GroupName"] for each in security}
        rules = self.ec2.describe_security_group_rules()["SecurityGroupRules"]
        return {
            "balancers": sorted((each["LoadBalancerName"], each["Scheme"], each["Type"]) for each in balancers),
            "listeners": sorted(
                (each["Port"], each["Protocol"], named[each["DefaultActions"][0]["TargetGroupArn"]])
                for balancer in balancers
                for each in self.elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
            ),
            "targets": sorted(
                (
                    *(each[key] for key in ("TargetGroupName", "Protocol", "HealthCheckProtocol", "HealthCheckPort")),
                    *self._targets(each["TargetGroupArn"]),
                )
                for each in groups
            ),
            "groups": sorted(titles.values()),
            "rules": sorted(
                (
                    titles[each["GroupId"]],
                    each["IpProtocol"],
                    each.get("FromPort", 0),
                    each.get("CidrIpv4") or titles.get(each.get("ReferencedGroupInfo", {}).get("GroupId", ""), ""),
                )
                for each in rules
                if not each["IsEgress"]
            ),
        }
