"""CertificateSigningRequests: how a client or a node gets a certificate (certificates.k8s.io).

The spec never changes. Conditions Approved and Denied are set by the subresource approval, Failed and the certificate
by the subresource status; none of them is ever taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from knarr.api import names
from knarr.api.certificates.v1 import (
    CertificateSigningRequest,
    CertificateSigningRequestCondition,
    CertificateSigningRequestStatus,
)
from knarr.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required
from knarr.api.printing import NONE, age, human_duration
from knarr.api.resources import Column, Strategy
from knarr.api.types import replace

KUBE_APISERVER_CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY_UNKNOWN = "kubernetes.io/legacy-unknown"
SIGNERS = (KUBE_APISERVER_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN)

EXPIRATION_MIN_S = 600
SIGNER_NAME_LENGTH_MAX = 571
"""A domain, a slash, and a path of labels."""
USAGES = (
    "signing",
    "digital signature",
    "content commitment",
    "key encipherment",
    "key agreement",
    "data encipherment",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
    "any",
    "server auth",
    "client auth",
    "code signing",
    "email protection",
    "s/mime",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "timestamping",
    "ocsp signing",
    "microsoft sgc",
    "netscape sgc",
)
DECISIONS = ("Approved", "Denied")
LASTING = (*DECISIONS, "Failed")


class RequestFault(ValueError):
    """A PKCS #10 request that can't be used."""


