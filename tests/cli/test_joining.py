"""Joining a cluster: whom a machine trusts, what a token is good for, what is kept for the next start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from knarr import config
from knarr.api.certificates.v1 import CertificateSigningRequest
from knarr.api.core.cluster_info import SETTINGS_KEY, ClusterSettings, public_map, settings_map, settings_of
from knarr.api.core.v1 import ConfigMap, Node, Secret
from knarr.api.errors import APIError, Forbidden, Unauthorized
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.registry import built_in
from knarr.cli import machine
from knarr.cli.joining import Invitation, JoinRefused, Membership, hash_of, problem_of
from knarr.cli.kubeconfig import KubeconfigError
from knarr.cli.main import main
from knarr.cli.node_process import NodeFlags, NodeProcess
from knarr.cli.token import seconds
from knarr.client.client import Client
from knarr.client.https import HTTPSTransport
from knarr.client.informer import Informers
from knarr.clock import SystemClock
from knarr.controllers.csr_approving import CertificateApproval
from knarr.controllers.csr_signing import CertificateSigning
from knarr.node.certificates import CLIENT, NodeCertificates
from tests.apiserver.pipeline.served import Served, serve

SETTINGS = ClusterSettings(
    cluster_cidrs=("10.244.0.0/16", "fd00::/48"),
    service_cidrs=("10.96.0.0/16",),
    cluster_dns=("10.96.0.10",),
    cluster_domain="cluster.local",
)


@asynccontextmanager
async def open_cluster(folder: Path) -> AsyncIterator[Served]:
    """A server with what machines that join need, and the loops that give certificates."""
    async with serve(folder) as served:
        for each in (settings_map(SETTINGS), public_map(served.url, _authority(served)[0])):
            await served.door.client.create(each)
        async with signing(served):
            yield served


@asynccontextmanager
async def signing(served: Served) -> AsyncIterator[None]:
    client, clock = served.door.client, SystemClock()
    informers = Informers(client, clock)
    loops = [
        CertificateApproval(client, informers, clock),
        CertificateSigning(client, informers, clock, *_authority(served)),
    ]
    tasks = [asyncio.create_task(each.run()) for each in (*loops, informers)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _authority(served: Served) -> tuple[bytes, bytes]:
    """Certificate and key."""
    return (served.folder / "ca.crt").read_bytes(), (served.folder / "ca.key").read_bytes()


async def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints; it must succeed."""
    code = await asyncio.to_thread(main, arguments)
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out.strip()


async def invited(served: Served, capsys: pytest.CaptureFixture[str], *more: str) -> Invitation:
    words = (await told(capsys, "token", "create", "--kubeconfig", served.kubeconfig(), *more)).split()
    assert words[:2] == ["knarr", "node"]
    given = dict(zip(words[2::2], words[3::2], strict=True))
    return Invitation(given["--server"], given["--token"], (given["--discovery-token-ca-cert-hash"],))


def member(folder: Path, name: str = "second") -> Membership:
    return Membership(folder, NodeCertificates(folder / "pki", name, SystemClock()))


async def test_a_machine_joins_by_the_printed_command_and_is_a_node_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_cluster(tmp_path / "server") as served:
        invitation = await invited(served, capsys)
        assert problem_of(invitation) is None
        machine = member(tmp_path / "node")
        assert not machine.is_member
        await machine.join(invitation)
        assert machine.is_member
        for path in machine.certificates.paths(CLIENT):
            assert path.stat().st_mode & 0o777 == 0o600
        transport = HTTPSTransport(invitation.server, machine.context())
        node = Client(transport, built_in())
        try:
            await node.create(Node(metadata=ObjectMeta(name="second")))
            settings = await node.get(ConfigMap, "knarr-node", "kube-system")
            assert settings_of(settings.data) == SETTINGS
            assert [each.metadata.name for each in (await node.list(Node)).items] == ["second"]
            with pytest.raises(Forbidden, match='is not allowed to modify node "first"'):
                await node.create(Node(metadata=ObjectMeta(name="first")))
            with pytest.raises(Forbidden):
                await node.list(Secret)
        finally:
            await transport.close()


async def test_an_authority_with_another_key_is_not_trusted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_cluster(tmp_path / "server") as served:
        good = await invited(served, capsys)
        machine = member(tmp_path / "node")
        with pytest.raises(JoinRefused, match="none of those given"):
            await machine.join(Invitation(good.server, good.token, (f"sha256:{'0' * 64}",)))
        assert not machine.ca_path.exists()
        assert not (await served.door.client.list(CertificateSigningRequest)).items


