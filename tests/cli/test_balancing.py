"""Load balancers as a user configures them: which provider there is, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from knarr import config
from knarr.cli import balancing
from knarr.client.informer import Informers
from knarr.clock import SystemClock
from knarr.config import ConfigError
from tests.network.feed import Feed

AZURE = "subscription: s\nresourceGroup: g\nlocation: l\nvirtualNetwork: n\nsubnet: s\nsecurityGroup: g\n"


def informers() -> Informers:
    return Informers(Feed().client, SystemClock())


def test_without_configuration_it_is_the_machine_itself() -> None:
    provider = balancing.provider_of(config.load(None, {}), informers(), SystemClock())
    assert provider is not None
    assert (provider.name, provider.load_balancer_class) == ("local", "knarr.dev/local")
    assert balancing.provider_of(config.load(None, {"load_balancer": "none"}), informers(), SystemClock()) is None


@pytest.mark.parametrize(
    ("cloud", "text", "module"),
    [
        ("aws", "region: eu-west-1\n", "boto3"),
        ("gcp", "project: p\nregion: r\n", "google.cloud.compute_v1"),
        ("azure", AZURE, "azure.mgmt.network"),
    ],
)
def test_a_cloud_is_set_up_by_its_file(cloud: str, text: str, module: str, tmp_path: Path) -> None:
    pytest.importorskip(module)
    file = tmp_path / "cloud.yaml"
    file.write_text(text)
    made = config.load(None, {"load_balancer": cloud, "cloud_config": str(file)})
    balancing.check(made)
    provider = balancing.provider_of(made, informers(), SystemClock())
    assert provider is not None
    assert (provider.name, provider.load_balancer_class) == (cloud, f"knarr.dev/{cloud}")


@pytest.mark.parametrize(
    ("settings", "text", "why"),
    [
        ({"load_balancer_pools": "10.0.0.9-10.0.0.1"}, "", "loadBalancerPools: '10.0.0.9-10.0.0.1' is no range"),
        ({"load_balancer_pools": "10.96.1.0/24"}, "", "overlaps 10.96.0.0/16, the range of pods or Services"),
        ({"load_balancer": "aws"}, "regoin: x\n", "cloudConfig: .*regoin"),
        ({"load_balancer": "aws"}, "a: [\n", "cloudConfig: .*not YAML"),
        ({"load_balancer": "gcp"}, "project: p\n", "cloudConfig: .*region"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], text: str, why: str, tmp_path: Path) -> None:
    if text:
        file = tmp_path / "cloud.yaml"
        file.write_text(text)
        settings = {**settings, "cloud_config": str(file)}
    with pytest.raises(ConfigError, match=why):
        balancing.check(config.load(None, settings))


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancing, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"aws needs boto3: pip install 'knarr\[aws\]'"):
        balancing.check(config.load(None, {"load_balancer": "aws"}))


@pytest.mark.parametrize(
    "settings",
    [
        {"load_balancer": "none", "load_balancer_pools": "10.0.0.0/24"},
        {"cloud_config": "/tmp/x"},
        {"cluster_name": "no spaces"},
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        config.load(None, settings)
