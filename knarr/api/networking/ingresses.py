"""Ingress and IngressClass: what is filled in, refused and shown (networking/v1)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from knarr.api import names
from knarr.api.core.v1 import TypedLocalObjectReference
from knarr.api.core.validate_addresses import validate_ip
from knarr.api.core.validate_values import port_name_faults, validate_port
from knarr.api.errors import Cause, forbidden, invalid, not_supported, required, too_long
from knarr.api.networking.v1 import (
    HTTPIngressPath,
    Ingress,
    IngressBackend,
    IngressClass,
    IngressClassParametersReference,
    IngressSpec,
)
from knarr.api.printing import NONE, age
from knarr.api.resources import Column, Strategy

CLASS_ANNOTATION = "kubernetes.io/ingress.class"
DEFAULT_INGRESS_CLASS = "ingressclass.kubernetes.io/is-default-class"
INGRESS_CONTROLLER = "knarr.dev/ingress"
"""spec.controller of the classes that knarr serves itself."""
PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
NOT_IN_PATHS = ("//", "/./", "/../", "%2f", "%2F")
NOT_AT_THE_END = ("/..", "/.")
CONTROLLER_MAX = 250
URL_PATH = re.compile(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+")
WILDCARD = re.compile(r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
WILDCARD_FAULT = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character "
    f"(e.g. '*.example.com', regex used for validation is '{WILDCARD.pattern}')"
)


class IngressRules(Strategy[Ingress]):
    has_status = True
    has_generation = True

    def validate(self, obj: Ingress) -> Iterable[Cause]:
        spec = obj.spec or IngressSpec()
        if not spec.rules and spec.default_backend is None:
            yield invalid("spec", None, "either `defaultBackend` or `rules` must be specified")
        if spec.default_backend:
            yield from _validate_backend(spec.default_backend, "spec.defaultBackend")
        for index, rule in enumerate(spec.rules):
            path = f"spec.rules[{index}]"
            yield from _validate_host(rule.host or "", f"{path}.host")
            if rule.http is None:
                continue
            if not rule.http.paths:
                yield required(f"{path}.http.paths")
            for number, each in enumerate(rule.http.paths):
                yield from _validate_path(each, f"{path}.http.paths[{number}]")
        for index, tls in enumerate(spec.tls):
            for number, host in enumerate(tls.hosts):
                yield from _validate_host(host, f"spec.tls[{index}].hosts[{number}]", address=True)
            if tls.secret_name:
                for fault in names.dns1123_subdomain_faults(tls.secret_name):
                    yield invalid(f"spec.tls[{index}].secretName", tls.secret_name, fault)

        name = spec.ingress_class_name
        for fault in names.dns1123_subdomain_faults(name) if name is not None else ():
            yield invalid("spec.ingressClassName", name, fault)

    def validate_create(self, obj: Ingress) -> Iterable[Cause]:
        annotation = obj.metadata.annotations.get(CLASS_ANNOTATION)
        name = obj.spec.ingress_class_name if obj.spec else None
        if annotation is not None and name is not None and annotation != name:
            detail = "must match `ingressClassName` when both are specified"
            yield invalid(f"annotations.{CLASS_ANNOTATION}", annotation, detail)

    def validate_status_update(self, obj: Ingress, old: Ingress) -> Iterable[Cause]:
        balancer = obj.status.load_balancer if obj.status else None
        for index, each in enumerate(balancer.ingress if balancer else ()):
            path = f"status.loadBalancer.ingress[{index}]"
            if each.ip:
                yield from validate_ip(each.ip, f"{path}.ip")
            if each.hostname:
                for fault in names.dns1123_subdomain_faults(each.hostname):
                    yield invalid(f"{path}.hostname", each.hostname, fault)
                if _is_address(each.hostname):
                    yield invalid(f"{path}.hostname", each.hostname, "must be a DNS name, not an IP address")


def _validate_host(host: str, path: str, *, address: bool = False) -> Iterable[Cause]:
    if not host:
        return
    if not address and _is_address(host):
        yield invalid(path, host, "must be a DNS name, not an IP address")
    if "*" in host:
        if not WILDCARD.fullmatch(host):
            yield invalid(path, host, WILDCARD_FAULT)
        return
    for fault in names.dns1123_subdomain_faults(host):
        yield invalid(path, host, fault)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _validate_path(each: HTTPIngressPath, path: str) -> Iterable[Cause]:
    written = each.path or ""
    if not each.path_type:
        yield required(f"{path}.pathType", "pathType must be specified")
        return
    if each.path_type in ("Exact", "Prefix"):
        if not written.startswith("/"):
            yield invalid(f"{path}.path", written, "must be an absolute path")
        for part in NOT_IN_PATHS:
            if part in written:
                yield invalid(f"{path}.path", written, f"must not contain '{part}'")
        for end in NOT_AT_THE_END:
            if written.endswith(end):
                yield invalid(f"{path}.path", written, f"cannot end with '{end}'")
    elif each.path_type == "ImplementationSpecific":
        if written and not written.startswith("/"):
            yield invalid(f"{path}.path", written, "must be an absolute path")
    else:
        yield not_supported(f"{path}.pathType", each.path_type, PATH_TYPES)
    yield from _validate_backend(each.backend, f"{path}.backend")


def _validate_backend(backend: IngressBackend, path: str) -> Iterable[Cause]:
    if backend.resource and backend.service:
        yield invalid(path, "", "cannot set both resource and service backends")
    elif backend.resource:
        yield from _validate_reference(backend.resource, f"{path}.resource")
    elif backend.service is None:
        yield invalid(path, "", "resource or service backend is required")
    else:
        service = backend.service
        if not service.name:
            yield required(f"{path}.service.name")
        else:
            for fault in names.dns1123_label_faults(service.name):  # as Services may be called (KEP-5311)
                yield invalid(f"{path}.service.name", service.name, fault)
        name, number = (service.port.name, service.port.number) if service.port else (None, None)
        if name and number:
            yield invalid(path, "", "cannot set both port name & port number")
        elif name:
            for fault in port_name_faults(name):
                yield invalid(f"{path}.service.port.name", name, fault)
        elif number:
            yield from validate_port(number, f"{path}.service.port.number")
        else:
            yield required(path, "port name or number is required")


def _validate_reference(
    reference: TypedLocalObjectReference | IngressClassParametersReference, path: str
) -> Iterable[Cause]:
    if reference.api_group is not None:
        for fault in names.dns1123_subdomain_faults(reference.api_group):
            yield invalid(f"{path}.apiGroup", reference.api_group, fault)
    for field, value in (("kind", reference.kind), ("name", reference.name)):
        if not value:
            yield required(f"{path}.{field}")
        for fault in names.path_segment_faults(value):
            yield invalid(f"{path}.{field}", value, fault)


def _hosts(ingress: Ingress) -> str:
    hosts = list(dict.fromkeys(rule.host for rule in (ingress.spec.rules if ingress.spec else ()) if rule.host))
    if not hosts:
        return "*"
    return ",".join(hosts[:3]) + (f" + {len(hosts) - 3} more..." if len(hosts) > 3 else "")


def _address(ingress: Ingress) -> str:
    balancer = ingress.status.load_balancer if ingress.status else None
    return ",".join(each.ip or each.hostname or "" for each in (balancer.ingress if balancer else ()))


INGRESS_COLUMNS = (
    Column("Class", lambda obj, now_s: (obj.spec.ingress_class_name if obj.spec else None) or NONE),
    Column("Hosts", lambda obj, now_s: _hosts(obj)),
    Column("Address", lambda obj, now_s: _address(obj)),
    Column("Ports", lambda obj, now_s: "80, 443" if obj.spec and obj.spec.tls else "80"),
    Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s)),
)


class IngressClassRules(Strategy[IngressClass]):
    has_generation = True

    def default(self, obj: IngressClass) -> None:
        parameters = obj.spec.parameters if obj.spec else None
        if parameters and parameters.scope is None:
            parameters.scope = "Cluster"

    def validate(self, obj: IngressClass) -> Iterable[Cause]:
        controller = (obj.spec.controller if obj.spec else None) or ""
        if not controller:
            yield required("spec.controller")
        else:
            if len(controller.encode()) > CONTROLLER_MAX:
                yield too_long("spec.controller", CONTROLLER_MAX)
            yield from _validate_controller(controller, "spec.controller")
        parameters = obj.spec.parameters if obj.spec else None
        if parameters is None:
            return
        path = "spec.parameters"
        yield from _validate_reference(parameters, path)
        if parameters.scope not in ("Cluster", "Namespace"):
            yield not_supported(f"{path}.scope", parameters.scope, ("Cluster", "Namespace"))
        elif parameters.scope == "Cluster":
            if parameters.namespace is not None:
                yield forbidden(f"{path}.namespace", "`parameters.scope` is set to 'Cluster'")
        elif parameters.namespace is None:
            yield required(f"{path}.namespace", "`parameters.scope` is set to 'Namespace'")
        else:
            for fault in names.dns1123_label_faults(parameters.namespace):
                yield invalid(f"{path}.namespace", parameters.namespace, fault)

    def validate_update(self, obj: IngressClass, old: IngressClass) -> Iterable[Cause]:
        controller = obj.spec.controller if obj.spec else None
        if controller != (old.spec.controller if old.spec else None):
            yield invalid("spec.controller", controller, "field is immutable")


def _validate_controller(controller: str, path: str) -> Iterable[Cause]:
    """domain/path (IsDomainPrefixedPath)."""
    domain, _, rest = controller.partition("/")
    if not domain or not rest:
        yield invalid(path, controller, 'must be a domain-prefixed path (such as "acme.io/foo")')
        return
    for fault in names.dns1123_subdomain_faults(domain):
        yield invalid(path, domain, fault)
    if not URL_PATH.fullmatch(rest):
        yield invalid(path, rest, f"Invalid path (regex used for validation is '{URL_PATH.pattern}')")


def _parameters(obj: IngressClass) -> str:
    found = obj.spec.parameters if obj.spec else None
    if found is None:
        return NONE
    kind = f"{found.kind}.{found.api_group}" if found.api_group else found.kind
    return f"{kind}/{found.name}"


CLASS_COLUMNS = (
    Column("Controller", lambda obj, now_s: (obj.spec.controller if obj.spec else None) or ""),
    Column("Parameters", lambda obj, now_s: _parameters(obj)),
    Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s)),
)