async def test_a_token_that_has_expired_or_was_deleted_gives_no_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_cluster(tmp_path / "server") as served:
        invitation = await invited(served, capsys, "--ttl", "2h", "--description", "for a test")
        identity = invitation.token.partition(".")[0]
        secret = await served.door.client.get(Secret, f"bootstrap-token-{identity}", "kube-system")
        expires = datetime.fromisoformat(secret.data["expiration"].decode())
        assert 7190 < (expires - datetime.now(UTC)).total_seconds() <= 7200
        listed = await told(capsys, "token", "list", "--kubeconfig", served.kubeconfig())
        assert identity in listed
        assert "for a test" in listed
        assert invitation.token not in listed
        await told(capsys, "token", "delete", invitation.token, "--kubeconfig", served.kubeconfig())
        with pytest.raises(Unauthorized):
            await member(tmp_path / "node").join(invitation)


async def test_a_bootstrap_token_is_good_for_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_cluster(tmp_path / "server") as served:
        invitation = await invited(served, capsys)
        transport = served.transport(invitation.token, certificate=False)
        for kind in (Node, Secret):
            with pytest.raises(Forbidden):
                await Client(transport, built_in()).list(kind)
        await transport.close()


async def test_a_kubeconfig_does_in_place_of_a_token(tmp_path: Path) -> None:
    async with open_cluster(tmp_path / "server") as served:
        machine = member(tmp_path / "node")
        await machine.join(Invitation(server=served.url, kubeconfig=served.kubeconfig()))
        assert machine.is_member
        assert sorted(each.name for each in (tmp_path / "node/pki").iterdir()) == [
            "ca.crt",
            "kubelet-client.crt",
            "kubelet-client.key",
        ]


async def test_a_token_in_a_kubeconfig_does_too(tmp_path: Path) -> None:
    async with open_cluster(tmp_path / "server") as served:
        config = yaml.safe_load((tmp_path / served.kubeconfig()).read_text())
        config["users"][0]["user"] = {"token": "none that anybody knows"}
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        with pytest.raises(Unauthorized):
            await member(tmp_path / "node").join(Invitation(served.url, kubeconfig=str(tmp_path / "config")))


async def test_whom_an_attempt_before_has_trusted_is_forgotten_at_the_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_cluster(tmp_path / "other") as other:
        gone = await invited(other, capsys)
        await told(capsys, "token", "delete", gone.token, "--kubeconfig", other.kubeconfig())
        with pytest.raises(Unauthorized):
            await member(tmp_path / "node").join(gone)
    async with open_cluster(tmp_path / "server") as served:
        machine = member(tmp_path / "node")
        await machine.join(await invited(served, capsys))
        assert machine.is_member


