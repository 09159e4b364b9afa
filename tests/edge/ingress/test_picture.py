"""The merged picture: whose is a host, a path, a certificate, and what is said about what can't be had."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from knarr.api.core.v1 import Secret, Service, TypedLocalObjectReference
from knarr.api.discovery.v1 import EndpointConditions, EndpointSlice
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.networking.v1 import Ingress, IngressBackend, IngressClass, IngressClassSpec
from knarr.edge.ingress.backends import is_unreachable
from knarr.edge.ingress.model import Host, PathKind, Picture, Protocol, Redirect, Route
from knarr.edge.ingress.picture import Objects, picture
from tests.edge.ingress.objects import OURS, ingress, service, slice_of, tls_secret

THEIRS = IngressClass(metadata=ObjectMeta(name="nginx"), spec=IngressClassSpec(controller="k8s.io/ingress-nginx"))


def drawn(
    *ingresses: Ingress,
    services: Sequence[Service] = (),
    slices: Sequence[EndpointSlice] = (),
    secrets: Sequence[Secret] = (),
    resolved: dict[str, tuple[str, ...]] | None = None,
    **more: Any,
) -> Picture:
    """Of these objects; Services that aren't given and are named exist."""
    named = {
        f"{each.metadata.namespace}/{path.backend.service.name}": path.backend.service.name
        for each in ingresses
        for rule in (each.spec.rules if each.spec else ())
        for path in (rule.http.paths if rule.http else ())
        if path.backend.service and path.backend.service.name != "missing"
    }
    there = {key: service(name, namespace=key.partition("/")[0]) for key, name in named.items()}
    there |= {f"{each.metadata.namespace}/{each.metadata.name}": each for each in services}

    def slices_of(key: str) -> Iterable[EndpointSlice]:
        return [
            each
            for each in slices
            if f"{each.metadata.namespace}/{each.metadata.labels['kubernetes.io/service-name']}" == key
        ]

    objects = Objects(
        ingresses=ingresses,
        classes={each.metadata.name or "": each for each in (OURS, THEIRS)},
        services=there,
        secrets={f"{each.metadata.namespace}/{each.metadata.name}": each for each in secrets},
        slices=slices_of,
        resolved=resolved or {},
    )
    return picture(objects, lambda endpoint: is_unreachable(endpoint.address), **more)


def host(found: Picture, name: str) -> Host:
    return next(each for each in found.routing.hosts if each.name == name)


def takes(route: Route, path: str) -> bool:
    """Whether a route takes a path, as Envoy decides it."""
    if route.kind is PathKind.EXACT:
        return path == route.path
    if route.kind is PathKind.REGEX:
        return re.match(f"(?i){route.path}", path) is not None
    return path == route.path or path.startswith(route.path + "/")


def backend_for(found: Picture, name: str, path: str) -> str | None:
    for route in host(found, name).routes:
        if takes(route, path):
            return route.backend.service.partition("/")[2] if route.backend else "none"
    return None


def problems(found: Picture, reason: str = "") -> list[str]:
    return [f"{each.ingress}: {each.message}" for each in found.problems if reason in ("", each.reason)]


# Of the table in https://kubernetes.io/docs/concepts/services-networking/ingress/#examples
EXAMPLES = [
    ("Prefix", ["/"], "/anything", "/"),
    ("Exact", ["/foo"], "/foo", "/foo"),
    ("Exact", ["/foo"], "/bar", None),
    ("Exact", ["/foo"], "/foo/", None),
    ("Exact", ["/foo/"], "/foo", None),
    ("Prefix", ["/foo"], "/foo", "/foo"),
    ("Prefix", ["/foo"], "/foo/", "/foo"),
    ("Prefix", ["/foo/"], "/foo", "/foo/"),
    ("Prefix", ["/foo/"], "/foo/", "/foo/"),
    ("Prefix", ["/aaa/bb"], "/aaa/bbb", None),
    ("Prefix", ["/aaa/bbb"], "/aaa/bbb", "/aaa/bbb"),
    ("Prefix", ["/aaa/bbb/"], "/aaa/bbb", "/aaa/bbb/"),
    ("Prefix", ["/aaa/bbb"], "/aaa/bbb/", "/aaa/bbb"),
    ("Prefix", ["/aaa/bbb"], "/aaa/bbb/ccc", "/aaa/bbb"),
    ("Prefix", ["/aaa/bbb"], "/aaa/bbbxyz", None),
    ("Prefix", ["/", "/aaa"], "/aaa/ccc", "/aaa"),
    ("Prefix", ["/", "/aaa", "/aaa/bbb"], "/aaa/bbb", "/aaa/bbb"),
    ("Prefix", ["/", "/aaa", "/aaa/bbb"], "/ccc", "/"),
    ("Prefix", ["/aaa"], "/ccc", None),
    ("ImplementationSpecific", ["/foo"], "/foo/bar", "/foo"),
    ("ImplementationSpecific", [""], "/anything", ""),
]


