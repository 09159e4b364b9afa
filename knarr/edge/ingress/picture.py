"""All Ingress objects of our class, merged into one Routing: a plain function over values.

Rules (https://kubernetes.io/docs/concepts/services-networking/ingress/):

* A host is matched first: exact before wildcard (`*` is one whole label), then rules without a host.
* Then the path: Exact first, then the longest; Prefix goes by whole elements. ImplementationSpecific is as Prefix, and
  a regular expression where an annotation says so.
* What no path takes goes to the host's default backend, then to that of an Ingress without rules, else it is 404.
* The oldest Ingress has a host's path, a host's certificate, a default backend: creation time, then name. Whoever comes
  later is told, and the rest of it is served.
* A Secret is only ever one of the Ingress' own namespace: the API has no way to say otherwise.

Nothing that is wrong with one Ingress changes what another gets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from msgspec import Struct, field
from msgspec.structs import replace

from knarr.api.core.v1 import Secret, Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.networking.v1 import HTTPIngressPath, Ingress, IngressBackend, IngressClass, IngressSpec
from knarr.edge.ingress.annotations import read
from knarr.edge.ingress.backends import NoBackend, Refuse, backend_of, endpoints_of
from knarr.edge.ingress.certificates import CERTIFICATE, KEY, covers, key_pair
from knarr.edge.ingress.classes import Lookup, is_ours
from knarr.edge.ingress.model import (
    ANY_HOST,
    Alternative,
    Backend,
    Certificate,
    Host,
    Options,
    PathKind,
    Picture,
    Problem,
    Redirect,
    Route,
    Routing,
)
from knarr.edge.ingress.regex import fault_of

REGEX_CHARACTERS = frozenset("()[]{}*+?|^$\\")
IN_A_PATH = re.compile(r"/[^?#\x00-\x20\x7f]*")
ALWAYS_PLAIN = "/.well-known/acme-challenge"
"""Who proves that a name is its own is asked over HTTP (RFC 8555 §8.3), so paths from here on are never redirected."""
MOVED_FOR_GOOD = 308
EPOCH = datetime.fromtimestamp(0, UTC)


class Objects(Struct):
    """What a picture is made from, by namespace/name."""

    ingresses: Iterable[Ingress]
    classes: Lookup[IngressClass]
    services: Lookup[Service]
    secrets: Lookup[Secret]
    slices: Callable[[str], Iterable[EndpointSlice]]
    """Of a Service."""
    resolved: Mapping[str, tuple[str, ...]] = {}
    """Addresses of external names."""
    refused_secrets: Mapping[str, str] = {}
    """Secrets that Envoy doesn't take as they are, and what it says."""


def picture(objects: Objects, refuse: Refuse, *, https: bool = True, now_s: float = 0.0) -> Picture:
    """What is to be served, and what is wrong. Without `https` nobody is sent there."""
    ours = [each for each in objects.ingresses if is_ours(each, objects.classes)]
    ours = [each for each in ours if each.metadata.deletion_timestamp is None]
    merging = _Merging(objects, now_s)
    read_all = [_One(ingress, *_options(ingress, merging)) for ingress in sorted(ours, key=_age)]
    served = [one for one in read_all if not one.refused]
    main = [one for one in served if one.options.canary is None]
    for one in main:
        merging.add(one)
    for one in served:
        if one.options.canary is not None:
            merging.add_canary(one)
    for one in main:
        merging.add_certificates(one)
    for one in main:
        if one.options.www_redirect:
            merging.add_other_names(one)
    hosts = merging.hosts_in_order(https)
    backends = {backend.name: backend for backend in merging.backends}
    endpoints = {
        name: endpoints_of(backend, objects.slices(backend.service), objects.resolved, refuse)
        for name, backend in backends.items()
    }
    routing = Routing(hosts, merging.certificates_in_order(), backends, endpoints)
    refused = tuple(one.key for one in read_all if one.refused)
    return Picture(routing, tuple(merging.problems), tuple(one.key for one in served), refused)


def _age(ingress: Ingress) -> tuple[datetime, str]:
    return ingress.metadata.creation_timestamp or EPOCH, key_of(ingress)


def key_of(ingress: Ingress) -> str:
    return f"{ingress.metadata.namespace}/{ingress.metadata.name}"


class _One(Struct):
    """An Ingress and what its annotations ask for."""

    ingress: Ingress
    options: Options
    refused: bool

    @property
    def key(self) -> str:
        return key_of(self.ingress)

    @property
    def namespace(self) -> str:
        return self.ingress.metadata.namespace or ""

    @property
    def spec(self) -> IngressSpec:
        return self.ingress.spec or IngressSpec()


def _options(ingress: Ingress, merging: _Merging) -> tuple[Options, bool]:
    found = read(ingress.metadata.annotations)
    for reason, message in found.problems:
        merging.tell(key_of(ingress), reason, message)
    return found.options, found.refused


