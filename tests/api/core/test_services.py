"""Services: what is filled in, refused, advised against, kept and dropped, field by field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Service
from tests.api.made import faults, made, plain, resource, shown, update_faults

PORTS = [{"port": 80}]
V4 = {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}
BOTH = {
    "clusterIP": "10.96.0.7",
    "clusterIPs": ["10.96.0.7", "fd00:96::7"],
    "ipFamilies": ["IPv4", "IPv6"],
    "ipFamilyPolicy": "PreferDualStack",
}


def spec_of(**spec: Any) -> dict[str, Any]:
    made_of: dict[str, Any] = plain(made("Service", spec=spec))["spec"]
    return made_of


# Defaults


def test_what_is_left_out_is_filled_in() -> None:
    assert spec_of(ports=[{"port": 80}]) == {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
    }
    affine = spec_of(ports=PORTS, sessionAffinity="ClientIP")
    assert affine["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    assert "sessionAffinityConfig" not in spec_of(ports=PORTS, sessionAffinityConfig={"clientIP": {}})
    assert spec_of(ports=PORTS, externalIPs=["192.0.2.1"])["externalTrafficPolicy"] == "Cluster"
    assert spec_of(ports=PORTS, type="NodePort")["externalTrafficPolicy"] == "Cluster"
    balanced = spec_of(ports=PORTS, type="LoadBalancer")
    assert (balanced["externalTrafficPolicy"], balanced["allocateLoadBalancerNodePorts"]) == ("Cluster", True)
    assert "internalTrafficPolicy" not in spec_of(type="ExternalName", externalName="example.com")


def test_the_addresses_of_a_balancer_are_virtual_unless_it_says_otherwise() -> None:
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "a.example"}]}}
    balanced = made("Service", spec={"type": "LoadBalancer", "ports": PORTS}, status=status)
    assert plain(balanced)["status"]["loadBalancer"]["ingress"] == [
        {"ip": "192.0.2.1", "ipMode": "VIP"},
        {"hostname": "a.example"},
    ]


# Validation

QUALIFIED = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
BALANCER = {"type": "LoadBalancer", "ports": PORTS}
LOCAL = {**BALANCER, "externalTrafficPolicy": "Local"}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"ports": [{"port": 80, "appProtocol": "http"}]}, []),
        ({"ports": [{"port": 80, "appProtocol": "kubernetes.io/h2c"}]}, []),
        (
            {"ports": [{"port": 80, "appProtocol": "a b"}]},
            [f'ports[0].appProtocol: Invalid value: "a b": {QUALIFIED}'],
        ),
        (
            {"ports": [{"port": 80, "protocol": "HTTP"}]},
            ['ports[0].protocol: Unsupported value: "HTTP": supported values: "SCTP", "TCP", "UDP"'],
        ),
        (
            {"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]},
            ['ports[1].name: Duplicate value: "a"'],
        ),
        # sessionAffinityConfig
        (
            {
                "ports": PORTS,
                "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}},
            },
            [
                "sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than "
                "86400"
            ],
        ),
        # Families and addresses
        ({"ports": PORTS, **BOTH}, []),
        (
            {"ports": PORTS, "clusterIP": "10.96.0.7"},
            ["clusterIPs: Required value"],
        ),
        (
            {"ports": PORTS, "clusterIPs": ["10.96.0.7"]},
            ['clusterIPs: Invalid value: ["10.96.0.7"]: must be empty when `clusterIP` is not specified'],
        ),
        (
            {"ports": PORTS, "clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.7"]},
            ['clusterIPs: Invalid value: ["10.96.0.7"]: first value must match `clusterIP`'],
        ),
        (
            {"ports": PORTS, "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "10.96.0.8"]},
            [
                'clusterIPs: Invalid value: ["10.96.0.7","10.96.0.8"]: may specify no more than one IP for each IP '
                "family"
            ],
        ),
        (
            {"ports": PORTS, "clusterIP": "None", "clusterIPs": ["None", "10.96.0.8"]},
            ['clusterIPs: Invalid value: ["None","10.96.0.8"]: \'None\' must be the first and only value'],
        ),
        (
            {"ports": PORTS, "clusterIP": "bad", "clusterIPs": ["bad"]},
            ['clusterIPs[0]: Invalid value: "bad": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'],
        ),
        (
            {"ports": PORTS, "clusterIP": "010.96.0.7", "clusterIPs": ["010.96.0.7"]},
            ['clusterIPs[0]: Invalid value: "010.96.0.7": must not have leading 0s'],
        ),
        (
            {
                "ports": PORTS,
                "clusterIP": "10.96.0.7",
                "clusterIPs": ["10.96.0.7", "fd00::7", "10.96.0.8"],
            },
            [
                'clusterIPs: Invalid value: ["10.96.0.7","fd00::7","10.96.0.8"]: may only hold up to 2 values',
                'clusterIPs: Invalid value: ["10.96.0.7","fd00::7","10.96.0.8"]: may specify no more than one IP for '
                "each IP family",
            ],
        ),
        (
            {"ports": PORTS, "clusterIP": "fd00::7", "clusterIPs": ["fd00::7"], "ipFamilies": ["IPv4"]},
            ['clusterIPs[0]: Invalid value: "fd00::7": expected an IPv4 value as indicated by `ipFamilies[0]`'],
        ),
        (
            {"ports": PORTS, "ipFamilies": ["IPv4", "IPv4"]},
            ['ipFamilies[1]: Duplicate value: "IPv4"'],
        ),
        (
            {"ports": PORTS, "ipFamilies": ["IPv5"], "ipFamilyPolicy": "Both"},
            [
                'ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"',
                'ipFamilyPolicy: Unsupported value: "Both": supported values: "PreferDualStack", "RequireDualStack", '
                '"SingleStack"',
            ],
        ),
        # ExternalName
        ({"type": "ExternalName", "externalName": "example.com."}, []),
        (
            {"type": "ExternalName", "externalName": "example.com", **V4},
            [
                "clusterIPs: Forbidden: may not be set for ExternalName services",
                "ipFamilies: Forbidden: may not be set for ExternalName services",
                "ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
            ],
        ),
        ({"type": "ExternalName", "externalName": "."}, ["externalName: Required value"]),
        # What is only for load balancers
        ({**BALANCER, "loadBalancerSourceRanges": [" 10.0.0.0/8 "], "loadBalancerClass": "example.com/lb"}, []),
        (
            {
                "ports": PORTS,
                "loadBalancerSourceRanges": ["10.0.0.1/8"],
                "loadBalancerClass": "a",
                "allocateLoadBalancerNodePorts": False,
            },
            [
                "LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                'LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.1/8": must not have bits set beyond the prefix '
                "length",
                "allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
                "loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ],
        ),
        ({**BALANCER, "loadBalancerClass": "a b"}, [f'loadBalancerClass: Invalid value: "a b": {QUALIFIED}']),
        # Traffic
        (
            {**BALANCER, "externalTrafficPolicy": "Near"},
            ['externalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"'],
        ),
        (
            {"ports": PORTS, "internalTrafficPolicy": "Near"},
            ['internalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"'],
        ),
        (LOCAL, ["healthCheckNodePort: Required value"]),
        ({**LOCAL, "healthCheckNodePort": 30000}, []),
        (
            {**BALANCER, "healthCheckNodePort": 30000},
            [
                "healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and "
                "`externalTrafficPolicy` is 'Local'"
            ],
        ),
        (
            {**LOCAL, "healthCheckNodePort": 70000},
            ["healthCheckNodePort: Invalid value: 70000: must be between 1 and 65535, inclusive"],
        ),
        ({"ports": PORTS, "trafficDistribution": "PreferSameNode"}, []),
        (
            {"ports": PORTS, "trafficDistribution": "Far"},
            [
                'trafficDistribution: Unsupported value: "Far": supported values: "PreferClose", "PreferSameNode", '
                '"PreferSameZone"'
            ],
        ),
        (
            {"ports": PORTS, "externalIPs": ["169.254.169.254", "::ffff:127.0.0.1", "192.0.2.1"]},
            [
                'externalIPs[0]: Invalid value: "169.254.169.254": may not be in the link-local range '
                "(169.254.0.0/16, fe80::/10)",
                'externalIPs[1]: Invalid value: "::ffff:127.0.0.1": must not be an IPv4-mapped IPv6 address',
            ],
        ),
    ],
)
def test_what_a_spec_may_not_say(spec: dict[str, Any], wanted: list[str]) -> None:
    assert [fault.removeprefix("spec.") for fault in faults("Service", spec=spec)] == wanted


def test_annotations_that_are_fields_of_old_are_checked() -> None:
    ranges, mode = "service.beta.kubernetes.io/load-balancer-source-ranges", "service.kubernetes.io/topology-mode"
    old_mode = "service.kubernetes.io/topology-aware-hints"
    metadata = {"annotations": {ranges: "10.0.0.0/8, bad"}}
    assert faults("Service", metadata=metadata, spec=BALANCER) == [
        f'metadata.annotations[{ranges}]: Invalid value: "bad": must be a valid CIDR value, (e.g. 10.9.8.0/24 or '
        "2001:db8::/64)"
    ]
    metadata = {"annotations": {mode: "Auto", old_mode: "Disabled"}}
    assert faults("Service", metadata=metadata, spec={"ports": PORTS}) == [
        f'metadata.annotations[{mode}]: Invalid value: "Auto": must match annotations[{old_mode}] when both are '
        "specified"
    ]


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (BOTH, BOTH, []),
        (V4, BOTH, []),
        (BOTH, V4, []),
        (
            BOTH,
            {**V4, "ipFamilyPolicy": "PreferDualStack"},
            [
                "ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the "
                "secondary clusterIP",
                "ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the "
                "secondary ipFamily",
            ],
        ),
        (
            V4,
            {**V4, "clusterIP": "None", "clusterIPs": ["None"]},
            ['clusterIPs[0]: Invalid value: ["None"]: may not change once set'],
        ),
        (
            BOTH,
            {**BOTH, "clusterIPs": ["10.96.0.7", "fd00:96::8"]},
            ['clusterIPs[1]: Invalid value: ["10.96.0.7","fd00:96::8"]: may not change once set'],
        ),
        (
            BOTH,
            {
                **BOTH,
                "ipFamilies": ["IPv6", "IPv4"],
                "clusterIP": "fd00:96::7",
                "clusterIPs": ["fd00:96::7", "10.96.0.7"],
            },
            [
                'clusterIPs[0]: Invalid value: ["fd00:96::7","10.96.0.7"]: may not change once set',
                'clusterIPs[1]: Invalid value: ["fd00:96::7","10.96.0.7"]: may not change once set',
                'ipFamilies[0]: Invalid value: ["IPv6","IPv4"]: may not change once set',
                'ipFamilies[0]: Invalid value: ["IPv6","IPv4"]: may not change once set',
            ],
        ),
        (
            {**LOCAL, "healthCheckNodePort": 30001},
            {**LOCAL, "healthCheckNodePort": 30002},
            ["healthCheckNodePort: Forbidden: field is immutable"],
        ),
        (
            {**BALANCER, "loadBalancerClass": "example.com/a"},
            {**BALANCER, "loadBalancerClass": "example.com/b"},
            ['loadBalancerClass: Invalid value: "example.com/b": may not change once set'],
        ),
    ],
)
def test_what_may_not_change(old: dict[str, Any], new: dict[str, Any], wanted: list[str]) -> None:
    found = update_faults("Service", {"spec": {"ports": PORTS, **old}}, {"spec": {"ports": PORTS, **new}})
    assert [fault.removeprefix("spec.") for fault in found] == wanted


# Status


@pytest.mark.parametrize(
    ("kind", "ingress", "wanted"),
    [
        ("LoadBalancer", [{"ip": "192.0.2.1", "ipMode": "Proxy"}, {"hostname": "a.example"}], []),
        ("ClusterIP", [{"ip": "192.0.2.1"}], [": Forbidden: may only be used when `spec.type` is 'LoadBalancer'"]),
        (
            "LoadBalancer",
            [{"ip": "bad", "ipMode": "Magic"}, {"hostname": "192.0.2.1", "ipMode": "VIP"}],
            [
                '[0].ip: Invalid value: "bad": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
                '[0].ipMode: Unsupported value: "Magic": supported values: "Proxy", "VIP"',
                "[1].ipMode: Forbidden: may not be specified when `ip` is not set",
                '[1].hostname: Invalid value: "192.0.2.1": must be a DNS name, not an IP address',
            ],
        ),
    ],
)
def test_the_status_of_a_balancer(kind: str, ingress: list[dict[str, Any]], wanted: list[str]) -> None:
    obj = made("Service", spec={"type": kind, "ports": PORTS}, status={"loadBalancer": {"ingress": ingress}})
    found = shown(resource("Service").strategy.validate_status_update(obj, obj))
    assert [fault.removeprefix("status.loadBalancer.ingress") for fault in found] == wanted


def test_a_service_that_is_no_balancer_any_more_shows_none() -> None:
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}, "conditions": []}
    old = made("Service", spec=BALANCER, status=status)
    obj = made("Service", spec={**BALANCER, "type": "NodePort"})
    obj.status = old.status
    resource("Service").strategy.prepare_for_update(obj, old)
    assert plain(obj)["status"] == {"loadBalancer": {}}
    assert plain(old)["status"]["loadBalancer"]["ingress"]


# Changes of type, and what is kept


def changed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    before, obj = made("Service", spec=old), made("Service", spec=new)
    resource("Service").strategy.prepare_for_update(obj, before)
    spec: dict[str, Any] = plain(obj)["spec"]
    return spec


def test_ports_that_went_are_no_reason_to_keep_node_ports() -> None:
    """Whoever drops a port and the type at once leaves the other's node port in: it goes too."""
    two = [{"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 81, "nodePort": 30081}]
    old = {**V4, "type": "NodePort", "ports": two}
    assert "nodePort" not in changed(old, {**old, "type": "ClusterIP", "ports": two[:1]})["ports"][0]
    chosen = [{"name": "a", "port": 80, "nodePort": 30099}]
    assert changed(old, {**old, "type": "ClusterIP", "ports": chosen})["ports"][0]["nodePort"] == 30099


def test_a_port_of_the_same_name_keeps_its_node_port() -> None:
    old = {**V4, "type": "NodePort", "ports": [{"name": "web", "port": 80, "nodePort": 30080}]}
    assert changed(old, {"type": "NodePort", "ports": [{"name": "web", "port": 8080}]})["ports"][0]["nodePort"] == 30080


def test_external_ips_that_went_take_their_traffic_policy_along() -> None:
    old = {**V4, "ports": PORTS, "externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local"}
    assert "externalTrafficPolicy" not in changed(old, {**old, "externalIPs": []})


def test_a_health_check_port_is_kept_and_dropped_with_its_use() -> None:
    old = {**V4, **LOCAL, "healthCheckNodePort": 30001}
    assert changed(old, {**V4, **LOCAL})["healthCheckNodePort"] == 30001
    assert "healthCheckNodePort" not in changed(old, {**old, "externalTrafficPolicy": "Cluster"})


# Advice


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"ports": PORTS}, []),
        (
            {"ports": PORTS, "externalIPs": ["192.0.2.1"]},
            ["spec.externalIPs is deprecated and may no longer be implemented in some clusters"],
        ),
        (
            {"ports": PORTS, "clusterIP": "FD00::7", "clusterIPs": ["FD00::7"]},
            ['spec.clusterIPs[0]: IPv6 address "FD00::7" should be in RFC 5952 canonical format ("fd00::7")'],
        ),
        (
            {**BALANCER, "loadBalancerSourceRanges": ["2001:DB8::/32"]},
            [
                'spec.loadBalancerSourceRanges[0]: IPv6 CIDR value "2001:DB8::/32" should be in RFC 5952 canonical '
                'format ("2001:db8::/32")'
            ],
        ),
        (
            {"ports": PORTS, "trafficDistribution": "PreferClose"},
            ['spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'],
        ),
    ],
)
def test_advice(spec: dict[str, Any], wanted: list[str]) -> None:
    obj = msgspec.convert({"metadata": {"name": "web"}, "spec": spec}, Service)
    resource("Service").strategy.default(obj)
    assert list(resource("Service").strategy.warnings(obj, None)) == wanted
