"""Approved certificate requests are signed with the cluster's authority: the four signers of upstream.

    kubernetes.io/kube-apiserver-client          clients of the API
    kubernetes.io/kube-apiserver-client-kubelet  nodes as clients of the API
    kubernetes.io/kubelet-serving                nodes as servers
    kubernetes.io/legacy-unknown                 whatever was asked for (no longer to be asked for by v1)

A request that breaks its signer's rules gets the condition Failed. A certificate lasts a year, or for as long as was
asked for if that is shorter, but ten minutes at least.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from knarr.api.certificates.kubelet import client_fault, serving_fault
from knarr.api.certificates.requests import (
    KUBE_APISERVER_CLIENT,
    KUBELET_CLIENT,
    KUBELET_SERVING,
    LEGACY_UNKNOWN,
    SIGNERS,
    RequestFault,
    parsed,
)
from knarr.api.certificates.v1 import (
    CertificateSigningRequest,
    CertificateSigningRequestCondition,
    CertificateSigningRequestStatus,
)
from knarr.api.types import replace
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers, key_of
from knarr.clock import Clock, utc

LIFE_MAX_S, LIFE_MIN_S = 365 * 86400, 600
BACKDATE = timedelta(minutes=5)
SHORT_S = 8 * 3600
"""A certificate that lasts no longer is not valid before it is issued: backdating would be a good part of its life."""

KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
EXTENDED_USAGES = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
    "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3",
    "netscape sgc": "2.16.840.1.113730.4.1",
}


class CertificateSigning(Controller):
    """Writes status.certificate of approved v1 CertificateSigningRequests."""

    name = "certificatesigningrequest-signing-controller"

    def __init__(
        self, client: Client, informers: Informers, clock: Clock, certificate_pem: bytes, key_pem: bytes
    ) -> None:
        """`certificate_pem` and `key_pem` are the authority's."""
        self._certificate_pem, self._key_pem = certificate_pem, key_pem
        super().__init__(client, informers, clock)

    def watch(self) -> None:
        self.requests = self.informer(CertificateSigningRequest)
        self.on(self.requests, key_of)

    async def reconcile(self, key: str) -> None:
        request = self.requests.get(key)
        if request is None or request.spec.signer_name not in SIGNERS or not _waits(request):
            return
        status = request.status or CertificateSigningRequestStatus()
        try:
            found = parsed(request.spec.request)
            fault = fault_of(found, request.spec.signer_name, request.spec.usages)
        except RequestFault as error:
            fault = str(error)
        if fault:
            failed = CertificateSigningRequestCondition(
                type="Failed",
                status="True",
                reason="SignerValidationFailure",
                message=fault,
                last_update_time=utc(self.clock.time_s()),
            )
            changed = replace(status, conditions=[*status.conditions, failed])
        else:
            changed = replace(status, certificate=self._signed(found, request))
        await self.client.update_status(replace(request, status=changed))

    def _signed(self, found: Any, request: CertificateSigningRequest) -> bytes:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        authority = x509.load_pem_x509_certificate(self._certificate_pem)
        key: Any = serialization.load_pem_private_key(self._key_pem, None)
        life_s = lifetime_s(request.spec.expiration_seconds)
        now = utc(self.clock.time_s())
        builder = (
            x509.CertificateBuilder()
            .subject_name(found.subject)
            .issuer_name(authority.subject)
            .public_key(found.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now if life_s <= SHORT_S else now - BACKDATE)
            .not_valid_after(min(now + timedelta(seconds=life_s), authority.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )
        for extension, critical in (*_usages(request.spec.usages), *_names(found)):
            builder = builder.add_extension(extension, critical)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def lifetime_s(asked_s: int | None) -> int:
    return LIFE_MAX_S if asked_s is None else min(max(asked_s, LIFE_MIN_S), LIFE_MAX_S)


def fault_of(found: Any, signer: str, usages: Sequence[str]) -> str:
    """Why a signer doesn't sign an x509 request; empty when it does."""
    match signer:
        case name if name == KUBELET_CLIENT:
            return client_fault(found, usages)
        case name if name == KUBELET_SERVING:
            return serving_fault(found, usages)
        case name if name == KUBE_APISERVER_CLIENT:
            return _api_client_fault(usages)
        case name if name == LEGACY_UNKNOWN:
            return ""
    return f"unrecognized signerName: {signer}"


def _api_client_fault(usages: Sequence[str]) -> str:
    for usage in usages:
        if usage not in ("digital signature", "key encipherment", "client auth"):
            return f"invalid usage for client certificate: {usage}"
    return "" if "client auth" in usages else "missing required usage for client certificate: client auth"


def _waits(request: CertificateSigningRequest) -> bool:
    """Approved, and neither failed nor signed."""
    status = request.status or CertificateSigningRequestStatus()
    kinds = {condition.type for condition in status.conditions if condition.status == "True"}
    return "Approved" in kinds and "Failed" not in kinds and "Denied" not in kinds and not status.certificate


def _usages(usages: Sequence[str]) -> list[tuple[Any, bool]]:
    """Key usage (critical) and extended key usage, as extensions."""
    from cryptography import x509

    found: list[tuple[Any, bool]] = []
    basic = {KEY_USAGES[usage] for usage in usages if usage in KEY_USAGES}
    if basic:
        if "key_agreement" not in basic:
            basic -= {"encipher_only", "decipher_only"}  # RFC 5280 §4.2.1.3: they say how keys are agreed on.
        flags = {flag: flag in basic for flag in dict.fromkeys(KEY_USAGES.values())}
        found.append((x509.KeyUsage(**flags), True))
    extended = list(dict.fromkeys(EXTENDED_USAGES[usage] for usage in usages if usage in EXTENDED_USAGES))
    if extended:
        found.append((x509.ExtendedKeyUsage([x509.ObjectIdentifier(each) for each in extended]), False))
    return found


def _names(found: Any) -> list[tuple[Any, bool]]:
    from cryptography import x509

    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [(names.value, False)]
