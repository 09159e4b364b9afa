"""Hosts and paths in Envoy's language: one route configuration for plain HTTP, one for HTTPS.

Envoy takes the first route of a host that matches. One of ours becomes several of Envoy's where more than the path
decides: a canary by header or cookie, a limit for bodies, plain HTTP that is sent to HTTPS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from knarr.edge.ingress.model import (
    ANY_HOST,
    Alternative,
    Backend,
    Canary,
    Cookie,
    Cors,
    Host,
    Options,
    PathKind,
    Redirect,
    Route,
    Routing,
)
from knarr.edge.ingress.regex import groups_of
from knarr.edge.ingress.wire import encode

Message = dict[str, Any]

BUFFER, CORS, RATE_LIMIT, RBAC = (
    "envoy.filters.http.buffer",
    "envoy.filters.http.cors",
    "envoy.filters.http.local_ratelimit",
    "envoy.filters.http.rbac",
)
FILTERS = "envoy.extensions.filters.http"
BUFFER_BYTES_MAX = 64 << 20
"""A body of unknown length is held until it is known to be within its limit, if that is at most so much."""
CLIENTS_COUNTED_MAX = 10_000
"""Addresses whose request rate is limited, for each route; the one that was not seen longest gives way."""
HOSTS_KEPT_MAX = 1 << 15
VIRTUAL_HOST = "envoy.config.route.v3.VirtualHost"
UNLIMITED = (1 << 32) - 1
RETRIES = 3
UNSENT = "connect-failure,refused-stream,reset-before-request"
"""When a request is tried once more at another endpoint: whatever it is, if it has not reached the first one."""
REPEATABLE = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE"
NOBODY_MATCHES = 404
NO_BACKEND = 503
LENGTH_END = 1 << 62
OVERWRITE = "OVERWRITE_IF_EXISTS_OR_ADD"
CLIENT = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"


def route_configuration(name: str, routing: Routing, *, https: bool, http_port: int, https_port: int) -> Message:
    """All hosts. What a client claims about where it comes from is overwritten: nobody stands before us."""
    anywhere = next((host.routes for host in routing.hosts if host.name == ANY_HOST), ())
    return {
        "name": name,
        "ignore_port_in_host_matching": True,
        "request_headers_to_add": [
            _header("x-forwarded-for", CLIENT),
            _header("x-real-ip", CLIENT),
            _header("x-forwarded-host", "%REQ(:AUTHORITY)%"),
            _header("x-forwarded-port", str(https_port if https else http_port)),
        ],
        "virtual_hosts": [
            _virtual_host(host, anywhere if host.name.startswith("*.") else (), https, http_port, https_port)
            for host in routing.hosts
        ],
    }


@lru_cache(maxsize=HOSTS_KEPT_MAX)
def _virtual_host(host: Host, anywhere: tuple[Route, ...], https: bool, http_port: int, https_port: int) -> bytes:
    """Written down already: of many hosts, a change touches few."""
    port = https_port if (http_port, https_port) != (80, 443) else 0
    routes = [each for route in host.routes for each in _routes(route, https, port)]
    if host.name.startswith("*."):
        # Envoy's wildcard is any number of labels. Deeper names go where names without a rule go.
        only = _authority_below(host.name)
        routes = [{**each, "match": {**each["match"], "headers": [*_headers(each), only]}} for each in routes]
        not_ours = [each for route in anywhere for each in _routes(route, https, port)]
        routes += [{**each, "match": {**each["match"], "headers": [*_headers(each), _not(only)]}} for each in not_ours]
    routes.append({"match": {"prefix": "/"}, "direct_response": _answer(NOBODY_MATCHES)})
    return encode(VIRTUAL_HOST, {"name": host.name, "domains": [host.name], "routes": routes})


def _routes(route: Route, https: bool, https_port: int) -> Iterator[Message]:
    """One path as Envoy's routes, in their order."""
    options = route.options
    match = _match(route.kind, route.path)
    if route.to_https and not https:
        redirect = {"https_redirect": True, "response_code": "PERMANENT_REDIRECT"}
        yield {"name": route.ingress, "match": match, "redirect": redirect | _set("port_redirect", https_port)}
        return
    shared: Message = {"name": route.ingress}
    filters = _filters(options)
    if filters:
        shared["typed_per_filter_config"] = filters
    if options.closed:
        yield {**shared, "match": match, "direct_response": _answer(NO_BACKEND)}
    elif options.redirect is not None:
        yield {**shared, "match": match, **_redirected(options.redirect)}
    elif options.app_root and route.kind is PathKind.EXACT and route.backend is None:
        yield {**shared, "match": match, "redirect": {"path_redirect": options.app_root, "response_code": "FOUND"}}
    else:
        if options.body_bytes_max:
            yield _too_long(shared, match, options.body_bytes_max)
        for begun in _limited(shared, match, route):
            for each in _by_canary(begun, route):
                yield from _tried_again(each)


