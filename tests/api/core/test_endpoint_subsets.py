"""Endpoints as people write them: what is refused, and in which form they are kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.endpoint_subsets import repacked
from knarr.api.core.v1 import EndpointSubset
from tests.api.made import faults, made, plain, resource

NO_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def subset(*ips: str, ports: tuple[int, ...] = (80,), unready: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "addresses": [{"ip": ip} for ip in ips],
        "notReadyAddresses": [{"ip": ip} for ip in unready],
        "ports": [{"name": f"p{port}", "port": port, "protocol": "TCP"} for port in ports],
    }


@pytest.mark.parametrize(
    ("subsets", "wanted"),
    [
        ([subset("192.0.2.1", "2001:db8::1", unready=("192.0.2.2",))], []),
        ([{"addresses": [{"ip": "192.0.2.1"}]}], []),
        ([{"ports": [{"port": 80}]}], ["[0]: Required value: must specify `addresses` or `notReadyAddresses`"]),
        (
            [subset("127.0.0.1", unready=("169.254.169.254",))],
            [
                '[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, '
                "::1/128)",
                '[0].notReadyAddresses[0].ip: Invalid value: "169.254.169.254": may not be in the link-local range '
                "(169.254.0.0/16, fe80::/10)",
            ],
        ),
        (
            [subset("::ffff:127.0.0.1")],
            [
                '[0].addresses[0].ip: Invalid value: "::ffff:127.0.0.1": must not be an IPv4-mapped IPv6 address',
                '[0].addresses[0].ip: Invalid value: "::ffff:127.0.0.1": may not be in the loopback range '
                "(127.0.0.0/8, ::1/128)",
            ],
        ),
        (
            [
                {
                    "addresses": [{"ip": "192.0.2.1", "hostname": "A", "nodeName": "n"}],
                    "ports": [{"port": 0}, {"port": 1}],
                }
            ],
            [
                f'[0].addresses[0].hostname: Invalid value: "A": {NO_LABEL}',
                "[0].ports[0].name: Required value",
                "[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "[0].ports[1].name: Required value",
            ],
        ),
        (
            [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80, "protocol": "HTTP"}]}],
            ['[0].ports[0].protocol: Unsupported value: "HTTP": supported values: "SCTP", "TCP", "UDP"'],
        ),
    ],
)
def test_what_endpoints_may_not_say(subsets: list[dict[str, Any]], wanted: list[str]) -> None:
    assert [fault.removeprefix("subsets") for fault in faults("Endpoints", subsets=subsets)] == wanted


def tidy(*subsets: dict[str, Any]) -> list[tuple[list[str], list[str], list[int]]]:
    made_of = msgspec.convert(list(subsets), list[EndpointSubset])
    found = repacked(made_of)
    assert repacked(found) == found, "what is tidy stays as it is"
    return [
        (
            [each.ip for each in one.addresses],
            [each.ip for each in one.not_ready_addresses],
            [port.port for port in one.ports],
        )
        for one in found
    ]


@pytest.mark.parametrize(
    ("subsets", "wanted"),
    [
        ([subset("192.0.2.10", "192.0.2.9")], [(["192.0.2.9", "192.0.2.10"], [], [80])]),
        (
            [subset("192.0.2.1"), subset("192.0.2.1", ports=(81,))],
            [(["192.0.2.1"], [], [80, 81])],
        ),
        (
            [subset("192.0.2.1", "192.0.2.2"), subset("192.0.2.2", ports=(81,))],
            [(["192.0.2.1", "192.0.2.2"], [], [80]), (["192.0.2.2"], [], [81])],
        ),
        ([subset("192.0.2.1"), subset("192.0.2.2")], [(["192.0.2.1", "192.0.2.2"], [], [80])]),
        ([subset("192.0.2.1", unready=("192.0.2.1",))], [([], ["192.0.2.1"], [80])]),
        ([subset(unready=("192.0.2.1",)), subset("192.0.2.1")], [([], ["192.0.2.1"], [80])]),
        (
            [subset("192.0.2.1", ports=(80, 81)), subset(unready=("192.0.2.2",), ports=(80,))],
            [(["192.0.2.1"], ["192.0.2.2"], [80]), (["192.0.2.1"], [], [81])],
        ),
        ([{"addresses": [{"ip": "192.0.2.1"}]}], [(["192.0.2.1"], [], [])]),
    ],
)
def test_subsets_are_as_few_as_they_can_be(subsets: list[dict[str, Any]], wanted: list[Any]) -> None:
    assert tidy(*subsets) == wanted


def test_what_is_kept_is_tidy_and_what_is_faulty_is_told_by_where_it_was_written() -> None:
    strategy = resource("Endpoints").strategy
    two = made("Endpoints", subsets=[subset("192.0.2.1"), subset("192.0.2.1", ports=(81,))])
    strategy.prepare_for_create(two)
    assert len(plain(two)["subsets"]) == 1
    wrong = made("Endpoints", subsets=[subset("192.0.2.2"), subset("127.0.0.1")])
    strategy.prepare_for_create(wrong)
    assert [cause.field for cause in strategy.validate(wrong)] == ["subsets[1].addresses[0].ip"]


def test_addresses_written_at_length_are_advised_against_unless_a_program_wrote_them() -> None:
    strategy = resource("Endpoints").strategy
    written = made("Endpoints", subsets=[subset("2001:DB8::1")])
    assert list(strategy.warnings(written, None)) == [
        'subsets[0].addresses[0].ip: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")'
    ]
    labels = {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}
    kept = made("Endpoints", metadata={"labels": labels}, subsets=[subset("2001:DB8::1")])
    assert list(strategy.warnings(kept, None)) == []
