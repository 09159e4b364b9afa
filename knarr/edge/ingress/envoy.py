"""A Routing as Envoy's resources: clusters, endpoints, certificates, listeners and routes (API v3).

Every Service port is a cluster with endpoints of their own, so a change of endpoints is a message about just that.
Every certificate is a filter chain with its names, and comes by itself: a rotated one touches no connection, a new one
only adds a chain. The defaults are those that Envoy advises for what faces the Internet, and nginx' where its users
would notice: https://www.envoyproxy.io/docs/envoy/latest/configuration/best_practices/edge
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from msgspec import Struct

from knarr.edge.ingress.child import ADMIN_CLUSTER
from knarr.edge.ingress.envoy_routes import BUFFER, CORS, FILTERS, RATE_LIMIT, RBAC, route_configuration
from knarr.edge.ingress.model import Backend, Certificate, Endpoint, Routing
from knarr.edge.ingress.xds import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Built, built

Message = dict[str, Any]

TRANSPORT = "envoy.extensions.transport_sockets.tls.v3"
HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
FROM_STREAM = {"resource_api_version": "V3", "ads": {}}
AT_ONCE_MAX = 65_536
"""Connections, and requests, to one backend. The kernel's ports end there."""
UPSTREAM_IDLE_S = 4.0
"""An unused connection to a backend is closed before the backend does it: usual servers hang up from 5 s on."""
DOWNSTREAM_IDLE_S = 75.0
REQUEST_HEADERS_S = 10.0
STREAMS_MAX = 100
STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES = 64 << 10, 1 << 20
BUFFER_BYTES = 1 << 20
HEADERS_KB_MAX = 60
BACKENDS_KEPT_MAX = 1 << 14
"""What was built for so many is kept: a change touches few of them."""
HTTP, HTTPS, METRICS = "http", "https", "metrics"
LOGGED = {
    "time": "%START_TIME%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "method": "%REQ(:METHOD)%",
    "scheme": "%REQ(:SCHEME)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "detail": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "bytesReceived": "%BYTES_RECEIVED%",
    "bytesSent": "%BYTES_SENT%",
    "durationMs": "%DURATION%",
    "ingress": "%ROUTE_NAME%",
    "backend": "%UPSTREAM_CLUSTER%",
    "endpoint": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "requestId": "%REQ(X-REQUEST-ID)%",
    "userAgent": "%REQ(USER-AGENT)%",
}


class Serving(Struct, frozen=True):
    """Where Envoy listens and logs."""

    address: str = "0.0.0.0"
    http_port: int = 80
    """0: not at all."""
    https_port: int = 443
    metrics_port: int = 0
    """On loopback: /metrics."""
    access_log: str = ""
    """A path as Envoy sees it; empty for none."""


Resources = dict[str, dict[str, Built]]


def resources(routing: Routing, serving: Serving, default: Certificate) -> Resources:
    """Everything that Envoy is to have. `default` is shown where no certificate fits."""
    certificates = list(routing.certificates)
    if not any(each.is_default for each in certificates):
        certificates.append(default)
    listeners, routes = {}, {}
    ports = {"http_port": serving.http_port, "https_port": serving.https_port}
    if serving.http_port:
        listeners[HTTP] = _listener(HTTP, serving, serving.http_port, [])
        routes[HTTP] = route_configuration(HTTP, routing, https=False, **ports)
    if serving.https_port:
        listeners[HTTPS] = _listener(HTTPS, serving, serving.https_port, certificates)
        routes[HTTPS] = route_configuration(HTTPS, routing, https=True, **ports)
    if serving.metrics_port:
        listeners[METRICS] = _metrics_listener(serving.metrics_port)
    return {
        CLUSTER: {name: _cluster(backend) for name, backend in routing.backends.items()},
        ENDPOINTS: endpoint_resources(routing.endpoints),
        SECRET: {each.name: built(SECRET, _secret(each)) for each in certificates} if serving.https_port else {},
        LISTENER: {name: built(LISTENER, each) for name, each in listeners.items()},
        ROUTES: {name: built(ROUTES, each) for name, each in routes.items()},
    }


def endpoint_resources(endpoints: Mapping[str, tuple[Endpoint, ...]]) -> dict[str, Built]:
    """Those of some backends, by name: what a change of endpoints needs."""
    return {name: _assignment(name, each) for name, each in endpoints.items()}