async def test_a_kubeconfig_whose_certificates_cant_be_used_leaves_nothing(tmp_path: Path) -> None:
    data = {"certificate-authority-data": "bm9uZQ==", "server": "https://127.0.0.1:1"}
    config = {
        "clusters": [{"name": "a", "cluster": data}],
        "users": [{"name": "a", "user": {"token": "t"}}],
        "contexts": [{"name": "knarr", "context": {"cluster": "a", "user": "a"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    machine = member(tmp_path / "node")
    with pytest.raises(KubeconfigError, match="certificates can't be used"):
        await machine.join(Invitation("https://127.0.0.1:1", kubeconfig=str(tmp_path / "config")))
    assert not machine.ca_path.exists()


async def test_who_was_killed_while_he_waited_finds_his_request_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serve(tmp_path / "server") as served:  # Nobody approves or signs.
        await served.door.client.create(public_map(served.url, _authority(served)[0]))
        invitation = await invited(served, capsys)
        task = asyncio.create_task(member(tmp_path / "node").join(invitation))
        async with served.door.watch("/apis/certificates.k8s.io/v1/certificatesigningrequests") as events:
            _, request = await events.next()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with signing(served):
            await member(tmp_path / "node").join(invitation)
        (found,) = (await served.door.client.list(CertificateSigningRequest)).items
        assert found.metadata.name == request["metadata"]["name"]


async def test_a_certificate_of_another_name_or_with_another_key_is_asked_for_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_cluster(tmp_path / "server") as served:
        await member(tmp_path / "node").join(await invited(served, capsys))
        assert not member(tmp_path / "node", "renamed").is_member
        key = tmp_path / "node/pki/kubelet-client.key"
        key.write_bytes(b"damaged")
        assert not member(tmp_path / "node").is_member


async def test_a_certificate_is_renewed_by_itself_before_it_runs_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Later(SystemClock):
        """The same clock, when most of a certificate's life is over."""

        def time_s(self) -> float:
            return super().time_s() + 360 * 86400

    async with open_cluster(tmp_path / "server") as served:
        machine = member(tmp_path / "node")
        await machine.join(await invited(served, capsys))
        path = machine.certificates.paths(CLIENT)[0]
        first = path.read_bytes()
        transport = HTTPSTransport(served.url, machine.context())
        renewed = asyncio.Event()
        later = NodeCertificates(tmp_path / "node/pki", "second", Later())
        task = asyncio.create_task(later.keep(CLIENT, Client(transport, built_in()), renewed.set))
        try:
            async with asyncio.timeout(60):
                await renewed.wait()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await transport.close()
        assert path.read_bytes() != first
        assert machine.is_member


def test_the_pin_is_kubeadms() -> None:
    """openssl x509 -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256, of this certificate."""
    assert hash_of(CERTIFICATE) == PIN


@pytest.mark.parametrize(
    ("invitation", "problem"),
    [
        (Invitation(), "--server is needed"),
        (Invitation("http://a:1"), "--server: must be https"),
        (Invitation("https://a:1", "token"), "--token: must be of the form"),
        (Invitation("https://a:1", "abcdef.0123456789abcdef"), "--discovery-token-ca-cert-hash is needed"),
        (Invitation("https://a:1", "abcdef.0123456789abcdef", ("md5:1",)), "must be sha256:"),
        (Invitation("https://a:1", "abcdef.0123456789abcdef", kubeconfig="f"), "two ways to join"),
    ],
)
def test_what_cannot_work_is_said_before_anything_starts(invitation: Invitation, problem: str) -> None:
    assert problem in (problem_of(invitation) or "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("24h", 86400), ("1h30m", 5400), ("90s", 90), ("0", 0), ("", None), ("1d", None), ("-1h", None)],
)
def test_durations_are_written_as_go_writes_them(text: str, expected: int | None) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "{}", "clusters: []", "clusters: [{cluster: {}}]", "\0", "[1]", "clusters: 3"])
async def test_cluster_info_that_cannot_be_read_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_cluster(tmp_path / "server") as served:
        invitation = await invited(served, capsys)
        await served.door.client.patch(ConfigMap, "cluster-info", {"data": {"kubeconfig": text}}, "kube-public")
        with pytest.raises(JoinRefused, match="can't be read"):
            await member(tmp_path / "node").join(invitation)


def test_settings_that_lack_something_are_named() -> None:
    without = settings_map(SETTINGS).data[SETTINGS_KEY].replace("clusterDns", "other")
    with pytest.raises(ValueError, match=r"kube-system/knarr-node.*`clusterDns`"):
        settings_of({SETTINGS_KEY: without})
    with pytest.raises(ValueError, match="can't be read"):
        settings_of({})


async def test_a_server_that_tells_nothing_of_its_cluster_is_not_joined(tmp_path: Path) -> None:
    async with serve(tmp_path / "server") as served:
        invitation = Invitation(served.url, "abcdef.0123456789abcdef", (f"sha256:{'0' * 64}",))
        with pytest.raises((JoinRefused, APIError)):
            await member(tmp_path / "node").join(invitation)


CERTIFICATE = b"""\
-----BEGIN CERTIFICATE-----
MIIBgTCCASegAwIBAgIUah7H53tA9JJVJt7j90OdWbkEIzMwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa3ViZXJuZXRlczAgFw0yNjExMjgwMzQ4MTRaGA8yMTI2MTEw
NDAzNDgxNFowFTETMBEGA1UEAwwKa3ViZXJuZXRlczBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABCXtN1JMOggKuuxgaER+me13iWVYSxRVNlaNLDTvAtMjNVXZaXVs
CmBEu5dKbuQ10bElLlIetIMtNanJcd4YWECjUzBRMB0GA1UdDgQWBBTbceMCIuzO
mNo4cgy4KDdGCwrcijAfBgNVHSMEGDAWgBTbceMCIuzOmNo4cgy4KDdGCwrcijAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQCD/6zyOrurTMSNvZHZ
59mwYTrS0eNMzZJyCROy6dsyeQIgBP5s/8EhHbbaOiQDs+hHYHxbD4V2deNNQcw6
+PDGaag=
-----END CERTIFICATE-----
"""
PIN = "sha256:b6e758ebe0134da96d772bf0ddc478e7554ac13d9f490e0f3af08e607d851e17"


@pytest.mark.parametrize(("said", "resolvers"), [("192.0.2.53,192.0.2.54:5353", 2), ("", 0)])
def test_a_machine_that_joined_knows_the_clusters_resolvers_and_its_own_name(
    said: str, resolvers: int, tmp_path: Path
) -> None:
    """Without a word each machine asks those of its own resolv.conf."""
    cluster = machine.resolved(config.load(None, {"dns_forward": said, "advertise_address": "192.0.2.1"}))
    told = settings_of(settings_map(machine.cluster_settings(cluster)).data)
    flags = NodeFlags(
        name="second",
        data_dir=str(tmp_path),
        server="https://192.0.2.1:6443",
        node_ip="192.0.2.2",
        provider_id="aws:///eu-west-1a/i-2",
        proxy_mode="nftables",
    )
    nobody: Any = None
    joined = NodeProcess(flags, Invitation(flags.server), nobody, nobody, 0.0)._settings(told, ("10.244.1.0/24",))
    assert joined.dns_forward == machine.node_settings(cluster).dns_forward == tuple(cluster.dns_resolvers)
    assert len(joined.dns_forward) == resolvers
    assert (joined.provider_id, machine.node_settings(cluster).provider_id) == ("aws:///eu-west-1a/i-2", "")