@pytest.mark.parametrize(("kind", "paths", "asked", "expected"), EXAMPLES)
def test_paths_match_as_the_documentation_shows(kind: str, paths: list[str], asked: str, expected: str | None) -> None:
    services = {path: f"s{number}" for number, path in enumerate(paths)}
    found = drawn(ingress("one", [("a.example", kind, path, services[path]) for path in paths]))
    assert backend_for(found, "a.example", asked) == (services[expected] if expected is not None else None)


def test_exact_comes_before_a_prefix_of_the_same_and_of_any_length() -> None:
    rules = [("a.example", "Prefix", "/foo/bar/baz", "long"), ("a.example", "Prefix", "/foo", "prefix")]
    found = drawn(ingress("one", [*rules, ("a.example", "Exact", "/foo", "exact")]))
    assert backend_for(found, "a.example", "/foo") == "exact"
    assert backend_for(found, "a.example", "/foo/x") == "prefix"
    assert backend_for(found, "a.example", "/foo/bar/baz/") == "long"


def test_the_oldest_has_a_path_that_two_want_and_the_other_is_told_and_served_elsewhere() -> None:
    young = ingress("young", [("a.example", "Prefix", "/", "young"), ("a.example", "Prefix", "/new", "young")])
    old = ingress("old", [("a.example", "Prefix", "/", "old")], age_s=60)
    for order in ((young, old), (old, young)):
        found = drawn(*order)
        assert backend_for(found, "a.example", "/") == "old"
        assert backend_for(found, "a.example", "/new") == "young"
        taken = "default/young: a.example/ (Prefix) is already taken by Ingress default/old"
        assert problems(found) == [taken]


def test_of_the_same_age_the_name_decides() -> None:
    found = drawn(ingress("b", [("", "Prefix", "/", "b")]), ingress("a", [("", "Prefix", "/", "a")]))
    assert backend_for(found, "*", "/") == "a"


def test_hosts_of_different_namespaces_are_merged_and_services_are_each_ones_own() -> None:
    mine = ingress("one", [("a.example", "Prefix", "/one", "web")])
    other = ingress("two", [("A.example", "Prefix", "/two", "web")], namespace="other")
    found = drawn(mine, other)
    assert [route.backend.service for route in host(found, "a.example").routes if route.backend] == [
        "default/web",
        "other/web",
    ]


def test_an_ingress_of_another_class_or_of_none_is_left_alone() -> None:
    paths = [("a.example", "Prefix", "/", "web")]
    legacy = {"kubernetes.io/ingress.class": "knarr"}
    theirs = {"kubernetes.io/ingress.class": "nginx"}
    found = drawn(
        ingress("theirs", paths, class_name="nginx"),
        ingress("none", paths, class_name=None),
        ingress("unknown", paths, class_name="unknown"),
        ingress("legacy-theirs", paths, class_name=None, annotations=theirs),
    )
    assert (found.served, found.problems) == ((), ())
    assert drawn(ingress("legacy", paths, class_name=None, annotations=legacy)).served == ("default/legacy",)


