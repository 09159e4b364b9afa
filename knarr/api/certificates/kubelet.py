"""What a kubelet may have in its certificates: a node's name, the group system:nodes, and nothing that others trust.

The rules of upstream's signers kubernetes.io/kube-apiserver-client-kubelet and kubernetes.io/kubelet-serving.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NODES, NODE = "system:nodes", "system:node:"
ENCIPHERMENT, SIGNATURE = "key encipherment", "digital signature"
CLIENT_USAGES = ({SIGNATURE, ENCIPHERMENT, "client auth"}, {SIGNATURE, "client auth"})
SERVING_USAGES = ({SIGNATURE, ENCIPHERMENT, "server auth"}, {SIGNATURE, "server auth"})
"""Keys that can't encipher (elliptic curves) come without that usage."""


def client_fault(request: Any, usages: Sequence[str]) -> str:
    """Why an x509 request is none for a kubelet's client certificate; empty when it is one."""
    if organizations_of(request) != [NODES]:
        return "subject organization is not system:nodes"
    names = alternative_names(request)
    for kind, shown in (("dns", "DNS"), ("email", "Email"), ("ip", "IP"), ("uri", "URI")):
        if names[kind]:
            return f"{shown} subjectAltNames are not allowed"
    if not node_name_of(request).startswith(NODE):
        return "subject common name does not begin with system:node: "
    if set(usages) not in CLIENT_USAGES:
        return "usages did not match " + _listed(CLIENT_USAGES)
    return ""


def serving_fault(request: Any, usages: Sequence[str]) -> str:
    """Why an x509 request is none for a kubelet's serving certificate; empty when it is one."""
    if organizations_of(request) != [NODES]:
        return "subject organization is not system:nodes"
    names = alternative_names(request)
    if not names["dns"] and not names["ip"]:
        return "DNS or IP subjectAltName is required"
    for kind, shown in (("email", "Email"), ("uri", "URI")):
        if names[kind]:
            return f"{shown} subjectAltNames are not allowed"
    if set(usages) not in SERVING_USAGES:
        return "usages did not match " + _listed(SERVING_USAGES)
    if not node_name_of(request).startswith(NODE):
        return "subject common name does not begin with system:node: "
    return ""


def node_name_of(request: Any) -> str:
    """The common name of the subject."""
    from cryptography.x509.oid import NameOID

    found = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def organizations_of(request: Any) -> list[str]:
    from cryptography.x509.oid import NameOID

    return [str(each.value) for each in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]


def alternative_names(request: Any) -> dict[str, list[Any]]:
    """subjectAltNames by kind: dns, email, ip, uri."""
    from cryptography import x509

    kinds = {"dns": x509.DNSName, "email": x509.RFC822Name, "ip": x509.IPAddress, "uri": x509.UniformResourceIdentifier}
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return {kind: [] for kind in kinds}
    return {kind: names.get_values_for_type(type_) for kind, type_ in kinds.items()}


def _listed(allowed: Sequence[set[str]]) -> str:
    return " or ".join("[" + " ".join(sorted(each)) + "]" for each in allowed)
