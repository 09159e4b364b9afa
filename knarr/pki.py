"""The cluster's own certificate authority, and the certificates and keys that it issues.

Made once into <data-dir>/pki, found again at the next start, renewed when near their end or when the API
server has to answer to a name that its certificate lacks. The names and the layout follow kubeadm's:

    ca.crt, ca.key                 signs everything below
    apiserver.crt, apiserver.key   what the API server shows
    apiserver-kubelet-client.*     what the API server shows to nodes in other processes
    front-proxy-ca.*, front-proxy-client.*   by these, servers of other parts of the API know this one; the authority is
                                   one of its own, so that nobody is taken for a user by it
    admin.crt, admin.key           in the kubeconfig: the user kubernetes-admin in the group system:masters
    sa.pub, sa.key                 service-account tokens are signed with it (ES256)

All keys are on the curve P-256: an RSA key costs more time to generate than the rest of the start. Files are
0600 and appear whole or not at all.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from knarr.clock import Clock, utc

CA_LIFE = timedelta(days=3650)
CERTIFICATE_LIFE = timedelta(days=365)
RENEW_BEFORE = timedelta(days=60)
"""A certificate with less than this left is replaced at start."""
BACKDATE = timedelta(minutes=5)
"""Certificates begin this much in the past, for clients whose clock is a little late."""

ADMIN_USER, ADMIN_GROUP = "kubernetes-admin", "system:masters"
KUBELET_CLIENT_USER = "kube-apiserver-kubelet-client"
FRONT_PROXY_USER = "front-proxy-client"


class PkiError(Exception):
    """Files in the pki folder that knarr can't use and must not replace by itself."""


class KeyPair(Struct, frozen=True):
    """A certificate and its private key, as files and as PEM."""

    certificate_path: Path
    key_path: Path
    certificate_pem: bytes
    key_pem: bytes


class Pki(Struct, frozen=True):
    """What a running cluster needs of its certificates."""

    ca: KeyPair
    apiserver: KeyPair
    admin: KeyPair
    kubelet_client: KeyPair
    front_proxy_ca: KeyPair
    front_proxy_client: KeyPair
    service_account_key_pem: bytes
    """Private key (PKCS #8) that signs service-account tokens."""