def test_what_no_path_takes_goes_to_the_hosts_default_then_to_that_of_an_ingress_without_rules() -> None:
    own = ingress("own", [("a.example", "Prefix", "/x", "x")], default="own-default")
    other = ingress("other", [("b.example", "Prefix", "/x", "x")])
    everywhere = ingress("all", default="all-default", age_s=5)
    late = ingress("late", default="late-default")
    defaults = [service(name) for name in ("own-default", "all-default", "late-default")]
    found = drawn(own, other, everywhere, late, services=defaults)
    assert backend_for(found, "a.example", "/y") == "own-default"
    assert backend_for(found, "b.example", "/y") == "all-default"
    assert backend_for(found, "*", "/y") == "all-default"
    assert problems(found) == ["default/late: the default backend is that of Ingress default/all"]


def test_a_service_that_is_missing_or_lacks_the_port_is_told_and_answers_503() -> None:
    found = drawn(
        ingress("one", [("a.example", "Prefix", "/", "missing"), ("a.example", "Prefix", "/p", "other-port")]),
        services=[service("other-port", 8080)],
    )
    assert {backend_for(found, "a.example", path) for path in ("/", "/p")} == {"none"}
    assert problems(found) == [
        "default/one: a.example/: Service default/missing does not exist; it answers 503",
        "default/one: a.example/p: Service default/other-port has no TCP port 80; it answers 503",
    ]


def test_a_resource_backend_is_refused_clearly_and_the_rest_is_served() -> None:
    one = ingress("one", [("a.example", "Prefix", "/", "web")])
    assert one.spec
    one.spec.default_backend = IngressBackend(resource=TypedLocalObjectReference(kind="Bucket", name="images"))
    found = drawn(one)
    expected = "a resource as backend (Bucket images) is not supported; it answers 503"
    assert problems(found, "ResourceBackendRefused") == [f"default/one: spec.defaultBackend: {expected}"]
    assert backend_for(found, "a.example", "/") == "web"


def endpoints(found: Picture, name: str = "default/web:80") -> list[str]:
    return [f"{each.address}:{each.port}" for each in found.routing.endpoints[name]]


def test_endpoints_are_the_ready_ones_then_those_that_serve_while_they_end() -> None:
    web = ingress("one", [("", "Prefix", "/", "web")])
    ready = slice_of("web", [("10.0.0.1", 8080), ("10.0.0.2", 8080)])
    leaving = EndpointConditions(ready=False, serving=True, terminating=True)
    gone = EndpointConditions(ready=False, serving=False, terminating=True)
    ending = [
        slice_of("web", [("10.0.0.3", 8080)], conditions=leaving),
        slice_of("web", [("10.0.0.4", 8080)], conditions=gone),
    ]
    assert endpoints(drawn(web, slices=[ready, *ending])) == ["10.0.0.1:8080", "10.0.0.2:8080"]
    assert endpoints(drawn(web, slices=ending)) == ["10.0.0.3:8080"]


def test_only_the_ports_of_that_name_are_endpoints() -> None:
    named = service("web", port_name="http")
    found = drawn(
        ingress("one", [("", "Prefix", "/", "web")]),
        services=[named],
        slices=[
            slice_of("web", [("10.0.0.1", 8080)], port_name="http"),
            slice_of("web", [("10.0.0.2", 9090)], port_name="metrics"),
        ],
    )
    assert endpoints(found) == ["10.0.0.1:8080"]


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"])
def test_nobody_reaches_loopback_or_link_local_by_an_endpoint_or_an_external_name(address: str) -> None:
    external = service("web", type="ExternalName", external_name="evil.example", cluster_ip=None)
    web = ingress("one", [("", "Prefix", "/", "web")])
    assert endpoints(drawn(web, slices=[slice_of("web", [(address, 80), ("10.0.0.1", 80)])])) == ["10.0.0.1:80"]
    resolved = {"evil.example": (address, "::ffff:127.0.0.1", "::1", "fe80::1", "203.0.113.7")}
    assert endpoints(drawn(web, services=[external], resolved=resolved)) == ["203.0.113.7:80"]


