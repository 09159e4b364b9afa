"""Configuration: defaults, file, flags, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from knarr import config
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
        ({"verbosity": 11}, "verbosity"),
        ({"sim_nodes": 0, "runtime": "sim"}, "simNodes"),
        ({"sim_nodes": 3}, "simNodes"),
    ],
)
def test_impossible_value_is_refused_with_its_field(settings: dict[str, object], field: str) -> None:
    assert [problem.partition(":")[0] for problem in problems(**settings)] == [field]


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


def test_every_setting_is_a_flag_and_is_documented() -> None:
    fields = msgspec.structs.fields(Config)
    flags = config.flags()
    assert [flag.name for flag in flags] == [field.name for field in fields]
    text = DOCUMENT.read_text()
    for field, flag in zip(fields, flags, strict=True):
        assert f"| `{field.encode_name}` | `{flag.option}` |" in text
