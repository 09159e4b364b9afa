"""Certificate requests: approved for nodes, signed by the four signers, cleaned up; with upstream's rights."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from knarr.api.certificates.requests import KUBE_APISERVER_CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN
from knarr.api.certificates.v1 import (
    CertificateSigningRequest,
    CertificateSigningRequestCondition,
    CertificateSigningRequestSpec,
    CertificateSigningRequestStatus,
)
from knarr.api.errors import Forbidden, NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.rbac.v1 import ClusterRoleBinding, RoleRef, Subject
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.clock import utc
from knarr.controllers.csr_approving import ASK_AGAIN_S, CertificateApproval
from knarr.controllers.csr_cleaner import DECIDED_KEPT_S, PENDING_KEPT_S, CertificateCleaner
from knarr.controllers.csr_signing import CertificateSigning, fault_of, lifetime_s
from tests.controllers.loops import MASTERS, Loops, play

NODE_USAGES = ["digital signature", "client auth"]
SERVING_USAGES = ["digital signature", "server auth"]


def certificate_request(common_name: str, *organizations: str, names: Sequence[x509.GeneralName] = ()) -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    subject = x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256())


def asked(
    name: str,
    signer: str,
    request: Any,
    usages: Sequence[str],
    seconds: int | None = None,
) -> CertificateSigningRequest:
    spec = CertificateSigningRequestSpec(
        request=request.public_bytes(serialization.Encoding.PEM),
        signer_name=signer,
        usages=list(usages),
        expiration_seconds=seconds,
    )
    return CertificateSigningRequest(metadata=ObjectMeta(name=name), spec=spec)


def authority() -> tuple[bytes, bytes]:
    """Certificate and key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    start = utc(0.0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=365 * 200))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM), pem


AUTHORITY = authority()


def loops(parts: Loops) -> list[Controller]:
    client = parts.account("certificate-controller")
    return [
        CertificateApproval(client, parts.informers, parts.clock),
        CertificateSigning(client, parts.informers, parts.clock, *AUTHORITY),
        CertificateCleaner(client, parts.informers, parts.clock),
    ]


def certificates(scenario: Callable[[Loops], Awaitable[None]]) -> None:
    play(loops, scenario)


async def approve(parts: Loops, name: str, kind: str = "Approved") -> CertificateSigningRequest:
    request = await parts.client.get(CertificateSigningRequest, name)
    condition = CertificateSigningRequestCondition(type=kind, status="True", reason="Test")
    status = replace(request.status or CertificateSigningRequestStatus(), conditions=[condition])
    return await parts.client.update(replace(request, status=status), subresource="approval")


async def conditions(parts: Loops, name: str) -> list[CertificateSigningRequestCondition]:
    status = (await parts.client.get(CertificateSigningRequest, name)).status
    return status.conditions if status else []


async def issued(parts: Loops, name: str) -> x509.Certificate:
    async def look() -> bytes | None:
        status = (await parts.client.get(CertificateSigningRequest, name)).status
        return status.certificate if status else None

    return x509.load_pem_x509_certificate(await parts.until(look))


async def bind(parts: Loops, role: str, subject: Subject) -> None:
    reference = RoleRef(api_group="rbac.authorization.k8s.io", kind="ClusterRole", name=role)
    await parts.client.create(
        ClusterRoleBinding(metadata=ObjectMeta(name=role), role_ref=reference, subjects=[subject])
    )


def test_a_client_certificate_is_signed_as_it_was_asked_for() -> None:
    async def scenario(parts: Loops) -> None:
        request = certificate_request("ann", "devs")
        await parts.client.create(
            asked("ann", KUBE_APISERVER_CLIENT, request, ["client auth", "key encipherment"], 3600)
        )
        await approve(parts, "ann")
        certificate = await issued(parts, "ann")
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(AUTHORITY[0]))
        assert certificate.subject == request.subject
        assert certificate.public_key() == request.public_key()
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.key_encipherment
        assert not usage.value.digital_signature
        extended = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(extended) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert life == timedelta(hours=1)

    certificates(scenario)


