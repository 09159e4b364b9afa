"""IP addresses and ranges: what is refused, and what is only advised against (KEP-4858)."""

from __future__ import annotations

import pytest

from knarr.api.core.validate_addresses import (
    canonical,
    cidr_warnings,
    ip_warnings,
    validate_cidr,
    validate_ip,
    validate_not_special,
)

NO_IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
NO_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("10.9.8.7", ""),
        ("0.0.0.0", ""),
        ("2001:db8::ffff", ""),
        ("2001:DB8:0:0::FFFF", ""),
        ("1:2:3:4:5:6:10.0.0.1", ""),
        ("", NO_IP),
        ("10.9.8", NO_IP),
        ("10.9.8.256", NO_IP),
        ("fe80::1%eth0", NO_IP),
        ("10.9.8.7/24", NO_IP),
        ("010.9.8.7", "must not have leading 0s"),
        ("10.9.08.7", "must not have leading 0s"),
        ("::ffff:10.9.8.7", "must not be an IPv4-mapped IPv6 address"),
        ("::ffff:a09:807", "must not be an IPv4-mapped IPv6 address"),
    ],
)
def test_addresses(text: str, fault: str) -> None:
    found = [cause.message for cause in validate_ip(text, "ip")]
    assert found == ([f'Invalid value: "{text}": {fault}'] if fault else [])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("10.9.8.0/24", ""),
        ("10.9.8.7/32", ""),
        ("::/0", ""),
        ("2001:db8::/64", ""),
        ("10.9.8.0", NO_CIDR),
        ("10.9.8.0/33", NO_CIDR),
        ("10.9.8.0/-1", NO_CIDR),
        ("10.9.8.0/255.255.255.0", NO_CIDR),
        ("2001:db8::/129", NO_CIDR),
        ("/24", NO_CIDR),
        ("10.9.8.0/024", "must not have leading 0s in IP or prefix length"),
        ("10.09.8.0/24", "must not have leading 0s in IP or prefix length"),
        ("::ffff:10.9.8.0/120", "must not have an IPv4-mapped IPv6 address"),
        ("10.9.8.7/24", "must not have bits set beyond the prefix length"),
        ("2001:db8::1/64", "must not have bits set beyond the prefix length"),
    ],
)
def test_ranges(text: str, fault: str) -> None:
    found = [cause.message for cause in validate_cidr(text, "cidr")]
    assert found == ([f'Invalid value: "{text}": {fault}'] if fault else [])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("10.9.8.7", ""),
        ("224.0.1.1", ""),
        ("ff05::1", ""),
        ("0.0.0.0", "may not be unspecified (0.0.0.0)"),
        ("::", "may not be unspecified (::)"),
        ("127.1.2.3", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("::1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("::ffff:127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("169.254.169.254", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        ("fe80::1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        ("224.0.0.251", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        ("ff02::fb", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        ("bad", "must be a valid IP address"),
    ],
)
def test_addresses_that_no_traffic_may_be_sent_to(text: str, fault: str) -> None:
    found = [cause.message for cause in validate_not_special(text, "ip")]
    assert found == ([f'Invalid value: "{text}": {fault}'] if fault else [])


def test_addresses_written_at_length_are_advised_against() -> None:
    assert list(ip_warnings("10.0.0.1", "ip")) == []
    assert list(ip_warnings("2001:db8::1", "ip")) == []
    assert list(ip_warnings("2001:DB8:0::1", "ip")) == [
        'ip: IPv6 address "2001:DB8:0::1" should be in RFC 5952 canonical format ("2001:db8::1")'
    ]
    assert list(cidr_warnings("2001:DB8::/64", "range")) == [
        'range: IPv6 CIDR value "2001:DB8::/64" should be in RFC 5952 canonical format ("2001:db8::/64")'
    ]
    assert list(cidr_warnings("10.0.0.0/8", "range")) == []
    assert (canonical("FD00::0A"), canonical("10.0.0.1"), canonical("None")) == ("fd00::a", "10.0.0.1", "None")