_Place = tuple[PathKind, str]


class _HostParts(Struct):
    """A host while it is put together."""

    routes: dict[_Place, Route] = field(default_factory=dict)
    default: Route | None = None
    app_root: Route | None = None


class _Merging:
    """What was merged so far."""

    def __init__(self, objects: Objects, now_s: float) -> None:
        self.objects = objects
        self.now_s = now_s
        self.problems: list[Problem] = []
        self.backends: set[Backend] = set()
        self.hosts: dict[str, _HostParts] = {}
        self.default: Route | None = None
        self.tls_hosts: dict[str, str] = {}
        """Host → the Secret that has it (namespace/name), empty for none that can be used."""
        self.certificates: dict[str, Certificate] = {}
        self.names: dict[str, tuple[str, ...]] = {}
        """Those that a certificate is for, by its Secret."""

    def tell(self, ingress: str, reason: str, message: str) -> None:
        problem = Problem(ingress, reason, message)
        if problem not in self.problems[-20:]:
            self.problems.append(problem)

    # Paths

    def add(self, one: _One) -> None:
        default = None
        if one.spec.default_backend is not None:
            backend = self._backend(one, one.spec.default_backend, "spec.defaultBackend")
            default = Route(one.key, PathKind.PREFIX, "", backend, one.options)
        if not one.spec.rules and default is not None:
            if self.default is None:
                self.default = default
            else:
                self.tell(one.key, "Conflict", f"the default backend is that of Ingress {self.default.ingress}")
        for rule in one.spec.rules:
            name = _host_name(rule.host)
            host = self.hosts.setdefault(name, _HostParts())
            if default is not None and host.default is None:
                host.default = default
            if one.options.app_root and host.app_root is None:
                host.app_root = Route(one.key, PathKind.EXACT, "/", None, one.options)
            for path in rule.http.paths if rule.http else ():
                self._add_path(one, name, host, path)

    def _add_path(self, one: _One, name: str, host: _HostParts, path: HTTPIngressPath) -> None:
        place = self._place(one, path)
        if place is None:
            return
        holder = host.routes.get(place)
        if holder is not None:
            by = "another rule of it" if holder.ingress == one.key else f"Ingress {holder.ingress}"
            self.tell(one.key, "Conflict", f"{name}{path.path or '/'} ({path.path_type}) is already taken by {by}")
            return
        backend = self._backend(one, path.backend, f"{name}{path.path or '/'}")
        host.routes[place] = Route(one.key, *place, backend, one.options)

    def add_canary(self, one: _One) -> None:
        rule = one.options.canary
        assert rule is not None
        for each in one.spec.rules:
            name = _host_name(each.host)
            host = self.hosts.get(name)
            for path in each.http.paths if each.http else ():
                place = self._place(one, path)
                route = host.routes.get(place) if host is not None and place is not None else None
                where = f"{name}{path.path or '/'}"
                if host is None or place is None or route is None:
                    self.tell(one.key, "CanaryWithoutMain", f"{where} ({path.path_type}) is served by no Ingress")
                elif route.alternative is not None:
                    self.tell(one.key, "Conflict", f"{where} has a canary already")
                else:
                    alternative = Alternative(rule, self._backend(one, path.backend, where))
                    host.routes[place] = replace(route, alternative=alternative)

    def _place(self, one: _One, path: HTTPIngressPath) -> _Place | None:
        """What of the requests a path takes; None when it can't be used."""
        text = path.path or "/"
        options = one.options
        if not IN_A_PATH.fullmatch(text) and not options.use_regex:
            self.tell(one.key, "PathInvalid", f"{text!r} can be no part of a URL's path")
            return None
        if options.use_regex or (options.rewrite_target and path.path_type != "Exact" and REGEX_CHARACTERS & {*text}):
            fault = fault_of(text)
            if fault:
                self.tell(one.key, "PathInvalid", f"{text}: {fault}")
                return None
            return PathKind.REGEX, text
        if path.path_type == "Exact":
            return PathKind.EXACT, text
        return PathKind.PREFIX, text.rstrip("/")

    def _backend(self, one: _One, wanted: IngressBackend, where: str) -> Backend | None:
        if wanted.service is None:
            kind = f"{wanted.resource.kind} {wanted.resource.name}" if wanted.resource else "nothing"
            message = f"{where}: a resource as backend ({kind}) is not supported; it answers 503"
            self.tell(one.key, "ResourceBackendRefused", message)
            return None
        try:
            backend = backend_of(one.namespace, wanted.service, self.objects.services, one.options)
        except NoBackend as error:
            self.tell(one.key, error.reason, f"{where}: {error}; it answers 503")
            return None
        self.backends.add(backend)
        return backend

    def hosts_in_order(self, https: bool) -> tuple[Host, ...]:
        """Each host with its routes, the first to be tried first."""
        self.hosts.setdefault(ANY_HOST, _HostParts())
        return tuple(Host(name, tuple(self._routes(name, parts, https))) for name, parts in self.hosts.items())

    def _routes(self, name: str, parts: _HostParts, https: bool) -> Iterable[Route]:
        routes = sorted(parts.routes.values(), key=_precedence)
        if parts.app_root is not None:
            routes.insert(0, parts.app_root)
        if (PathKind.PREFIX, "") not in parts.routes:
            last = parts.default or self.default
            routes += [last] if last is not None else []
        is_tls = name in self.tls_hosts or _parent(name) in self.tls_hosts
        for route in routes:
            options = route.options
            to_https = https and (options.force_ssl_redirect or (options.ssl_redirect and is_tls))
            to_https = to_https and not route.path.startswith(ALWAYS_PLAIN)
            yield replace(route, to_https=True) if to_https else route

    # Certificates

    def add_certificates(self, one: _One) -> None:
        for tls in one.spec.tls:
            key = f"{one.namespace}/{tls.secret_name}" if tls.secret_name else ""
            usable, names = self._usable(one, key) if key else (False, ())
            hosts = [host.lower() for host in tls.hosts]
            if not hosts:
                named = [_host_name(rule.host) for rule in one.spec.rules]
                hosts = [host for host in named if host == ANY_HOST or covers(names, host)]
            for host in hosts:
                holder = self.tls_hosts.get(host)
                if holder:
                    if usable and holder != key:
                        self.tell(one.key, "Conflict", f"{host}: the certificate of Secret {holder} is older")
                    continue
                self.tls_hosts[host] = key if usable else ""
                if usable and host != ANY_HOST and not covers(names, host):
                    message = f"{host}: the certificate of Secret {key} is not for it, but for {', '.join(names)}"
                    self.tell(one.key, "CertificateMismatch", message)

    def _usable(self, one: _One, key: str) -> tuple[bool, tuple[str, ...]]:
        """Whether a Secret has a certificate that can be shown, and its names."""
        secret = self.objects.secrets.get(key)
        if secret is None:
            self.tell(one.key, "SecretNotFound", f"Secret {key} does not exist; our own certificate is shown instead")
            return False, ()
        pair = key_pair(secret)
        refused = self.objects.refused_secrets.get(key)
        fault = f"is refused by Envoy: {refused}" if refused else pair.fault
        if fault:
            message = f"Secret {key} {fault}; our own certificate is shown instead"
            self.tell(one.key, "CertificateInvalid", message)
            return False, ()
        if pair.ends_s < self.now_s:
            self.tell(one.key, "CertificateExpired", f"the certificate of Secret {key} is no longer valid")
        self.certificates[key] = Certificate(key, secret.data[CERTIFICATE], secret.data[KEY])
        self.names[key] = pair.names
        return True, pair.names

    def add_other_names(self, one: _One) -> None:
        """With `www.` or without: sent to the name that has the rules, unless somebody serves it."""
        names = dict.fromkeys(_host_name(rule.host) for rule in one.spec.rules)
        for name in names:
            other = name.removeprefix("www.") if name.startswith("www.") else f"www.{name}"
            if name == ANY_HOST or name.startswith("*.") or other in names:
                continue
            if other in self.hosts:
                self.tell(one.key, "Conflict", f"{other} has rules of its own, and is not sent to {name}")
                continue
            redirect = Redirect(f"$scheme://{name}$request_uri", MOVED_FOR_GOOD)
            options = Options(redirect=redirect, ssl_redirect=False)
            self.hosts[other] = _HostParts(default=Route(one.key, PathKind.PREFIX, "", None, options))
            key = self.tls_hosts.get(name)
            if key and covers(self.names[key], other):
                self.tls_hosts.setdefault(other, key)

    def certificates_in_order(self) -> tuple[Certificate, ...]:
        """Those that are shown to somebody."""
        found = []
        for key, certificate in sorted(self.certificates.items()):
            hosts = tuple(sorted(host for host, holder in self.tls_hosts.items() if holder == key))
            if hosts:
                named = tuple(host for host in hosts if host != ANY_HOST)
                default = ANY_HOST in hosts
                found.append(Certificate(key, certificate.chain_pem, certificate.key_pem, named, default))
        return tuple(found)


def _host_name(host: str | None) -> str:
    return host.lower() if host else ANY_HOST


def _parent(name: str) -> str:
    """The wildcard that a name is under."""
    return "*." + name.partition(".")[2]


def _precedence(route: Route) -> tuple[bool, int, bool, str]:
    """Exact first, then the longest path; of the same length a plain one before a regular expression."""
    return route.kind is not PathKind.EXACT, -len(route.path), route.kind is PathKind.REGEX, route.path