@pytest.mark.parametrize(
    ("app_protocol", "annotation", "expected"),
    [
        (None, "", Protocol.HTTP1),
        ("kubernetes.io/h2c", "", Protocol.HTTP2),
        ("kubernetes.io/ws", "", Protocol.HTTP1),
        ("kubernetes.io/wss", "", Protocol.HTTPS),
        ("https", "", Protocol.HTTPS),
        (None, "GRPC", Protocol.HTTP2),
        (None, "grpcs", Protocol.GRPCS),
        ("kubernetes.io/h2c", "HTTP", Protocol.HTTP1),
    ],
)
def test_how_a_backend_is_spoken_to(app_protocol: str | None, annotation: str, expected: Protocol) -> None:
    annotations = {"backend-protocol": annotation} if annotation else {}
    found = drawn(
        ingress("one", [("", "Prefix", "/", "web")], annotations=annotations),
        services=[service("web", app_protocol=app_protocol)],
    )
    assert [each.protocol for each in found.routing.backends.values()] == [expected]


@pytest.mark.parametrize(("name", "other"), [("a.example", "www.a.example"), ("www.a.example", "a.example")])
def test_a_name_with_www_or_without_is_sent_to_the_one_that_has_the_rules(name: str, other: str) -> None:
    main = ingress(
        "one",
        [(name, "Prefix", "/shop", "web"), ("*.b.example", "Prefix", "/", "web"), ("", "Prefix", "/", "web")],
        annotations={"from-to-www-redirect": "true"},
        tls=[("cert", [name])],
    )
    found = drawn(main, secrets=[tls_secret("cert", name, other)])
    assert sorted(each.name for each in found.routing.hosts) == sorted(["*", "*.b.example", name, other])
    (route,) = host(found, other).routes
    assert route.options.redirect == Redirect(f"$scheme://{name}$request_uri", 308)
    assert (route.kind, route.path, route.to_https) == (PathKind.PREFIX, "", False)
    (certificate,) = found.routing.certificates
    assert certificate.hosts == tuple(sorted([name, other]))
    assert found.problems == ()

    of_one_name = drawn(main, secrets=[tls_secret("cert", name)])
    assert of_one_name.routing.certificates[0].hosts == (name,)

    theirs = ingress("theirs", [(other, "Prefix", "/", "web")])
    served = drawn(main, theirs, secrets=[tls_secret("cert", name)])
    assert [each.options.redirect for each in host(served, other).routes] == [None]
    (problem,) = served.problems
    assert problem.message == f"{other} has rules of its own, and is not sent to {name}"

    both = ingress(
        "one",
        [(each, "Prefix", "/", "web") for each in (name, other)],
        annotations={"from-to-www-redirect": "true"},
    )
    assert drawn(both).problems == ()


# TLS

PATHS = [("a.example", "Prefix", "/", "web")]


def test_a_certificate_is_shown_for_its_hosts_and_plain_http_is_sent_to_https() -> None:
    secret = tls_secret("cert", "a.example")
    found = drawn(ingress("one", PATHS, tls=[("cert", ["a.example"])]), secrets=[secret])
    assert [(each.name, each.hosts) for each in found.routing.certificates] == [("default/cert", ("a.example",))]
    assert [route.to_https for route in host(found, "a.example").routes] == [True]
    assert found.problems == ()
    without_https = drawn(ingress("one", PATHS, tls=[("cert", ["a.example"])]), secrets=[secret], https=False)
    assert [route.to_https for route in host(without_https, "a.example").routes] == [False]


def test_tls_without_hosts_is_for_the_rules_hosts_that_the_certificate_covers() -> None:
    paths = [*PATHS, ("b.example", "Prefix", "/", "web"), ("x.wild.example", "Prefix", "/", "web")]
    secret = tls_secret("cert", "a.example", "*.wild.example")
    found = drawn(ingress("one", paths, tls=[("cert", [])]), secrets=[secret])
    assert found.routing.certificates[0].hosts == ("a.example", "x.wild.example")
    redirected = [each.name for each in found.routing.hosts if any(route.to_https for route in each.routes)]
    assert redirected == ["a.example", "x.wild.example"]


