"""Certificates from Secrets of type kubernetes.io/tls: read, and checked for all that Envoy would refuse."""

from __future__ import annotations

import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from msgspec import Struct

from knarr.api.core.v1 import Secret
from knarr.edge.ingress.model import Certificate

TLS_TYPE = "kubernetes.io/tls"
CERTIFICATE, KEY = "tls.crt", "tls.key"
RSA_BITS_MIN = 2048
CURVES = ("secp256r1", "secp384r1", "secp521r1")
READ_MAX = 1024
"""Key pairs whose reading is remembered."""
DEFAULT_NAME = "default/"
"""Of our own certificate; no Secret can be called that."""


class KeyPair(Struct, frozen=True):
    """What a Secret's contents are worth."""

    names: tuple[str, ...] = ()
    """The DNS names of the certificate."""
    ends_s: float = 0.0
    fault: str = ""


def key_pair(secret: Secret) -> KeyPair:
    if secret.type != TLS_TYPE:
        return KeyPair(fault=f"is of type {secret.type}, not {TLS_TYPE}")
    for name in (CERTIFICATE, KEY):
        if not secret.data.get(name):
            return KeyPair(fault=f"has no {name}")
    return _read(secret.data[CERTIFICATE], secret.data[KEY])


def covers(names: tuple[str, ...], host: str) -> bool:
    """Whether a certificate's names include a host (RFC 6125: * is one whole label, the first)."""
    _, _, parent = host.partition(".")
    return any(name.lower() in (host, f"*.{parent}") for name in names)


@lru_cache(maxsize=READ_MAX)
def _read(chain_pem: bytes, key_pem: bytes) -> KeyPair:
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
        key = serialization.load_pem_private_key(key_pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return KeyPair(fault=f"can't be read: {str(error).partition(chr(10))[0][:200]}")
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < RSA_BITS_MIN:
            return KeyPair(fault=f"has an RSA key of {key.key_size} bits; {RSA_BITS_MIN} is the least")
    elif not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        return KeyPair(fault="has a key that is neither RSA nor ECDSA on P-256, P-384 or P-521")
    if _public(chain[0].public_key()) != _public(key.public_key()):
        return KeyPair(fault="has a key that isn't its certificate's")
    return KeyPair(_names(chain[0]), chain[0].not_valid_after_utc.timestamp())


def _public(key: object) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(encoding, form)  # type: ignore[attr-defined,no-any-return]


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(extension.value.get_values_for_type(x509.DNSName))


def self_signed(now_s: float) -> Certificate:
    """Shown where no Secret has a certificate for the name that is asked for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "knarr Ingress: no certificate for this name")])
    now = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    return Certificate(
        DEFAULT_NAME,
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain),
        is_default=True,
    )
