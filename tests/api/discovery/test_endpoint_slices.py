"""EndpointSlices as others write them: what is refused, what counts as a change, what is advised against."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import faults, made, plain, resource, update_faults


def endpoint(*addresses: str, **more: Any) -> dict[str, Any]:
    return {"addresses": list(addresses), **more}


def hinted(*zones: str, nodes: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"hints": {"forZones": [{"name": each} for each in zones], "forNodes": [{"name": each} for each in nodes]}}


@pytest.mark.parametrize(
    ("family", "endpoints", "wanted"),
    [
        ("IPv4", [endpoint("192.0.2.1", nodeName="n", hostname="a", zone="z")], []),
        ("IPv6", [endpoint("2001:db8::1")], []),
        ("FQDN", [endpoint("a.example."), endpoint("b.example")], []),
        ("IPv4", [endpoint()], ["[0].addresses: Required value: must contain at least 1 address"]),
        (
            "IPv4",
            [endpoint("2001:db8::1"), endpoint("bad")],
            [
                '[0].addresses[0]: Invalid value: "2001:db8::1": must be an IPv4 address',
                '[1].addresses[0]: Invalid value: "bad": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
            ],
        ),
        (
            "IPv4",
            [endpoint("127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0")],
            [
                '[0].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)',
                '[0].addresses[1]: Invalid value: "169.254.169.254": may not be in the link-local range '
                "(169.254.0.0/16, fe80::/10)",
                '[0].addresses[2]: Invalid value: "224.0.0.1": may not be in the link-local multicast range '
                "(224.0.0.0/24, ff02::/10)",
                '[0].addresses[3]: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)',
            ],
        ),
        (
            "IPv6",
            [endpoint("::1"), endpoint("fe80::1"), endpoint("::ffff:127.0.0.1")],
            [
                '[0].addresses[0]: Invalid value: "::1": may not be in the loopback range (127.0.0.0/8, ::1/128)',
                '[1].addresses[0]: Invalid value: "fe80::1": may not be in the link-local range (169.254.0.0/16, '
                "fe80::/10)",
                '[2].addresses[0]: Invalid value: "::ffff:127.0.0.1": must not be an IPv4-mapped IPv6 address',
            ],
        ),
        (
            "FQDN",
            [endpoint("localhost"), endpoint("")],
            [
                '[0].addresses[0]: Invalid value: "localhost": should be a domain with at least two segments separated '
                "by dots",
                "[1].addresses[0]: Required value",
            ],
        ),
        ("IPv4", [endpoint("192.0.2.1", **hinted("a", "b", nodes=("n",)))], []),
        (
            "IPv4",
            [endpoint("192.0.2.1", **hinted("a", "a", nodes=("n", "n")))],
            [
                '[0].hints.forZones[1].name: Duplicate value: "a"',
                '[0].hints.forNodes[1].name: Duplicate value: "n"',
            ],
        ),
        (
            "IPv4",
            [endpoint("192.0.2.1", **hinted(*"abcdefghi"))],
            ["[0].hints.forZones: Too many: 9: must have at most 8 items"],
        ),
    ],
)
def test_what_an_endpoint_may_not_say(family: str, endpoints: list[dict[str, Any]], wanted: list[str]) -> None:
    found = faults("EndpointSlice", addressType=family, endpoints=endpoints)
    assert [fault.removeprefix("endpoints") for fault in found] == wanted


def test_the_kind_of_addresses_is_known_and_stays() -> None:
    assert faults("EndpointSlice", addressType="IP") == [
        'addressType: Unsupported value: "IP": supported values: "FQDN", "IPv4", "IPv6"'
    ]
    assert faults("EndpointSlice") == ["addressType: Required value"]
    assert update_faults("EndpointSlice", {"addressType": "IPv4"}, {"addressType": "IPv6"}) == [
        'addressType: Invalid value: "IPv6": field is immutable'
    ]


def test_ports_have_names_of_their_own() -> None:
    ports = [{"port": 80}, {"port": 81}, {"name": "c", "port": 0, "protocol": "HTTP", "appProtocol": "a b"}]
    found = faults("EndpointSlice", addressType="IPv4", ports=ports)
    assert [fault.partition(":")[0] for fault in found] == [
        "ports[1].name",
        "ports[2].port",
        "ports[2].protocol",
        "ports[2].appProtocol",
    ]


def test_labels_count_as_a_change_and_annotations_do_not() -> None:
    strategy = resource("EndpointSlice").strategy
    old = made("EndpointSlice", metadata={"generation": 4, "labels": {"a": "1"}}, addressType="IPv4")

    def generation(**metadata: Any) -> Any:
        obj = made("EndpointSlice", metadata={"generation": 4, **metadata}, addressType="IPv4")
        strategy.prepare_for_update(obj, old)
        return plain(obj)["metadata"]["generation"]

    assert generation(labels={"a": "2"}) == 5
    assert generation(labels={"a": "1"}, annotations={"x": "y"}) == 4


def test_topology_of_old_is_kept_until_the_endpoints_are_written_anew() -> None:
    strategy = resource("EndpointSlice").strategy
    topology = {"deprecatedTopology": {"kubernetes.io/hostname": "n"}}
    new = made("EndpointSlice", addressType="IPv4", endpoints=[endpoint("192.0.2.1", **topology)])
    strategy.prepare_for_create(new)
    assert "deprecatedTopology" not in plain(new)["endpoints"][0]
    old = made("EndpointSlice", addressType="IPv4", endpoints=[endpoint("192.0.2.1", **topology)])
    same = made("EndpointSlice", addressType="IPv4", endpoints=[endpoint("192.0.2.1", **topology)])
    strategy.prepare_for_update(same, old)
    assert plain(same)["endpoints"][0]["deprecatedTopology"] == topology["deprecatedTopology"]


def test_advice() -> None:
    strategy = resource("EndpointSlice").strategy
    named = made("EndpointSlice", addressType="FQDN", endpoints=[endpoint("a.example")])
    assert list(strategy.warnings(named, None)) == ["spec.addressType: FQDN endpoints are deprecated"]
    long = made("EndpointSlice", addressType="IPv6", endpoints=[endpoint("2001:DB8::1")])
    assert list(strategy.warnings(long, None)) == [
        'endpoints[0].addresses[0]: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")'
    ]