def test_a_secret_of_another_namespace_is_never_used() -> None:
    secret = tls_secret("cert", "a.example", namespace="other")
    found = drawn(ingress("one", PATHS, tls=[("cert", ["a.example"])]), secrets=[secret])
    assert found.routing.certificates == ()
    expected = "Secret default/cert does not exist; our own certificate is shown instead"
    assert problems(found) == [f"default/one: {expected}"]


def _broken(kind: str) -> Secret:
    secret = tls_secret("cert", "a.example")
    if kind == "type":
        secret.type = "Opaque"
    elif kind == "no key":
        del secret.data["tls.key"]
    elif kind == "no PEM":
        secret.data["tls.crt"] = b"nonsense"
    elif kind == "another key":
        secret = tls_secret("cert", "a.example", key=ec.generate_private_key(ec.SECP256R1()))
    elif kind == "short key":
        secret = tls_secret("cert", "a.example", key=rsa.generate_private_key(65537, 1024))
    elif kind == "curve":
        secret = tls_secret("cert", "a.example", key=ec.generate_private_key(ec.SECP256K1()))
    return secret


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("type", "is of type Opaque, not kubernetes.io/tls"),
        ("no key", "has no tls.key"),
        ("no PEM", "can't be read"),
        ("another key", "has a key that isn't its certificate's"),
        ("short key", "has an RSA key of 1024 bits; 2048 is the least"),
        ("curve", "has a key that is neither RSA nor ECDSA on P-256, P-384 or P-521"),
    ],
)
def test_a_bad_secret_is_told_and_breaks_no_other(kind: str, said: str) -> None:
    bad = ingress("bad", PATHS, tls=[("cert", ["a.example"])], age_s=9)
    good = ingress("good", [("b.example", "Prefix", "/", "web")], tls=[("fine", ["b.example"])])
    found = drawn(bad, good, secrets=[_broken(kind), tls_secret("fine", "b.example")])
    assert [each.name for each in found.routing.certificates] == ["default/fine"]
    assert len(problems(found)) == 1
    assert said in problems(found)[0]
    assert backend_for(found, "a.example", "/") == "web"


def test_the_oldest_has_a_hosts_certificate_unless_it_can_not_be_used() -> None:
    old = ingress("old", PATHS, tls=[("old", ["a.example"])], age_s=9)
    young = ingress("young", [("a.example", "Prefix", "/y", "web")], tls=[("young", ["a.example"])])
    secrets = [tls_secret("old", "a.example"), tls_secret("young", "a.example")]
    found = drawn(old, young, secrets=secrets)
    assert [each.name for each in found.routing.certificates] == ["default/old"]
    assert problems(found) == ["default/young: a.example: the certificate of Secret default/old is older"]
    found = drawn(old, young, secrets=secrets[1:])
    assert [each.name for each in found.routing.certificates] == ["default/young"]


def test_a_certificate_that_is_for_another_name_or_has_ended_is_shown_and_told() -> None:
    secret = tls_secret("cert", "b.example", ends_in_days=-1)
    tls = [("cert", ["a.example"])]
    found = drawn(ingress("one", PATHS, tls=tls), secrets=[secret], now_s=2_000_000_000.0)
    assert len(found.routing.certificates) == 1
    assert problems(found, "CertificateExpired") == [
        "default/one: the certificate of Secret default/cert is no longer valid"
    ]
    assert len(problems(found, "CertificateMismatch")) == 1


def test_who_proves_that_a_name_is_its_own_is_asked_without_tls() -> None:
    challenge = ("a.example", "Exact", "/.well-known/acme-challenge/token", "solver")
    found = drawn(ingress("one", [*PATHS, challenge], tls=[("", ["a.example"])]))
    assert [(route.path, route.to_https) for route in host(found, "a.example").routes] == [
        ("/.well-known/acme-challenge/token", False),
        ("", True),
    ]


@pytest.mark.parametrize("path", ["/a?b", "/a#b", "/a b", "/a\x00"])
def test_what_can_be_no_path_is_told_and_left_out(path: str) -> None:
    found = drawn(ingress("one", [*PATHS, ("a.example", "Prefix", path, "web")]))
    assert len(problems(found, "PathInvalid")) == 1
    assert len(host(found, "a.example").routes) == 1