def _tried_again(route: Message) -> Iterator[Message]:
    """An endpoint that dies over a request that may be repeated (RFC 9110 §9.2.2) is the next one's to answer for."""
    if "route" in route:
        method = {"name": ":method", "string_match": {"safe_regex": {"regex": REPEATABLE}}}
        action = route["route"]
        retry = {**action["retry_policy"], "retry_on": f"{UNSENT},reset"}
        match = {**route["match"], "headers": [*_headers(route), method]}
        yield {**route, "match": match, "route": {**action, "retry_policy": retry}}
    yield route


def _too_long(shared: Message, match: Message, most: int) -> Message:
    """A body that tells that it is over the limit is answered at once."""
    header = {"name": "content-length", "range_match": {"start": most + 1, "end": LENGTH_END}}
    return {**shared, "match": {**match, "headers": [header]}, "direct_response": _answer(413)}


def _limited(shared: Message, match: Message, route: Route) -> Iterator[Message]:
    """What is left: bodies that tell their length pass, those that don't are counted."""
    most = route.options.body_bytes_max
    if not most:
        yield {**shared, "match": match}
        return
    told = {"name": "content-length", "present_match": True}
    yield {**shared, "match": {**match, "headers": [told]}}
    # A conversation (gRPC) would wait for its own end.
    is_stream = route.backend is not None and route.backend.protocol.is_http2
    if most <= BUFFER_BYTES_MAX and not is_stream:
        buffer = {"@type": f"{FILTERS}.buffer.v3.BufferPerRoute", "buffer": {"max_request_bytes": most}}
        filters = {**shared.get("typed_per_filter_config", {}), BUFFER: buffer}
        yield {**shared, "match": match, "typed_per_filter_config": filters}
    else:
        yield {**shared, "match": match}


def _by_canary(begun: Message, route: Route) -> Iterator[Message]:
    """The route itself, and before it those of requests that say whether they want the canary."""
    alternative = route.alternative
    if alternative is None:
        yield {**begun, **_to([(route.backend, 1)], route)}
        return
    rule = alternative.rule
    for header, wants in _wishes(rule):
        match = {**begun["match"], "headers": [*_headers(begun), header]}
        backend = alternative.backend if wants else route.backend
        yield {**begun, "match": match, **_to([(backend, 1)], route)}
    yield {**begun, **_to(_weighted(route.backend, alternative), route)}


def _wishes(rule: Canary) -> Iterator[tuple[Message, bool]]:
    """Headers, and whether a request with such a header goes to the canary."""
    if rule.header and rule.header_value:
        yield {"name": rule.header, "string_match": {"exact": rule.header_value}}, True
    elif rule.header and rule.header_pattern:
        yield {"name": rule.header, "string_match": {"safe_regex": {"regex": f".*({rule.header_pattern}).*"}}}, True
    elif rule.header:
        yield {"name": rule.header, "string_match": {"exact": "always"}}, True
        yield {"name": rule.header, "string_match": {"exact": "never"}}, False
    if rule.cookie:
        for value, wants in (("always", True), ("never", False)):
            regex = f"(.*;[ ]*)?{re.escape(rule.cookie)}={value}([ ]*;.*)?"
            yield {"name": "cookie", "string_match": {"safe_regex": {"regex": regex}}}, wants