def test_names_are_kept_and_long_lives_are_backdated() -> None:
    async def scenario(parts: Loops) -> None:
        names = [x509.DNSName("node-1"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))]
        request = certificate_request("system:node:node-1", "system:nodes", names=names)
        node = parts.client_as("system:node:node-1", "system:nodes", "system:authenticated")
        await node.create(asked("serve", KUBELET_SERVING, request, SERVING_USAGES))
        await approve(parts, "serve")
        certificate = await issued(parts, "serve")
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(found) == names
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        assert life == timedelta(days=365, minutes=5)

    certificates(scenario)


def test_a_request_that_breaks_its_signers_rules_fails() -> None:
    async def scenario(parts: Loops) -> None:
        request = certificate_request("ann", "devs")
        await parts.client.create(asked("bad", KUBE_APISERVER_CLIENT, request, ["server auth"]))
        await approve(parts, "bad")

        async def failed() -> Any:
            status = (await parts.client.get(CertificateSigningRequest, "bad")).status
            return status and [each for each in status.conditions if each.type == "Failed"]

        (condition,) = await parts.until(failed)
        assert (condition.reason, condition.message) == (
            "SignerValidationFailure",
            "invalid usage for client certificate: server auth",
        )

    certificates(scenario)


def test_a_node_that_may_gets_its_certificate_without_a_person() -> None:
    async def scenario(parts: Loops) -> None:
        bootstrapper = parts.client_as("system:bootstrap:abcdef", "system:bootstrappers", "system:authenticated")
        request = certificate_request("system:node:node-1", "system:nodes")
        with pytest.raises(Forbidden):
            await bootstrapper.create(asked("first", KUBELET_CLIENT, request, NODE_USAGES))
        group = Subject(api_group="rbac.authorization.k8s.io", kind="Group", name="system:bootstrappers")
        await bind(parts, "system:node-bootstrapper", group)
        await bootstrapper.create(asked("first", KUBELET_CLIENT, request, NODE_USAGES))
        await parts.clock.sleep(5)
        assert not await conditions(parts, "first")
        await bind(parts, "system:certificates.k8s.io:certificatesigningrequests:nodeclient", group)
        await parts.clock.sleep(ASK_AGAIN_S)
        await issued(parts, "first")
        (approved,) = await conditions(parts, "first")
        assert approved.message == "Auto approving kubelet client certificate after SubjectAccessReview."
        assert approved.last_transition_time is not None

        nodes = Subject(api_group="rbac.authorization.k8s.io", kind="Group", name="system:nodes")
        await bind(parts, "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", nodes)
        node = parts.client_as("system:node:node-1", "system:nodes", "system:authenticated")
        await node.create(asked("next", KUBELET_CLIENT, request, NODE_USAGES))
        await issued(parts, "next")
        other = certificate_request("system:node:node-2", "system:nodes")
        await node.create(asked("other", KUBELET_CLIENT, other, NODE_USAGES))
        await parts.clock.sleep(60)
        assert not await conditions(parts, "other")

    certificates(scenario)


def test_what_was_denied_is_not_signed_and_everything_goes_in_the_end() -> None:
    async def scenario(parts: Loops) -> None:
        request = certificate_request("ann", "devs")
        for name in ("pending", "denied", "issued"):
            await parts.client.create(asked(name, KUBE_APISERVER_CLIENT, request, ["client auth"]))
        await approve(parts, "denied", "Denied")
        await approve(parts, "issued")
        await issued(parts, "issued")
        await parts.clock.sleep(DECIDED_KEPT_S + 10)
        left = (await parts.client.list(CertificateSigningRequest)).items
        assert [each.metadata.name for each in left] == ["pending"]
        await parts.clock.sleep(PENDING_KEPT_S)
        with pytest.raises(NotFound):
            await parts.client.get(CertificateSigningRequest, "pending")

    certificates(scenario)


