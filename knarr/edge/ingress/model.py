"""What the edge must do, as plain values: the result of merging all Ingress objects, before Envoy's language."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, field

CONNECT_TIMEOUT_S = 5.0
IDLE_TIMEOUT_S = 60.0
"""Between two pieces of a request or an answer, as ingress-nginx has it (proxy-read-timeout)."""
ANY_HOST = "*"


class Endpoint(Struct, frozen=True, order=True):
    """Where requests go."""

    address: str
    port: int


class Protocol(StrEnum):
    """How a backend is spoken to."""

    HTTP1 = "http"
    HTTP2 = "h2c"
    """HTTP/2 without TLS, by prior knowledge: gRPC servers."""
    HTTPS = "https"
    GRPCS = "grpcs"
    """HTTP/2 in TLS."""

    @property
    def is_tls(self) -> bool:
        return self in (Protocol.HTTPS, Protocol.GRPCS)

    @property
    def is_http2(self) -> bool:
        return self in (Protocol.HTTP2, Protocol.GRPCS)


class Backend(Struct, frozen=True):
    """A port of a Service, and how it is spoken to."""

    service: str
    """namespace/name"""
    port: str
    """Name or number of the Service's port, as it is known there: number where it has one."""
    port_name: str
    """Under which the EndpointSlices list it."""
    protocol: Protocol = Protocol.HTTP1
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    by_cookie: bool = False
    """Clients stay with an endpoint."""
    external_name: str = ""
    """Of a Service of type ExternalName: its endpoints are what DNS says."""
    external_port: int = 0

    @property
    def name(self) -> str:
        """Unique: what it shares with another cluster is everything."""
        parts = [f"{self.service}:{self.port}"]
        if self.protocol is not Protocol.HTTP1:
            parts.append(self.protocol.value)
        if self.connect_timeout_s != CONNECT_TIMEOUT_S:
            parts.append(f"connect={self.connect_timeout_s:g}")
        if self.by_cookie:
            parts.append("cookie")
        return "|".join(parts)


class Redirect(Struct, frozen=True):
    """An answer that sends clients elsewhere."""

    location: str
    """With $request_uri, $host and $scheme still in it."""
    code: int


class Cors(Struct, frozen=True):
    origins: tuple[str, ...] = ("*",)
    """With at most one * in each."""
    methods: str = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
    headers: str = (
        "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
    )
    exposed: str = ""
    credentials: bool = True
    age_max_s: int = 1_728_000


class Cookie(Struct, frozen=True):
    """That keeps a client with an endpoint."""

    name: str = "INGRESSCOOKIE"
    path: str = "/"
    age_max_s: int = 0
    """0: until the browser ends."""
    same_site: str = ""
    secure: bool = False


class Canary(Struct, frozen=True):
    """Which requests go to another backend; the first that says anything decides: header, cookie, weight."""

    header: str = ""
    header_value: str = ""
    header_pattern: str = ""
    cookie: str = ""
    weight: int = 0
    weight_total: int = 100


class Options(Struct, frozen=True):
    """What the annotations of an Ingress ask for."""

    rewrite_target: str | None = None
    use_regex: bool = False
    ssl_redirect: bool = True
    force_ssl_redirect: bool = False
    redirect: Redirect | None = None
    app_root: str = ""
    www_redirect: bool = False
    """The same name with `www.`, or without, leads here."""
    body_bytes_max: int = 0
    """0: no limit."""
    idle_timeout_s: float = IDLE_TIMEOUT_S
    request_timeout_s: float = 0.0
    """Of a whole request; 0: none."""
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    allowed_sources: tuple[str, ...] = ()
    denied_sources: tuple[str, ...] = ()
    protocol: Protocol | None = None
    """None: what the Service's port says (appProtocol)."""
    cors: Cors | None = None
    cookie: Cookie | None = None
    upstream_host: str = ""
    forwarded_prefix: str = ""
    requests_per_s: int = 0
    requests_per_min: int = 0
    burst_multiplier: int = 5
    canary: Canary | None = None
    closed: bool = False
    """It asks for a protection that we don't have, so it must not be served without."""


class PathKind(StrEnum):
    EXACT = "exact"
    PREFIX = "prefix"
    """Whole elements of a path: /foo is a prefix of /foo/bar, not of /foobar."""
    REGEX = "regex"
    """From the start, whatever follows, either case."""


class Alternative(Struct, frozen=True):
    """The canary of a route."""

    rule: Canary
    backend: Backend | None


class Route(Struct, frozen=True):
    """One path of one host."""

    ingress: str
    """namespace/name of whom it is from."""
    kind: PathKind
    path: str
    """A prefix without the slash at its end: the root is empty."""
    backend: Backend | None
    """None: there is none, and the answer is 503."""
    options: Options = Options()
    alternative: Alternative | None = None
    to_https: bool = False
    """Plain HTTP is sent to HTTPS."""


class Host(Struct, frozen=True):
    name: str
    """A name, `*.` and a name, or ANY_HOST."""
    routes: tuple[Route, ...] = ()
    """The first that matches is taken."""


class Certificate(Struct, frozen=True):
    """A key pair, and the names for which it is shown."""

    name: str
    """namespace/name of its Secret."""
    chain_pem: bytes
    key_pem: bytes
    hosts: tuple[str, ...] = ()
    is_default: bool = False
    """Shown to who asks for a name that no other has."""


class Routing(Struct, frozen=True):
    """Everything."""

    hosts: tuple[Host, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    backends: dict[str, Backend] = field(default_factory=dict)
    """By name."""
    endpoints: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    """By the backend's name."""


class Problem(Struct, frozen=True):
    """What is wrong with an Ingress, for its events."""

    ingress: str
    reason: str
    message: str


class Picture(Struct, frozen=True):
    routing: Routing
    problems: tuple[Problem, ...] = ()
    served: tuple[str, ...] = ()
    """namespace/name of the Ingress objects that are ours."""
    refused: tuple[str, ...] = ()
    """Of those that are ours, and are not served at all."""
