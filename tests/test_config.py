"""Configuration: defaults, file, flags, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from knarr import config
from knarr.cli import machine
from knarr.cli.flags import flags
from knarr.config import Config, ConfigError

DOCUMENT = Path(__file__).parent.parent / "docs/configuration.md"


def problems(**settings: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load(None, settings)
    return caught.value.problems


def test_defaults_are_usable() -> None:
    loaded = config.load(None, {})
    assert (loaded.listen_host, loaded.listen_port) == ("0.0.0.0", 6443)
    assert loaded.api_service_ip == "10.96.0.1"
    assert loaded.node_ports == (30000, 32767)
    assert loaded.node_name == loaded.node_name.lower()


def test_ranges_of_one_family_are_cut_for_the_nodes() -> None:
    loaded = config.load(None, {"runtime": "sim", "sim_nodes": 2})
    assert loaded.node_ranges == [["10.244.0.0/24"], ["10.244.1.0/24"]]
    assert (loaded.cluster_cidrs, loaded.service_cidrs) == (["10.244.0.0/16"], ["10.96.0.0/16"])
    assert loaded.cluster_dns_addresses == ["10.96.0.10"]


DUAL_STACK = {
    "cluster_cidr": "10.244.0.0/16,fd00:244::/56",
    "service_cidr": "10.96.0.0/16, fd00:96::/112",
    "cluster_dns": "10.96.0.10,fd00:96::a",
}


def test_a_range_of_each_family_makes_the_cluster_dual_stack() -> None:
    loaded = config.load(None, {"runtime": "sim", "sim_nodes": 2, **DUAL_STACK})
    assert loaded.node_ranges == [["10.244.0.0/24", "fd00:244::/64"], ["10.244.1.0/24", "fd00:244:0:1::/64"]]
    assert loaded.service_cidrs == ["10.96.0.0/16", "fd00:96::/112"]
    assert loaded.cluster_dns_addresses == ["10.96.0.10", "fd00:96::a"]
    assert loaded.api_service_ip == "10.96.0.1"


def test_addresses_are_taken_however_they_are_written() -> None:
    settings = {
        "cluster_cidr": "FD00:0244::/56",
        "service_cidr": "fd00:0:0:0096::/112",
        "cluster_dns": "fd00:0:0:0096:0:0:0:A",
        "advertise_address": "2001:0DB8::0001",
    }
    loaded = machine.resolved(config.load(None, settings))
    assert (loaded.cluster_cidrs, loaded.service_cidrs) == (["fd00:244::/56"], ["fd00:0:0:96::/112"])
    assert (loaded.cluster_dns_addresses, loaded.advertise_address) == (["fd00:0:0:96::a"], "2001:db8::1")


def test_the_first_family_is_the_clusters_own() -> None:
    settings = {"cluster_cidr": "fd00:244::/56", "service_cidr": "fd00:96::/112", "cluster_dns": "fd00:96::a"}
    assert config.load(None, settings).api_service_ip == "fd00:96::1"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"cluster_cidr": "10.244.0.0/16,10.245.0.0/16"}, "clusterCidr: must be one range, or one of each family"),
        ({"cluster_cidr": ""}, "clusterCidr: must be one range"),
        ({"cluster_cidr": "10.244.0.0/16,fd00:244::/65"}, "clusterCidr: must be /64 or larger"),
        ({"service_cidr": "10.96.0.0/16"}, "serviceCidr: 10.96.0.0/16 must have the families of clusterCidr"),
        ({"service_cidr": "fd00:96::/112,10.96.0.0/16"}, "serviceCidr: fd00:96::/112,10.96.0.0/16 must have the"),
        ({"service_cidr": "10.96.0.0/16,fd00:96::/48"}, "serviceCidr: must be between /64 and /124, not /48"),
        ({"service_cidr": "10.96.0.0/16,fd00:244::/112"}, "serviceCidr: fd00:244::/112 overlaps clusterCidr"),
        ({"cluster_dns": "10.96.0.10,10.96.0.11"}, "clusterDns: must be one address, or one of each family"),
        ({"cluster_dns": "10.96.0.10,fd00:97::a"}, "clusterDns: fd00:97::a is not in serviceCidr"),
        ({"cluster_dns": "fd00:96::1"}, "clusterDns: fd00:96::1 is the range's own or the API server's"),
    ],
)
def test_ranges_that_do_not_go_together_are_refused(settings: dict[str, str], problem: str) -> None:
    (found,) = [each for each in problems(**{**DUAL_STACK, **settings}) if each.startswith(problem)]
    assert found


def test_resolvers_are_addresses_with_or_without_a_port() -> None:
    loaded = config.load(
        None,
        {
            "dns_forward": "192.0.2.1, [fd00::1]:5353",
            "dns_stub_domains": "corp.example=10.0.0.53+10.0.0.54:54,acme.test=fd00::2",
        },
    )
    assert loaded.dns_resolvers == [("192.0.2.1", 53), ("fd00::1", 5353)]
    assert loaded.dns_stub_resolvers == {
        "corp.example": [("10.0.0.53", 53), ("10.0.0.54", 54)],
        "acme.test": [("fd00::2", 53)],
    }


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"dns_forward": "dns.example"},
            "dnsForward: must be an IP address, with or without a port, not 'dns.example'",
        ),
        ({"dns_forward": "10.0.0.1:0"}, "dnsForward: must be an IP address, with or without a port, not '10.0.0.1:0'"),
        ({"dns_stub_domains": "corp.example"}, "dnsStubDomains: must be domain=address, not 'corp.example'"),
        ({"dns_stub_domains": "a=b"}, "dnsStubDomains: must be an IP address, with or without a port, not 'b'"),
        ({"dns_stub_domains": "cluster.local=10.0.0.1"}, "dnsStubDomains: cluster.local is the cluster's own domain"),
    ],
)
def test_resolvers_that_can_not_be_asked_are_refused(settings: dict[str, str], problem: str) -> None:
    assert problems(**settings) == [problem]


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "knarr.yaml"
    file.write_text("listen: 127.0.0.1:7000\nproxyMode: iptables\n")
    loaded = config.load(str(file), {"listen": "127.0.0.1:0"})
    assert loaded.listen == "127.0.0.1:0"
    assert loaded.proxy_mode == "iptables"
    assert loaded.cluster_cidr == "10.244.0.0/16"


def test_empty_file_means_defaults(tmp_path: Path) -> None:
    file = tmp_path / "knarr.yaml"
    file.write_text("# nothing yet\n")
    assert config.load(str(file), {}) == config.load(None, {})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("listn: x\n", "listn: unknown setting; there are dataDir, "),
        ("verbosity: loud\n", "verbosity: Expected `int`, got `str`"),
        ("runtime: docker\n", "runtime: Invalid enum value 'docker'"),
        ("- a\n", "must be a mapping of settings"),
        ("a: [\n", "not YAML"),
        ("listen: 2026-13-45\n", "not YAML"),
        ("[" * 20_000, "not YAML"),
    ],
)
def test_file_that_is_wrong_is_refused_with_the_field(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "knarr.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=problem.replace("[", r"\[")):
        config.load(str(file), {})


def test_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"/no/such\.yaml: No such file"):
        config.load("/no/such.yaml", {})


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"data_dir": "here"}, "dataDir"),
        ({"listen": "6443"}, "listen"),
        ({"listen": "host.example:6443"}, "listen"),
        ({"listen": "127.0.0.1:65536"}, "listen"),
        ({"advertise_address": "me"}, "advertiseAddress"),
        ({"node_name": "Ship_1"}, "nodeName"),
        ({"cluster_domain": "-x"}, "clusterDomain"),
        ({"cluster_cidr": "10.244.0.1/16"}, "clusterCidr"),
        ({"cluster_cidr": "10.244.0.0/25"}, "clusterCidr"),
        ({"service_cidr": "10.0.0.0/8", "cluster_cidr": "192.168.0.0/16"}, "serviceCidr"),
        ({"service_cidr": "10.244.1.0/24", "cluster_dns": "10.244.1.10"}, "serviceCidr"),
        ({"cluster_dns": "10.97.0.10"}, "clusterDns"),
        ({"cluster_dns": "10.96.0.1"}, "clusterDns"),
        ({"node_port_range": "32767-30000"}, "nodePortRange"),
        ({"node_port_range": "30000"}, "nodePortRange"),
        ({"node_port_range": "0-10"}, "nodePortRange"),
        ({"bridge_name": "a-name-too-long-for-it"}, "bridgeName"),
        ({"bridge_name": "a b"}, "bridgeName"),
        ({"drain_timeout": -1}, "drainTimeout"),
        ({"drain_timeout": 301}, "drainTimeout"),
        ({"verbosity": 11}, "verbosity"),
        ({"disable_admission_plugins": "NamespaceLifecycle"}, "disableAdmissionPlugins"),
        ({"sim_nodes": 0, "runtime": "sim"}, "simNodes"),
        ({"sim_nodes": 3}, "simNodes"),
    ],
)
def test_impossible_value_is_refused_with_its_field(settings: dict[str, object], field: str) -> None:
    assert [problem.partition(":")[0] for problem in problems(**settings)] == [field]


def test_external_ips_can_be_allowed() -> None:
    loaded = config.load(None, {"disable_admission_plugins": "DenyServiceExternalIPs"})
    assert loaded.disabled_admission_plugins == ["DenyServiceExternalIPs"]
    assert config.load(None, {}).disabled_admission_plugins == []


def test_every_problem_is_said_at_once() -> None:
    assert len(problems(listen="x", verbosity=99, node_port_range="x")) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:6443", ("127.0.0.1", 6443)),
        (":6443", ("0.0.0.0", 6443)),
        ("[::1]:0", ("::1", 0)),
    ],
)
def test_listen_addresses(text: str, expected: tuple[str, int]) -> None:
    assert config.split_address(text) == expected


@pytest.mark.parametrize(("host", "expected"), [("10.0.0.1", "10.0.0.1:6443"), ("fd00::1", "[fd00::1]:6443")])
def test_addresses_are_joined_with_their_port_as_in_a_url(host: str, expected: str) -> None:
    assert config.joined_address(host, 6443) == expected


def test_every_setting_is_a_flag_and_is_documented() -> None:
    fields = msgspec.structs.fields(Config)
    given = flags()
    assert [flag.name for flag in given] == [field.name for field in fields]
    text = DOCUMENT.read_text()
    for field, flag in zip(fields, given, strict=True):
        assert f"| `{field.encode_name}` | `{flag.option}` |" in text
