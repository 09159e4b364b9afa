"""Short makers of what an edge reads."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from knarr.api.core.v1 import Secret, Service, ServicePort, ServiceSpec
from knarr.api.discovery.v1 import Endpoint, EndpointConditions, EndpointPort, EndpointSlice
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.networking.v1 import (
    HTTPIngressPath,
    HTTPIngressRuleValue,
    Ingress,
    IngressBackend,
    IngressClass,
    IngressClassSpec,
    IngressRule,
    IngressServiceBackend,
    IngressSpec,
    IngressTLS,
    ServiceBackendPort,
)

NGINX = "nginx.ingress.kubernetes.io/"
OURS = IngressClass(metadata=ObjectMeta(name="knarr"), spec=IngressClassSpec(controller="knarr.dev/ingress"))


def backend(service: str, port: int | str = 80) -> IngressBackend:
    where = ServiceBackendPort(name=port) if isinstance(port, str) else ServiceBackendPort(number=port)
    return IngressBackend(service=IngressServiceBackend(name=service, port=where))


def ingress(
    name: str,
    paths: Sequence[tuple[str, str, str, str]] = (),
    *,
    tls: Sequence[tuple[str, Sequence[str]]] = (),
    default: str = "",
    age_s: int = 0,
    namespace: str = "default",
    class_name: str | None = "knarr",
    annotations: dict[str, str] | None = None,
    created: bool = True,
) -> Ingress:
    """`paths` are host, pathType, path, service; `tls` are Secrets with their hosts; older by `age_s`."""
    hosts: dict[str, list[HTTPIngressPath]] = {}
    for host, kind, path, service in paths:
        hosts.setdefault(host, []).append(HTTPIngressPath(backend=backend(service), path=path or None, path_type=kind))
    rules = [IngressRule(host=host or None, http=HTTPIngressRuleValue(paths=each)) for host, each in hosts.items()]
    when = datetime.datetime(2026, 1, 1, tzinfo=UTC) - datetime.timedelta(seconds=age_s)
    return Ingress(
        metadata=ObjectMeta(
            name=name,
            namespace=namespace,
            annotations={NGINX + key if "/" not in key else key: text for key, text in (annotations or {}).items()},
            creation_timestamp=when if created else None,
        ),
        spec=IngressSpec(
            rules=rules,
            ingress_class_name=class_name,
            default_backend=backend(default) if default else None,
            tls=[IngressTLS(secret_name=secret or None, hosts=list(names)) for secret, names in tls],
        ),
    )


def service(name: str, port: int = 80, *, namespace: str = "default", **fields: Any) -> Service:
    ports = [ServicePort(name=fields.pop("port_name", None), port=port, app_protocol=fields.pop("app_protocol", None))]
    fields.setdefault("cluster_ip", "None")
    return Service(metadata=ObjectMeta(name=name, namespace=namespace), spec=ServiceSpec(ports=ports, **fields))


def slice_of(
    name: str,
    places: Sequence[tuple[str, int]],
    *,
    namespace: str = "default",
    port_name: str | None = None,
    conditions: EndpointConditions | None = None,
) -> EndpointSlice:
    """One slice for endpoints that have the same port."""
    return EndpointSlice(
        metadata=ObjectMeta(
            name=f"{name}-{places[0][1] if places else 0}",
            namespace=namespace,
            labels={"kubernetes.io/service-name": name},
        ),
        address_type="IPv4",
        endpoints=[
            Endpoint(addresses=[address], conditions=conditions or EndpointConditions(ready=True))
            for address, _ in places
        ],
        ports=[EndpointPort(name=port_name, port=places[0][1] if places else 80, protocol="TCP")],
    )


def tls_secret(name: str, *hosts: str, namespace: str = "default", key: Any = None, ends_in_days: int = 30) -> Secret:
    """A self-signed certificate for these names."""
    own = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    now = datetime.datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=40))
        .not_valid_after(now + datetime.timedelta(days=ends_in_days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .sign(own, hashes.SHA256())
    )
    written = (key or own).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM)
    return Secret(
        metadata=ObjectMeta(name=name, namespace=namespace),
        type="kubernetes.io/tls",
        data={"tls.crt": chain, "tls.key": written},
    )