def parsed(request: bytes) -> Any:
    """The x509 request in a PEM block, its signature checked. Raises RequestFault."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    if b"-----BEGIN CERTIFICATE REQUEST-----" not in request and b"-----BEGIN NEW CERTIFICATE REQUEST" not in request:
        raise RequestFault("PEM block type must be CERTIFICATE REQUEST")
    try:
        found = x509.load_pem_x509_csr(request)
        valid = found.is_signature_valid
        _ = found.subject, found.extensions
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RequestFault(f"x509: malformed certificate request: {error}") from None
    if not valid:
        raise RequestFault("x509: the signature of the request does not fit its key")
    return found


def organizations(request: bytes) -> list[str]:
    """Of the subject: the groups that the certificate's user would be in. Empty when the request can't be read."""
    from cryptography.x509.oid import NameOID

    try:
        subject = parsed(request).subject
    except RequestFault:
        return []
    return [str(attribute.value) for attribute in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]


def _any_name(name: str) -> list[str]:
    """Any name will do, as upstream."""
    return []


class CertificateSigningRequestStrategy(Strategy[CertificateSigningRequest]):
    name_faults = staticmethod(_any_name)
    has_status = True
    field_names = ("spec.signerName",)

    def prepare_for_create(self, obj: CertificateSigningRequest) -> None:
        obj.spec.username = obj.spec.uid = None  # Admission writes down who really asks.
        obj.spec.groups, obj.spec.extra = [], {}

    def prepare_for_update(self, obj: CertificateSigningRequest, old: CertificateSigningRequest) -> None:
        obj.spec = old.spec

    def prepare_for_part_update(
        self, part: str, obj: CertificateSigningRequest, old: CertificateSigningRequest
    ) -> None:
        obj.spec = old.spec
        conditions = obj.status.conditions if obj.status else []
        obj.status = replace(old.status or CertificateSigningRequestStatus(), conditions=conditions)

    def validate_create(self, obj: CertificateSigningRequest) -> Iterable[Cause]:
        spec = obj.spec
        try:
            parsed(spec.request)
        except RequestFault as fault:
            yield invalid("spec.request", spec.request.decode(errors="replace"), str(fault))
        if not spec.usages:
            yield required("spec.usages")
        for index, usage in enumerate(spec.usages):
            if usage not in USAGES:
                yield not_supported(f"spec.usages[{index}]", usage, USAGES)
            elif usage in spec.usages[:index]:
                yield duplicate(f"spec.usages[{index}]", usage)
        if spec.signer_name == LEGACY_UNKNOWN:
            detail = "the legacy signerName is not allowed via this API version"
            yield invalid("spec.signerName", spec.signer_name, detail)
        else:
            yield from validate_signer_name(spec.signer_name, "spec.signerName")
        if spec.expiration_seconds is not None and spec.expiration_seconds < EXPIRATION_MIN_S:
            detail = "may not specify a duration less than 600 seconds (10 minutes)"
            yield invalid("spec.expirationSeconds", spec.expiration_seconds, detail)

    def validate_part_update(
        self, part: str, obj: CertificateSigningRequest, old: CertificateSigningRequest
    ) -> Iterable[Cause]:
        yield from _validate_conditions(_conditions(obj))
        yield from _validate_kept(obj, old, may_add=DECISIONS)

    def validate_status_update(self, obj: CertificateSigningRequest, old: CertificateSigningRequest) -> Iterable[Cause]:
        yield from _validate_conditions(_conditions(obj))
        yield from _validate_kept(obj, old, may_add=("Failed",))
        new, before = _certificate(obj), _certificate(old)
        if before and new != before:
            yield forbidden("status.certificate", "updates may not modify existing certificate content")
        elif new:
            yield from _validate_certificate(new)

    def fields(self, obj: CertificateSigningRequest) -> Mapping[str, str]:
        return {"spec.signerName": obj.spec.signer_name}


def validate_signer_name(name: str, path: str) -> Iterable[Cause]:
    if not name:
        yield required(path)
        return
    if len(name) > SIGNER_NAME_LENGTH_MAX:
        yield Cause("FieldValueTooLong", path, f"Too long: may not be more than {SIGNER_NAME_LENGTH_MAX} bytes")
    domain, slash, rest = name.partition("/")
    if not slash or "/" in rest:
        yield invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")
        return
    for fault in names.dns1123_subdomain_faults(domain):
        yield invalid(path, domain, f"validating label {domain!r}: {fault}")
    if "." not in domain:
        yield invalid(path, domain, "should be a domain with at least two segments separated by dots")
    if not rest:
        yield required(path, "validating path: must not be empty")
    for label in rest.split(".") if rest else ():
        for fault in names.dns1123_label_faults(label):
            yield invalid(path, rest, f"validating label {label!r}: {fault}")


def _validate_conditions(conditions: Sequence[CertificateSigningRequestCondition]) -> Iterable[Cause]:
    path = "status.conditions"
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        if not condition.type:
            yield required(f"{path}[{index}].type")
        elif condition.type in seen:
            yield duplicate(f"{path}[{index}].type", condition.type)
        allowed = ("True",) if condition.type in LASTING else ("True", "False", "Unknown")
        if not condition.status:
            yield required(f"{path}[{index}].status")
        elif condition.status not in allowed:
            yield not_supported(f"{path}[{index}].status", condition.status, allowed)
        seen.add(condition.type)
    if set(DECISIONS) <= seen:
        index = max(number for number, condition in enumerate(conditions) if condition.type in DECISIONS)
        detail = "Approved and Denied conditions are mutually exclusive"
        yield invalid(f"{path}[{index}].type", conditions[index].type, detail)


def _validate_kept(
    obj: CertificateSigningRequest, old: CertificateSigningRequest, may_add: Sequence[str]
) -> Iterable[Cause]:
    """Decisions stay; each way of writing may add its own only."""
    new, before = ({condition.type for condition in _conditions(each)} & set(LASTING) for each in (obj, old))
    for kind in sorted(before - new):
        yield forbidden("status.conditions", f'updates may not remove a condition of type "{kind}"')
    for kind in sorted(new - before - set(may_add)):
        yield forbidden("status.conditions", f'updates may not add a condition of type "{kind}"')


def _validate_certificate(pem: bytes) -> Iterable[Cause]:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        yield invalid("status.certificate", "<certificate data>", f"must contain PEM certificates: {error}")
    else:
        if not found:
            yield invalid("status.certificate", "<certificate data>", "must contain at least one CERTIFICATE PEM block")


def _conditions(obj: CertificateSigningRequest) -> list[CertificateSigningRequestCondition]:
    return obj.status.conditions if obj.status else []


def _certificate(obj: CertificateSigningRequest) -> bytes | None:
    return obj.status.certificate if obj.status else None


def _shown_condition(obj: CertificateSigningRequest, now_s: float) -> str:
    kinds = {condition.type for condition in _conditions(obj)}
    words = ["Denied" if "Denied" in kinds else "Approved" if "Approved" in kinds else "Pending"]
    words += ["Failed"] if "Failed" in kinds else []
    words += ["Issued"] if _certificate(obj) else []
    return ",".join(words)


def _duration(obj: CertificateSigningRequest, now_s: float) -> str:
    seconds = obj.spec.expiration_seconds
    return NONE if seconds is None else human_duration(seconds)


COLUMNS = (
    Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s)),
    Column("SignerName", lambda obj, now_s: obj.spec.signer_name),
    Column("Requestor", lambda obj, now_s: obj.spec.username or ""),
    Column("RequestedDuration", _duration),
    Column("Condition", _shown_condition),
)
