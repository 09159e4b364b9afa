"""sig-auth: a certificate is asked for, approved and signed through the API."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.apiserver.pipeline.door import Door
from tests.conformance.operations import MERGE, deletions, discovered, main_operations

PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
SIGNER = "example.com/e2e-signer"
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "e2e.example.com")])
KEY = ec.generate_private_key(ec.SECP256R1())


def request() -> str:
    names = x509.SubjectAlternativeName([x509.DNSName("e2e.example.com")])
    made = x509.CertificateSigningRequestBuilder().subject_name(NAME).add_extension(names, critical=False)
    return base64.b64encode(made.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)).decode()


def certificate() -> str:
    """Signed by itself."""
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(NAME).issuer_name(NAME).public_key(KEY.public_key())
    made = made.serial_number(7).not_valid_before(now).not_valid_after(now + timedelta(hours=1))
    return base64.b64encode(made.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)).decode()


async def test_certificate_signing_requests_offer_every_operation(door: Door) -> None:
    """[sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations"""
    await discovered(door, "certificates.k8s.io", "v1", "certificatesigningrequests", "approval", "status")
    template = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "e2e-example-csr-"},
        "spec": {
            "request": request(),
            "signerName": SIGNER,
            "expirationSeconds": 3600,
            "usages": ["digital signature", "key encipherment", "server auth"],
        },
    }
    selector = {"fieldSelector": f"spec.signerName={SIGNER}"}
    made = await main_operations(door, PATH, template, selector)
    assert made["spec"]["expirationSeconds"] == 3600
    path = f"{PATH}/{made['metadata']['name']}"

    async def condition(subresource: str, type_: str, annotation: str) -> Any:
        patch = {
            "metadata": {"annotations": {annotation: "true"}},
            "status": {"conditions": [{"type": type_, "status": "True", "reason": "e2e"}]},
        }
        patched = await door.done("PATCH", f"{path}/{subresource}", patch, content_type=MERGE)
        assert patched["metadata"]["annotations"][annotation] == "true"
        return patched

    read = await door.done("GET", f"{path}/approval")
    assert (read["kind"], read["metadata"]["uid"]) == ("CertificateSigningRequest", made["metadata"]["uid"])
    patched = await condition("approval", "ApprovalPatch", "patchedapproval")
    assert [each["type"] for each in patched["status"]["conditions"]] == ["ApprovalPatch"]
    approved = {"type": "Approved", "status": "True", "reason": "E2E", "message": "Set by a test"}
    patched["status"]["conditions"].append(approved)
    updated = await door.done("PUT", f"{path}/approval", patched)
    assert [each["type"] for each in updated["status"]["conditions"]] == ["ApprovalPatch", "Approved"]

    assert (await door.done("GET", f"{path}/status"))["metadata"]["uid"] == made["metadata"]["uid"]
    issued = certificate()
    patch = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"certificate": issued}}
    patched = await door.done("PATCH", f"{path}/status", patch, content_type=MERGE)
    assert patched["status"]["certificate"] == issued
    assert patched["metadata"]["annotations"]["patchedstatus"] == "true"
    patched["status"]["conditions"].append({"type": "StatusUpdate", "status": "True", "reason": "E2E"})
    updated = await door.done("PUT", f"{path}/status", patched)
    types = [each["type"] for each in updated["status"]["conditions"]]
    assert types == ["ApprovalPatch", "Approved", "StatusUpdate"]

    await deletions(door, PATH, made["metadata"]["name"], selector)
