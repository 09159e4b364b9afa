"""A node's certificates: asked for with a CertificateSigningRequest, kept in <data-dir>/pki, renewed in time.

    kubelet-client.crt, .key    system:node:<name> in the group system:nodes; for the API server
    kubelet.crt, .key           shown to the API server when it comes for logs and streams

Keys are made here and never leave the machine. A request is named after its key, so who was killed while it waited
asks for the same again (kubelet TLS bootstrapping; signers kubernetes.io/kube-apiserver-client-kubelet and
kubernetes.io/kubelet-serving).
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from msgspec import Struct

from knarr.api.certificates.requests import KUBELET_CLIENT, KUBELET_SERVING
from knarr.api.certificates.v1 import (
    CertificateSigningRequest,
    CertificateSigningRequestSpec,
    CertificateSigningRequestStatus,
)
from knarr.api.errors import AlreadyExists, APIError, NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.client import Client
from knarr.clock import Clock, utc

log = logging.getLogger(__name__)

POLL_S = 0.2
"""How often the answer to a request is looked for at first; the loops answer within that."""
POLL_MAX_S = 5.0
RENEW_AT = (0.7, 0.9)
"""The part of its life after which a certificate is renewed: upstream's, spread so that not all nodes come at once."""
LOOK_AGAIN_S = 3600.0
RETRY_S = 60.0


class RequestDenied(Exception):
    """Somebody decided that this node gets no certificate, or the signer found a fault."""


class Wanted(Struct, frozen=True):
    """What a certificate is for."""

    file: str
    """Name of its files, without ending."""
    signer: str
    usages: tuple[str, ...]
    alternative_names: tuple[str, ...] = ()
    """DNS names and addresses."""


CLIENT = Wanted("kubelet-client", KUBELET_CLIENT, ("digital signature", "client auth"))


def serving(names: Sequence[str]) -> Wanted:
    return Wanted("kubelet", KUBELET_SERVING, ("digital signature", "server auth"), tuple(names))


class NodeCertificates:
    """The certificates of one node in one folder."""

    def __init__(self, folder: Path, node_name: str, clock: Clock) -> None:
        self._folder = folder
        self._node_name = node_name
        self._clock = clock

    def paths(self, wanted: Wanted) -> tuple[Path, Path]:
        """Certificate and key."""
        return self._folder / f"{wanted.file}.crt", self._folder / f"{wanted.file}.key"

    def is_there(self, wanted: Wanted) -> bool:
        """There is one, of this node and with these names, that has not run out."""
        certificate = _read(self.paths(wanted)[0])
        return certificate is not None and self._fits(certificate, wanted)

    async def ensure(self, wanted: Wanted, client: Client) -> None:
        """There is one; waits for as long as it takes. Raises RequestDenied, APIError."""
        if not self.is_there(wanted):
            await self._request(wanted, client)

    async def keep(self, wanted: Wanted, client: Client, renewed: Callable[[], None]) -> None:
        """Renew it again and again in time; tells each time."""
        share = self._clock.random.uniform(*RENEW_AT)
        while True:
            certificate = _read(self.paths(wanted)[0])
            left_s = _renewal_s(certificate, share) - self._clock.time_s() if certificate else 0.0
            if left_s > 0:
                await self._clock.sleep(min(left_s, LOOK_AGAIN_S))
                continue
            try:
                await self._request(wanted, client)
                renewed()
            except (APIError, RequestDenied) as failure:
                log.warning("renewing %s: %s", wanted.file, failure)
                await self._clock.sleep(RETRY_S)

    async def _request(self, wanted: Wanted, client: Client) -> None:
        certificate_path, key_path = self.paths(wanted)
        new_key_path = key_path.with_suffix(".key.new")
        key = await asyncio.to_thread(_ensure_key, new_key_path)
        name = await self._ask(wanted, key, client)
        pem = await self._answer(name, client)
        # The new key comes first: who is killed between the two moves has a pair that doesn't fit, and asks anew.
        new_certificate_path = certificate_path.with_suffix(".crt.new")
        await asyncio.to_thread(_write, new_certificate_path, pem)
        os.replace(new_key_path, key_path)
        os.replace(new_certificate_path, certificate_path)

    async def _ask(self, wanted: Wanted, key: ec.EllipticCurvePrivateKey, client: Client) -> str:
        """Make the request, or find it; answers its name."""
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        name = f"node-csr-{hashlib.sha256(public + repr(wanted).encode()).hexdigest()[:43]}"
        spec = CertificateSigningRequestSpec(
            request=self._signing_request(wanted, key), signer_name=wanted.signer, usages=list(wanted.usages)
        )
        try:
            await client.create(CertificateSigningRequest(metadata=ObjectMeta(name=name), spec=spec))
        except AlreadyExists:
            pass
        return name

    def _signing_request(self, wanted: Wanted, key: ec.EllipticCurvePrivateKey) -> bytes:
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{self._node_name}"),
            ]
        )
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        if wanted.alternative_names:
            names = x509.SubjectAlternativeName([_general_name(each) for each in wanted.alternative_names])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    async def _answer(self, name: str, client: Client) -> bytes:
        """The certificate, once it is signed."""
        delay_s = POLL_S
        while True:
            try:
                request = await client.get(CertificateSigningRequest, name)
            except NotFound:
                raise RequestDenied(f"the request {name} was deleted") from None
            status = request.status or CertificateSigningRequestStatus()
            if status.certificate:
                return status.certificate
            for condition in status.conditions:
                if condition.type in ("Denied", "Failed") and condition.status == "True":
                    raise RequestDenied(f"the request {name} is {condition.type}: {condition.message}")
            await self._clock.sleep(delay_s)
            delay_s = min(delay_s * 1.5, POLL_MAX_S)

    def _fits(self, certificate: x509.Certificate, wanted: Wanted) -> bool:
        key_path = self.paths(wanted)[1]
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if not common or common[0].value != f"system:node:{self._node_name}":
            return False
        if not key_path.exists() or _ensure_key(key_path).public_key() != certificate.public_key():
            return False
        if certificate.not_valid_after_utc <= utc(self._clock.time_s()):
            return False
        return {_general_name(each) for each in wanted.alternative_names} <= _names_of(certificate)


def _renewal_s(certificate: x509.Certificate, share: float) -> float:
    """When to renew, in seconds since the epoch."""
    begin_s, end_s = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return begin_s + (end_s - begin_s) * share


def _names_of(certificate: x509.Certificate) -> set[x509.GeneralName]:
    try:
        return set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _read(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _ensure_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in a file; a new one where there is none that can be read."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
    except (FileNotFoundError, ValueError):
        pass
    made = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8
    _write(path, made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return made


def _write(path: Path, content: bytes) -> None:
    """A file, mode 0600, that is there whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