def ensure(folder: Path, clock: Clock, *, dns_names: Sequence[str], addresses: Sequence[str]) -> Pki:
    """Everything in `folder`, made or renewed where needed. The API server answers to the names given."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = utc(clock.time_s())
    authority = _Authority.ensure(folder, now)
    server_names = _alternative_names(dns_names, addresses)
    apiserver = authority.pair("apiserver", _subject("kube-apiserver"), ExtendedKeyUsageOID.SERVER_AUTH, server_names)
    admin = authority.pair("admin", _subject(ADMIN_USER, [ADMIN_GROUP]), ExtendedKeyUsageOID.CLIENT_AUTH, None)
    server_as_client = _subject(KUBELET_CLIENT_USER, [ADMIN_GROUP])
    kubelet_client = authority.pair("apiserver-kubelet-client", server_as_client, ExtendedKeyUsageOID.CLIENT_AUTH, None)
    front_proxy = _Authority.ensure(folder, now, "front-proxy-ca", "front-proxy-ca")
    as_front_proxy = _subject(FRONT_PROXY_USER)
    front_proxy_client = front_proxy.pair("front-proxy-client", as_front_proxy, ExtendedKeyUsageOID.CLIENT_AUTH, None)
    signing_key = _ensure_key(folder / "sa.key")
    public_pem = signing_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write_when_changed(folder / "sa.pub", public_pem)
    return Pki(
        ca=authority.files,
        apiserver=apiserver,
        admin=admin,
        kubelet_client=kubelet_client,
        front_proxy_ca=front_proxy.files,
        front_proxy_client=front_proxy_client,
        service_account_key_pem=_key_pem(signing_key),
    )


def apiserver_names(cluster_domain: str, host_name: str) -> list[str]:
    """The names under which the API server is called, from inside the cluster and from this machine."""
    service = "kubernetes.default.svc"
    names = [
        "kubernetes",
        "kubernetes.default",
        service,
        f"{service}.{cluster_domain}",
        "localhost",
        host_name,
    ]
    return list(dict.fromkeys(names))


def client_pair(folder: Path, clock: Clock, name: str, user: str, groups: Sequence[str]) -> KeyPair:
    """A client certificate `<folder>/<name>.crt` for `user` in `groups`, by the authority in `folder`."""
    authority = _Authority.ensure(folder, utc(clock.time_s()))
    return authority.pair(name, _subject(user, groups), ExtendedKeyUsageOID.CLIENT_AUTH, None)


class _Authority:
    """The certificate authority: its key, its certificate, and the moment for which it issues."""

    def __init__(
        self, folder: Path, now: datetime, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
    ) -> None:
        self.folder = folder
        self.name = name
        self.now = now
        self.key = key
        self.certificate = certificate

    @classmethod
    def ensure(cls, folder: Path, now: datetime, name: str = "ca", subject: str = "kubernetes") -> _Authority:
        """Found in `folder`, or made. The key is written first: a crash between the two leaves a key without
        a certificate, for which the next start issues one."""
        key_path, certificate_path = folder / f"{name}.key", folder / f"{name}.crt"
        if certificate_path.exists() and not key_path.exists():
            raise PkiError(f"{certificate_path} is there but {key_path} is not; restore the key, or remove both")
        key = _ensure_key(key_path)
        certificate = _read_certificate(certificate_path)
        if certificate is not None and certificate.public_key() != key.public_key():
            raise PkiError(f"{certificate_path} is not the certificate of {key_path}; restore one, or remove both")
        if certificate is None or not _lasts(certificate, now):
            certificate = _issue_authority(key, now, subject)
            _write(certificate_path, _pem(certificate))
        return cls(folder, now, name, key, certificate)

    @property
    def files(self) -> KeyPair:
        certificate_path, key_path = self.folder / f"{self.name}.crt", self.folder / f"{self.name}.key"
        return KeyPair(certificate_path, key_path, _pem(self.certificate), _key_pem(self.key))

    def pair(
        self,
        name: str,
        subject: x509.Name,
        usage: x509.ObjectIdentifier,
        alternative_names: x509.SubjectAlternativeName | None,
    ) -> KeyPair:
        """Key and certificate `name`, as they are when they still fit, newly issued otherwise."""
        key_path, certificate_path = self.folder / f"{name}.key", self.folder / f"{name}.crt"
        key = _ensure_key(key_path)
        certificate = _read_certificate(certificate_path)
        if certificate is None or not self._fits(certificate, key, subject, alternative_names):
            certificate = self._issue(key, subject, usage, alternative_names)
            _write(certificate_path, _pem(certificate))
        return KeyPair(certificate_path, key_path, _pem(certificate), _key_pem(key))

    def _fits(
        self,
        certificate: x509.Certificate,
        key: ec.EllipticCurvePrivateKey,
        subject: x509.Name,
        alternative_names: x509.SubjectAlternativeName | None,
    ) -> bool:
        if certificate.public_key() != key.public_key() or certificate.subject != subject:
            return False
        if not _lasts(certificate, self.now) or not self._signed(certificate):
            return False
        if alternative_names is None:
            return True
        held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return set(alternative_names) <= set(held)

    def _signed(self, certificate: x509.Certificate) -> bool:
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):  # the authority was replaced
            return False
        return True

    def _issue(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: x509.Name,
        usage: x509.ObjectIdentifier,
        alternative_names: x509.SubjectAlternativeName | None,
    ) -> x509.Certificate:
        builder = (
            _builder(subject, self.certificate.subject, key, self.now, CERTIFICATE_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if alternative_names is not None:
            builder = builder.add_extension(alternative_names, critical=False)
        return builder.sign(self.key, hashes.SHA256())


def _issue_authority(key: ec.EllipticCurvePrivateKey, now: datetime, name: str) -> x509.Certificate:
    subject = _subject(name)
    return (
        _builder(subject, subject, key, now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + life)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str, organizations: Sequence[str] = ()) -> x509.Name:
    """A Kubernetes identity: groups as organizations, the user as common name."""
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in organizations]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative_names(dns_names: Sequence[str], addresses: Sequence[str]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in dict.fromkeys(dns_names)]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in dict.fromkeys(addresses)]
    return x509.SubjectAlternativeName(names)


def _lasts(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - RENEW_BEFORE


def _ensure_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if path.exists():
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise PkiError(f"{path} is not a private key that can be read: {error}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise PkiError(f"{path} is not an elliptic-curve key")
        return key
    key = ec.generate_private_key(ec.SECP256R1())
    _write(path, _key_pem(key))
    return key


def _read_certificate(path: Path) -> x509.Certificate | None:
    """The certificate in `path`; None where there is none that can be read, since it can be issued again."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_when_changed(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        _write(path, content)


def _write(path: Path, content: bytes) -> None:
    """Write a file, mode 0600, so that a crash leaves the old one or the new one."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