def _weighted(main: Backend | None, alternative: Alternative) -> list[tuple[Backend | None, int]]:
    weight = min(alternative.rule.weight, alternative.rule.weight_total)
    shares = [(main, alternative.rule.weight_total - weight), (alternative.backend, weight)]
    return [share for share in shares if share[1]]


def _to(shares: Sequence[tuple[Backend | None, int]], route: Route) -> Message:
    """The action: to one backend, or to several by weight."""
    there = [(backend, weight) for backend, weight in shares if backend is not None]
    if not there:
        return {"direct_response": _answer(NO_BACKEND)}
    options = route.options
    action: Message = {
        "timeout": options.request_timeout_s,
        "idle_timeout": options.idle_timeout_s,
        "retry_policy": {
            "retry_on": UNSENT,
            "num_retries": RETRIES,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                    },
                }
            ],
            "host_selection_retry_max_attempts": RETRIES,
            "retry_back_off": {"base_interval": 0.005, "max_interval": 0.05},
        },
    }
    if len(there) == 1:
        action["cluster"] = there[0][0].name
    else:
        weights = [{"name": backend.name, "weight": weight} for backend, weight in there]
        action["weighted_clusters"] = {"clusters": weights}
    if options.rewrite_target is not None:
        action["regex_rewrite"] = _rewrite(route, options.rewrite_target)
    if options.upstream_host:
        action["host_rewrite_literal"] = options.upstream_host
    if options.cookie is not None:
        action["hash_policy"] = [{"cookie": _cookie(options.cookie)}]
    added = {"request_headers_to_add": [_header("x-forwarded-prefix", _escaped(options.forwarded_prefix))]}
    return {"route": action, **(added if options.forwarded_prefix else {})}


def _match(kind: PathKind, path: str) -> Message:
    if kind is PathKind.EXACT:
        return {"path": path}
    if kind is PathKind.REGEX:
        return {"safe_regex": {"regex": _regex(path)}}
    return {"path_separated_prefix": path} if path else {"prefix": "/"}


def _regex(path: str) -> str:
    """As ingress-nginx: from the start, either case, whatever follows."""
    return f"(?i:{path.removeprefix('^')}).*"


def _rewrite(route: Route, target: str) -> Message:
    """The whole path becomes the target; $1 is the first group. A group that the path doesn't have is empty."""
    groups = groups_of(route.path) if route.kind is PathKind.REGEX else 0
    pattern = _regex(route.path) if route.kind is PathKind.REGEX else ".*"

    def group(found: re.Match[str]) -> str:
        return f"\\{found[1]}" if 0 < int(found[1]) <= groups else ""

    substitution = re.sub(r"\$([0-9])", group, target.replace("\\", "\\\\"))
    return {"pattern": {"regex": f"^{pattern}$"}, "substitution": substitution}


def _redirected(redirect: Redirect) -> Message:
    """An answer with a Location: nginx's variables are what a request has."""
    location = _escaped(redirect.location)
    for variable, value in (
        ("$request_uri", "%REQ(:PATH)%"),
        ("$host", "%REQ(:AUTHORITY)%"),
        ("$scheme", "%REQ(:SCHEME)%"),
    ):
        location = location.replace(variable, value)
    return {
        "direct_response": {"status": redirect.code},
        "response_headers_to_add": [_header("location", location)],
    }


def _filters(options: Options) -> Message:
    """What the filters on the way do differently for these routes."""
    found: Message = {}
    if options.allowed_sources or options.denied_sources:
        found[RBAC] = _sources(options)
    if options.requests_per_s or options.requests_per_min:
        found[RATE_LIMIT] = _rate_limit(options)
    if options.cors is not None:
        found[CORS] = _cors(options.cors)
    return found


def _sources(options: Options) -> Message:
    conditions: list[Message] = []
    if options.allowed_sources:
        conditions.append({"or_ids": {"ids": [_source(each) for each in options.allowed_sources]}})
    if options.denied_sources:
        conditions.append({"not_id": {"or_ids": {"ids": [_source(each) for each in options.denied_sources]}}})
    policy = {"permissions": [{"any": True}], "principals": [{"and_ids": {"ids": conditions}}]}
    rules = {"action": "ALLOW", "policies": {"sources": policy}}
    return {"@type": f"{FILTERS}.rbac.v3.RBACPerRoute", "rbac": {"rules": rules}}