@lru_cache(maxsize=BACKENDS_KEPT_MAX)
def _cluster(backend: Backend) -> Built:
    protocol: Message = {"http2_protocol_options": {}} if backend.protocol.is_http2 else {"http_protocol_options": {}}
    options = {
        "@type": "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "common_http_protocol_options": {"idle_timeout": UPSTREAM_IDLE_S},
        "explicit_http_config": protocol,
    }
    limits = {
        "max_connections": AT_ONCE_MAX,
        "max_pending_requests": AT_ONCE_MAX,
        "max_requests": AT_ONCE_MAX,
        "max_retries": AT_ONCE_MAX,
    }
    found: Message = {
        "name": backend.name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": FROM_STREAM},
        "connect_timeout": backend.connect_timeout_s,
        "lb_policy": "RING_HASH" if backend.by_cookie else "ROUND_ROBIN",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0.0}},
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }
    if backend.protocol.is_tls:
        # The certificate isn't checked, as in ingress-nginx (proxy-ssl-verify off): pods have none that could be.
        context: Message = {"@type": f"{TRANSPORT}.UpstreamTlsContext", "common_tls_context": {}}
        context["common_tls_context"] = {"alpn_protocols": ["h2" if backend.protocol.is_http2 else "http/1.1"]}
        if backend.external_name:
            context["sni"] = backend.external_name
        found["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    return built(CLUSTER, found)


@lru_cache(maxsize=BACKENDS_KEPT_MAX)
def _assignment(name: str, endpoints: tuple[Endpoint, ...]) -> Built:
    places = [{"endpoint": {"address": _address(each.address, each.port)}} for each in endpoints]
    return built(ENDPOINTS, {"cluster_name": name, "endpoints": [{"lb_endpoints": places}] if places else []})


def _address(address: str, port: int) -> Message:
    place: Message = {"address": address, "port_value": port}
    if address == "::":
        place["ipv4_compat"] = True
    return {"socket_address": place}


def _secret(certificate: Certificate) -> Message:
    return {
        "name": certificate.name,
        "tls_certificate": {
            "certificate_chain": {"inline_bytes": certificate.chain_pem},
            "private_key": {"inline_bytes": certificate.key_pem},
        },
    }


def _listener(name: str, serving: Serving, port: int, certificates: list[Certificate]) -> Message:
    found: Message = {
        "name": name,
        "address": _address(serving.address, port),
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
    }
    network_filter = {"name": HCM, "typed_config": _http(name, serving)}
    if name == HTTP:
        found["filter_chains"] = [{"name": HTTP, "filters": [network_filter]}]
        return found
    inspector = {"@type": "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}
    found["listener_filters"] = [{"name": "envoy.filters.listener.tls_inspector", "typed_config": inspector}]
    chains = []
    for each in certificates:
        chain = {"filters": [network_filter], "transport_socket": _downstream_tls(each)}
        if each.hosts:
            chains.append({"name": each.name, "filter_chain_match": {"server_names": list(each.hosts)}, **chain})
        if each.is_default:
            found["default_filter_chain"] = {"name": "default", **chain}
    found["filter_chains"] = chains
    return found


def _metrics_listener(port: int) -> Message:
    """Envoy's own counts in Prometheus' form, and nothing else of its administration."""
    action = {"cluster": ADMIN_CLUSTER, "prefix_rewrite": "/stats/prometheus"}
    host = {"name": METRICS, "domains": ["*"], "routes": [{"match": {"path": "/metrics"}, "route": action}]}
    router = {"@type": f"{FILTERS}.router.v3.Router", "suppress_envoy_headers": True}
    http = {
        "@type": HCM,
        "stat_prefix": METRICS,
        "route_config": {"name": METRICS, "virtual_hosts": [host]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    chain = {"name": METRICS, "filters": [{"name": HCM, "typed_config": http}]}
    return {"name": METRICS, "address": _address("127.0.0.1", port), "filter_chains": [chain]}


def _downstream_tls(certificate: Certificate) -> Message:
    context = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [{"name": certificate.name, "sds_config": FROM_STREAM}],
    }
    typed = {"@type": f"{TRANSPORT}.DownstreamTlsContext", "common_tls_context": context}
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}


def _http(name: str, serving: Serving) -> Message:
    """How HTTP is read, and what each request passes."""
    found: Message = {
        "@type": HCM,
        "stat_prefix": f"ingress_{name}",
        "codec_type": "AUTO",
        "rds": {"config_source": FROM_STREAM, "route_config_name": name},
        "http_filters": _filters(buffer=True),
        # A body filter would wait for the end of what has none.
        "upgrade_configs": [{"upgrade_type": "websocket", "filters": _filters(buffer=False)}],
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "common_http_protocol_options": {
            "idle_timeout": DOWNSTREAM_IDLE_S,
            "headers_with_underscores_action": "DROP_HEADER",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": STREAMS_MAX,
            "initial_stream_window_size": STREAM_WINDOW_BYTES,
            "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
            "allow_connect": True,
        },
        "request_headers_timeout": REQUEST_HEADERS_S,
        "max_request_headers_kb": HEADERS_KB_MAX,
        "server_header_transformation": "PASS_THROUGH",
    }
    if serving.access_log:
        log = {
            "@type": "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": serving.access_log,
            "log_format": {"json_format": LOGGED},
        }
        found["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": log}]
    return found


def _filters(*, buffer: bool) -> list[Message]:
    """Each is on the way only of the routes that ask for it."""
    optional: list[tuple[str, Message]] = [
        (RBAC, {"@type": f"{FILTERS}.rbac.v3.RBAC"}),
        (RATE_LIMIT, {"@type": f"{FILTERS}.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "ingress"}),
        (CORS, {"@type": f"{FILTERS}.cors.v3.Cors"}),
    ]
    if buffer:
        optional.append((BUFFER, {"@type": f"{FILTERS}.buffer.v3.Buffer", "max_request_bytes": BUFFER_BYTES}))
    found: list[Message] = [{"name": name, "typed_config": each, "disabled": True} for name, each in optional]
    router = {"@type": f"{FILTERS}.router.v3.Router", "suppress_envoy_headers": True}
    return [*found, {"name": "envoy.filters.http.router", "typed_config": router}]