# Canaries


def test_a_canary_stands_beside_the_route_that_it_names() -> None:
    main = ingress("main", PATHS)
    canary = ingress(
        "canary", [("a.example", "Prefix", "/", "next")], annotations={"canary": "true", "canary-weight": "10"}
    )
    found = drawn(main, canary)
    (route,) = host(found, "a.example").routes
    assert route.backend
    assert route.alternative
    assert route.alternative.backend
    assert (route.backend.service, route.alternative.backend.service) == ("default/web", "default/next")
    assert route.alternative.rule.weight == 10
    assert found.problems == ()


def test_a_canary_without_a_main_route_and_a_second_one_are_told() -> None:
    annotations = {"canary": "true", "canary-weight": "10"}
    alone = ingress("alone", [("b.example", "Prefix", "/", "next")], annotations=annotations)
    first = ingress("first", PATHS, annotations=annotations, age_s=1)
    second = ingress("second", PATHS, annotations=annotations)
    found = drawn(ingress("main", PATHS), alone, first, second)
    assert problems(found) == [
        "default/alone: b.example/ (Prefix) is served by no Ingress",
        "default/second: a.example/ has a canary already",
    ]


# What annotations do to the whole


@pytest.mark.parametrize(
    "name", ["configuration-snippet", "server-snippet", "auth-snippet", "stream-snippet", "modsecurity-snippet"]
)
def test_a_snippet_refuses_the_ingress_and_says_so(name: str) -> None:
    bad = ingress("bad", PATHS, annotations={name: "return 200;"}, age_s=9)
    found = drawn(bad, ingress("good", PATHS))
    assert found.served == ("default/good",)
    assert problems(found) == [
        f"default/bad: {name}: would inject configuration into the proxy; the Ingress is not served"
    ]
    assert host(found, "a.example").routes[0].ingress == "default/good"


def test_unknown_annotations_are_named_once_and_the_ingress_is_served() -> None:
    annotations = {"proxy-buffering": "on", "mirror-target": "x", "other.example/x": "y"}
    found = drawn(ingress("one", PATHS, annotations=annotations))
    assert problems(found) == ["default/one: not known here, and ignored: mirror-target, proxy-buffering"]
    assert found.served == ("default/one",)


@pytest.mark.parametrize(
    "annotations",
    [
        {"auth-type": "basic", "auth-secret": "users"},
        {"auth-url": "https://login.example"},
        {"auth-tls-secret": "default/ca"},
        {"whitelist-source-range": "10.0.0.0/8, nonsense"},
        {"denylist-source-range": ""},
    ],
)
def test_a_protection_that_is_not_available_closes_the_path(annotations: dict[str, str]) -> None:
    found = drawn(ingress("one", PATHS, annotations=annotations))
    (route,) = host(found, "a.example").routes
    assert route.options.closed
    assert len(problems(found)) == 1
    assert "the paths answer 503" in problems(found)[0]


@pytest.mark.parametrize(
    "pattern",
    [r"/a(?=b)", r"/(?<!x)a", r"/(a)\1", "/(", r"/a{1001}", r"/(a{100}){100}", r"/a++", r"/\Za", "/" + "a" * 2000],
)
def test_a_path_that_envoy_could_not_read_is_told_and_left_out(pattern: str) -> None:
    paths = [*PATHS, ("a.example", "ImplementationSpecific", pattern, "next")]
    found = drawn(ingress("one", paths, annotations={"use-regex": "true"}))
    assert len(problems(found, "PathInvalid")) == 1
    assert backend_for(found, "a.example", "/") == "web"


@pytest.mark.parametrize("pattern", [r"/api(/|$)(.*)", r"/[a-z]+/\d{1,3}", r"/(?:a|b)", r"/(?P<name>x)", "/v1.0"])
def test_usual_patterns_are_taken(pattern: str) -> None:
    paths = [("a.example", "ImplementationSpecific", pattern, "web")]
    found = drawn(ingress("one", paths, annotations={"use-regex": "true"}))
    assert found.problems == ()
    assert host(found, "a.example").routes[0].kind is PathKind.REGEX
