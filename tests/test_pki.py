"""The certificate authority: what it issues, what it keeps, what it renews."""

from __future__ import annotations

import random
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from knarr import pki
from knarr.clock import SystemClock

NAMES = pki.apiserver_names("cluster.local", "ship")
ADDRESSES = ["127.0.0.1", "10.96.0.1"]
DAY_S = 86400.0


class FixedClock(SystemClock):
    """Stands still at a moment that the test moves."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.random = random.Random(1)
        self.now_s = 1_800_000_000.0

    def time_s(self) -> float:
        return self.now_s


def ensure(folder: Path, clock: FixedClock, addresses: list[str] = ADDRESSES) -> pki.Pki:
    return pki.ensure(folder, clock, dns_names=NAMES, addresses=addresses)


def test_server_answers_to_every_name_that_pods_and_users_call_it(tmp_path: Path) -> None:
    made = ensure(tmp_path / "pki", FixedClock())
    certificate = x509.load_pem_x509_certificate(made.apiserver.certificate_pem)
    held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert held.get_values_for_type(x509.DNSName) == [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
        "ship",
    ]
    assert [str(address) for address in held.get_values_for_type(x509.IPAddress)] == ADDRESSES
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_admin_certificate_is_kubernetes_admin_in_system_masters(tmp_path: Path) -> None:
    made = ensure(tmp_path / "pki", FixedClock())
    subject = x509.load_pem_x509_certificate(made.admin.certificate_pem).subject
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["kubernetes-admin"]
    assert [a.value for a in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["system:masters"]


def test_openssl_accepts_both_ends_of_a_handshake(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    made = pki.ensure(folder, SystemClock(), dns_names=NAMES, addresses=ADDRESSES)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made.ca.certificate_path))
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_X509_STRICT
    server.load_cert_chain(made.apiserver.certificate_path, made.apiserver.key_path)
    client = ssl.create_default_context(cafile=str(made.ca.certificate_path))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_cert_chain(made.admin.certificate_path, made.admin.key_path)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    far = server.wrap_bio(to_server, to_client, server_side=True)
    near = client.wrap_bio(to_client, to_server, server_hostname="kubernetes.default.svc")
    for _ in range(4):
        for end in (near, far):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    peer = far.getpeercert()
    assert peer is not None
    assert (("commonName", "kubernetes-admin"),) in peer["subject"]


def test_second_start_keeps_every_file(tmp_path: Path) -> None:
    clock = FixedClock()
    first = ensure(tmp_path / "pki", clock)
    clock.now_s += DAY_S
    assert ensure(tmp_path / "pki", clock) == first


def test_nobody_else_can_read_the_keys(tmp_path: Path) -> None:
    ensure(tmp_path / "pki", FixedClock())
    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "pki").iterdir()} == {0o600}
    assert not list((tmp_path / "pki").glob(".*"))


def test_certificate_near_its_end_is_renewed_with_the_same_key(tmp_path: Path) -> None:
    clock = FixedClock()
    first = ensure(tmp_path / "pki", clock)
    clock.now_s += (pki.CERTIFICATE_LIFE - pki.RENEW_BEFORE).total_seconds()
    second = ensure(tmp_path / "pki", clock)
    assert second.apiserver.certificate_pem != first.apiserver.certificate_pem
    assert second.apiserver.key_pem == first.apiserver.key_pem
    assert second.ca == first.ca


def test_new_address_gets_a_new_server_certificate_and_fewer_do_not(tmp_path: Path) -> None:
    clock = FixedClock()
    first = ensure(tmp_path / "pki", clock)
    moved = ensure(tmp_path / "pki", clock, [*ADDRESSES, "192.0.2.7"])
    assert moved.apiserver != first.apiserver
    assert moved.admin == first.admin
    assert ensure(tmp_path / "pki", clock).apiserver == moved.apiserver


def test_crash_between_key_and_certificate_of_the_authority_heals(tmp_path: Path) -> None:
    clock = FixedClock()
    first = ensure(tmp_path / "pki", clock)
    (tmp_path / "pki/ca.crt").unlink()
    second = ensure(tmp_path / "pki", clock)
    assert second.ca.key_pem == first.ca.key_pem
    x509.load_pem_x509_certificate(second.admin.certificate_pem).verify_directly_issued_by(
        x509.load_pem_x509_certificate(second.ca.certificate_pem)
    )


def test_certificates_of_a_replaced_authority_are_issued_again(tmp_path: Path) -> None:
    clock = FixedClock()
    first = ensure(tmp_path / "pki", clock)
    (tmp_path / "pki/ca.crt").unlink()
    (tmp_path / "pki/ca.key").unlink()
    second = ensure(tmp_path / "pki", clock)
    assert second.admin.certificate_pem != first.admin.certificate_pem
    x509.load_pem_x509_certificate(second.admin.certificate_pem).verify_directly_issued_by(
        x509.load_pem_x509_certificate(second.ca.certificate_pem)
    )


def test_authority_without_its_key_is_never_replaced_silently(tmp_path: Path) -> None:
    clock = FixedClock()
    ensure(tmp_path / "pki", clock)
    (tmp_path / "pki/ca.key").unlink()
    with pytest.raises(pki.PkiError, match="restore the key"):
        ensure(tmp_path / "pki", clock)


@pytest.mark.parametrize("content", [b"", b"garbage"])
def test_unreadable_certificate_is_issued_again(tmp_path: Path, content: bytes) -> None:
    clock = FixedClock()
    ensure(tmp_path / "pki", clock)
    (tmp_path / "pki/apiserver.crt").write_bytes(content)
    x509.load_pem_x509_certificate(ensure(tmp_path / "pki", clock).apiserver.certificate_pem)


def test_client_pair_carries_user_and_groups(tmp_path: Path) -> None:
    clock = FixedClock()
    ensure(tmp_path / "pki", clock)
    pair = pki.client_pair(tmp_path / "pki", clock, "node", "system:node:ship", ["system:nodes"])
    subject = x509.load_pem_x509_certificate(pair.certificate_pem).subject
    assert subject.rfc4514_string() == "CN=system:node:ship,O=system:nodes"
