"""`knarr proxy`: the service rules alone, over HTTPS."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knarr.api.core.v1 import Node, Service
from knarr.api.networking.v1 import ServiceCIDR
from knarr.cli import kubeconfig, machine
from knarr.cli.exit_codes import FAILED, USAGE
from knarr.cli.main import main
from knarr.cli.proxy import TABLE, ProxyFlags, clean_up, serve
from knarr.client.client import Client
from tests.apiserver.pipeline.served import serve as served_api
from tests.network.lab import REPLY_TIMEOUT_S, Lab, until
from tests.network.proxy.objects import NODE, endpoint, endpoint_slice, node, service

FOLLOWED = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"
"""The labels that kube-proxy asks for."""


@pytest.mark.e2e
async def test_it_keeps_rules_over_https_and_leaves_them_at_its_end(lab: Lab, tmp_path: Path) -> None:
    pod = await lab.add_pod("a")
    await lab.serve("a")
    async with served_api(tmp_path / "server") as served:
        client = served.door.client
        made = await client.create(service(cluster_ip="10.96.0.20"))
        assert made.spec
        access = kubeconfig.read(Path(served.kubeconfig()))
        flags = ProxyFlags(mode="nftables", node_name=NODE, cluster_cidrs=("10.244.0.0/16",))
        running = asyncio.create_task(serve(flags, access, lab.path("node")))
        try:
            await client.create(endpoint_slice(endpoint(pod)))

            async def answers() -> bool:
                with contextlib.suppress(OSError):
                    return (await lab.ask("node", "10.96.0.20", 80))[0] == "a"
                return False

            await until(answers)
        finally:
            running.cancel()
            await asyncio.wait([running])
        assert await answers(), "the rules stay"
        assert f"table ip {TABLE}" in lab.inside("node", "nft list tables")
        await clean_up(lab.path("node"))
        assert TABLE not in lab.inside("node", "nft list tables")


async def test_a_token_comes_in_without_a_certificate(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "ca.crt").write_text("CA")
    path = tmp_path / "config"
    path.write_text("""
clusters: [{name: k, cluster: {server: "https://x", certificate-authority: ca.crt}}]
users: [{name: u, user: {tokenFile: token}}]
contexts: [{name: c, context: {cluster: k, user: u}}]
current-context: c
""")
    access = kubeconfig.read(path)
    assert (access.token, access.certificate_pem) == ("secret", b"")


def test_ranges_that_are_none_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--cluster-cidr", "--service-cidr", "--nodeport-addresses"):
        assert main(["proxy", option, "10.0.0.0/8,nonsense"]) == 2
        assert capsys.readouterr().err.startswith(f"knarr: {option}: must be ranges")


@pytest.mark.parametrize("option", ["--healthz-port", "--metrics-port"])
def test_ports_that_are_none_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    for port in ("0", "-1", "65536"):
        assert main(["proxy", option, port]) == USAGE
        assert capsys.readouterr().err == f"knarr: {option}: must be 1 to 65535, not {port}\n"


def test_who_cant_have_rules_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine, "installed", lambda program: False)
    assert main(["proxy", "--mode", "nftables"]) == FAILED
    assert capsys.readouterr().err == "knarr: nft is not installed (Debian: apt-get install nftables)\n"
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    assert main(["proxy"]) == FAILED
    assert capsys.readouterr().err == "knarr: service rules need root\n"


async def test_what_kube_proxy_asks_for_is_served(tmp_path: Path) -> None:
    """Its lists and watches, with its selectors (metadata of what it leaves to others never reaches it)."""
    async with served_api(tmp_path / "server") as served:
        client = served.door.client
        other = service("other", "10.96.0.21")
        other.metadata.labels["service.kubernetes.io/service-proxy-name"] = "another"
        headless = service("headless", "None")
        headless.metadata.labels["service.kubernetes.io/headless"] = ""
        for each in (service(), other, headless):
            await client.create(each)
        assert await _names(client, Service, label_selector=FOLLOWED) == ["kubernetes", "web", "kube-dns"]
        of_other = endpoint_slice(endpoint("10.0.0.1"), service="other", name="other-1")
        of_other.metadata.labels["service.kubernetes.io/service-proxy-name"] = "another"
        for each in (endpoint_slice(endpoint("10.0.0.1")), of_other):
            await client.create(each)
        slices = await _names(client, type(of_other), label_selector=FOLLOWED)
        assert ("web-1" in slices, "other-1" in slices) == (True, False)
        assert await _names(client, ServiceCIDR) == ["kubernetes"]
        for name in (NODE, "another"):
            await client.create(node(name, "192.0.2.1"))
        assert await _names(client, Node, field_selector=f"metadata.name={NODE}") == [NODE]
        seen: list[str] = []
        listed = await client.list(Service, label_selector=FOLLOWED)
        watching = asyncio.create_task(_watch(client, listed.resource_version, seen.append))
        changed = await client.get(Service, "other", "default")
        changed.metadata.labels.pop("service.kubernetes.io/service-proxy-name")
        await client.update(changed)
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            while "ADDED other" not in seen:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        watching.cancel()


async def _names(client: Client, kind: type[Any], **selection: str) -> list[str]:
    return [each.metadata.name for each in (await client.list(kind, **selection)).items]


async def _watch(client: Client, version: str, tell: Callable[[str], None]) -> None:
    async for event in client.watch(Service, resource_version=version, label_selector=FOLLOWED):
        tell(f"{event.type} {event.object.metadata.name}")