def _source(text: str) -> Message:
    address, _, length = text.partition("/")
    return {"remote_ip": {"address_prefix": address, "prefix_len": int(length)}}


def _rate_limit(options: Options) -> Message:
    """So many requests a second, or a minute, for each client address, and a burst of some times that at once."""
    all_of_them = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    actions: list[Message] = []
    descriptors: list[Message] = []
    for unit, seconds, count in (("second", 1.0, options.requests_per_s), ("minute", 60.0, options.requests_per_min)):
        if count:
            actions.append({"actions": [{"generic_key": {"descriptor_value": unit}}, {"remote_address": {}}]})
            entries = [{"key": "generic_key", "value": unit}, {"key": "remote_address"}]
            # Envoy fills it bit by bit, as nginx does: nobody waits for the end of the minute.
            burst = count * options.burst_multiplier
            bucket = {"max_tokens": burst, "tokens_per_fill": count, "fill_interval": seconds}
            descriptors.append({"entries": entries, "token_bucket": bucket})
    return {
        "@type": f"{FILTERS}.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "ingress",
        "status": {"code": NO_BACKEND},
        # What has no client's address counts here: nothing.
        "token_bucket": {"max_tokens": UNLIMITED, "tokens_per_fill": UNLIMITED, "fill_interval": 1.0},
        "filter_enabled": all_of_them,
        "filter_enforced": all_of_them,
        "rate_limits": actions,
        "descriptors": descriptors,
        "max_dynamic_descriptors": CLIENTS_COUNTED_MAX,
        "always_consume_default_token_bucket": False,
    }


def _cors(cors: Cors) -> Message:
    found: Message = {
        "@type": f"{FILTERS}.cors.v3.CorsPolicy",
        "allow_origin_string_match": [_origin(each) for each in cors.origins],
        "allow_methods": cors.methods,
        "allow_headers": cors.headers,
        "max_age": str(cors.age_max_s),
        # Envoy names the asker's origin where ingress-nginx answers "*", with which browsers give no page credentials.
        "allow_credentials": cors.credentials and "*" not in cors.origins,
    }
    return found | _set("expose_headers", cors.exposed)


def _origin(text: str) -> Message:
    if text == "*":
        return {"safe_regex": {"regex": ".*"}}
    if "*" not in text:
        return {"exact": text}
    before, _, after = text.partition("*")
    return {"safe_regex": {"regex": f"{re.escape(before)}[A-Za-z0-9.-]+{re.escape(after)}"}}


def _cookie(cookie: Cookie) -> Message:
    """A cookie without an age is a session's. Envoy makes it where a client doesn't send it."""
    attributes = [("SameSite", cookie.same_site)] if cookie.same_site else []
    attributes += [("Secure", "")] if cookie.secure else []
    return {
        "name": cookie.name,
        "path": cookie.path,
        "ttl": float(cookie.age_max_s),
        "attributes": [{"name": name, "value": value} for name, value in attributes],
    }


def _authority_below(wildcard: str) -> Message:
    """One whole label before the rest, with or without a port."""
    regex = rf"(?i)[^.:]+{re.escape(wildcard[1:])}(:[0-9]+)?"
    return {"name": ":authority", "string_match": {"safe_regex": {"regex": regex}}}


def _headers(route: Message) -> list[Message]:
    headers: list[Message] = route["match"].get("headers", [])
    return headers


def _not(header: Message) -> Message:
    return {**header, "invert_match": True}


def _answer(status: int) -> Message:
    text = {NOBODY_MATCHES: "404 page not found", NO_BACKEND: "503 service unavailable", 413: "413 payload too large"}
    return {"status": status, "body": {"inline_string": f"{text[status]}\n"}}


def _header(name: str, value: str) -> Message:
    return {"header": {"key": name, "value": value}, "append_action": OVERWRITE}


def _escaped(text: str) -> str:
    """% begins a command in Envoy's header values."""
    return text.replace("%", "%%")


def _set(name: str, value: Any) -> Message:
    return {name: value} if value else {}