NODE_A = ("system:node:a", "system:nodes")
ORGANIZATION = "subject organization is not system:nodes"
NAME = "subject common name does not begin with system:node: "
NO_CLIENT = "missing required usage for client certificate: client auth"
DNS, IP = x509.DNSName("a"), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))
URI, EMAIL = x509.UniformResourceIdentifier("https://a"), x509.RFC822Name("a@example.com")


@pytest.mark.parametrize(
    ("signer", "subject", "names", "usages", "fault"),
    [
        (KUBELET_CLIENT, NODE_A, [], NODE_USAGES, ""),
        (KUBELET_CLIENT, NODE_A, [], [*NODE_USAGES, "key encipherment"], ""),
        (KUBELET_CLIENT, ("system:node:a", "devs"), [], NODE_USAGES, ORGANIZATION),
        (KUBELET_CLIENT, ("system:node:a", "system:nodes", "system:masters"), [], NODE_USAGES, ORGANIZATION),
        (KUBELET_CLIENT, ("a", "system:nodes"), [], NODE_USAGES, NAME),
        (KUBELET_CLIENT, NODE_A, [DNS], NODE_USAGES, "DNS subjectAltNames are not allowed"),
        (KUBELET_CLIENT, NODE_A, [IP], NODE_USAGES, "IP subjectAltNames are not allowed"),
        (KUBELET_CLIENT, NODE_A, [URI], NODE_USAGES, "URI subjectAltNames are not allowed"),
        (
            KUBELET_CLIENT,
            ("system:node:a", "system:nodes"),
            [EMAIL],
            NODE_USAGES,
            "Email subjectAltNames are not allowed",
        ),
        (KUBELET_SERVING, NODE_A, [DNS, IP], SERVING_USAGES, ""),
        (
            KUBELET_SERVING,
            ("system:node:a", "system:nodes"),
            [],
            SERVING_USAGES,
            "DNS or IP subjectAltName is required",
        ),
        (
            KUBELET_SERVING,
            ("system:node:a", "system:nodes"),
            [DNS, URI],
            SERVING_USAGES,
            "URI subjectAltNames are not allowed",
        ),
        (KUBELET_SERVING, ("a", "system:nodes"), [DNS], SERVING_USAGES, NAME),
        (KUBE_APISERVER_CLIENT, ("a",), [], ["client auth"], ""),
        (
            KUBE_APISERVER_CLIENT,
            ("a",),
            [],
            ["digital signature"],
            "missing required usage for client certificate: client auth",
        ),
        (LEGACY_UNKNOWN, ("a", "system:masters"), [], ["any"], ""),
    ],
)
def test_each_signer_has_rules(
    signer: str, subject: tuple[str, ...], names: list[x509.GeneralName], usages: list[str], fault: str
) -> None:
    assert fault_of(certificate_request(*subject, names=names), signer, usages) == fault


def test_wrong_usages_of_a_kubelet() -> None:
    request = certificate_request("system:node:a", "system:nodes")
    assert fault_of(request, KUBELET_CLIENT, ["client auth"]).startswith("usages did not match")


@pytest.mark.parametrize(("asked_s", "given_s"), [(None, 31536000), (60, 600), (3600, 3600), (10**9, 31536000)])
def test_a_certificate_lasts_ten_minutes_to_a_year(asked_s: int | None, given_s: int) -> None:
    assert lifetime_s(asked_s) == given_s


def test_masters_are_made_by_nobody() -> None:
    async def scenario(parts: Loops) -> None:
        request = certificate_request("ann", "system:masters")
        with pytest.raises(Forbidden, match="signer with system:masters group is not allowed"):
            await parts.client_as("ann", *MASTERS).create(asked("bad", KUBE_APISERVER_CLIENT, request, ["client auth"]))

    certificates(scenario)
