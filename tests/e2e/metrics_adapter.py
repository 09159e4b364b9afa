"""A metrics adapter as others write them: it serves custom.metrics.k8s.io/v1beta2 and external.metrics.k8s.io/v1beta1.

It believes nobody but the API server, which it knows by the certificate that the ConfigMap
kube-system/extension-apiserver-authentication tells of; it takes the user from that server's headers, and asks back
whether he may (SubjectAccessReview). What it measures is what it was last told by POST to the resource `values`.
It only needs Python's standard library: it runs in a container that has nothing but the machine's own Python.
"""

from __future__ import annotations

import json
import os
import ssl
import urllib.error
import urllib.request
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

PORT = 6443
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CUSTOM, EXTERNAL = "custom.metrics.k8s.io/v1beta2", "external.metrics.k8s.io/v1beta1"
RESOURCES = {
    CUSTOM: [
        {"name": "pods/requests", "namespaced": True, "kind": "MetricValueList", "verbs": ["get"]},
        {"name": "services/load", "namespaced": True, "kind": "MetricValueList", "verbs": ["get"]},
        {"name": "values", "namespaced": True, "kind": "Values", "verbs": ["create"]},
    ],
    EXTERNAL: [{"name": "queue", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}],
}
VERBS = {"GET": "get", "POST": "create"}
values: dict[str, str] = {}


def ask(path: str, body: Any = None) -> Any:
    """Of the API server, as this pod's account."""
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    request = urllib.request.Request(f"https://{host}:{os.environ['KUBERNETES_SERVICE_PORT']}{path}")
    request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text()}")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, context=context, timeout=30) as answer:
        return json.load(answer)


class Trust:
    """Whom this server believes."""

    def __init__(self) -> None:
        found = ask("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")["data"]
        self.authority: str = found["requestheader-client-ca-file"]
        self.names: list[str] = json.loads(found["requestheader-allowed-names"])
        (self.user,) = json.loads(found["requestheader-username-headers"])
        (self.group,) = json.loads(found["requestheader-group-headers"])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    trust: Trust

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        certificate = self.connection.getpeercert() or {}  # type: ignore[attr-defined]
        names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
        if not set(names) & set(self.trust.names):
            self.say(401, {"message": "only the API server is believed"})
            return
        url = urlsplit(self.path)
        parts = url.path.strip("/").split("/")
        version = "/".join(parts[1:3])
        if version not in RESOURCES:
            self.say(404, {"message": "not here"})
        elif len(parts) == 3:
            self.say(200, {"kind": "APIResourceList", "groupVersion": version, "resources": RESOURCES[version]})
        elif not self.may(version, parts[3:]):
            self.say(403, {"message": f"{self.headers[self.trust.user]} may not", "reason": "Forbidden"})
        elif self.command == "POST":
            values.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.say(201, {"kind": "Values", "apiVersion": version, "values": values})
        else:
            self.measured(version, parts[3:], {name: found[0] for name, found in parse_qs(url.query).items()})

    def may(self, version: str, parts: list[str]) -> bool:
        """Whether the user that the API server names may; the API server is asked."""
        _, namespace, resource, *rest = parts
        attributes = {
            "group": version.partition("/")[0],
            "namespace": namespace,
            "resource": resource,
            "subresource": rest[1] if len(rest) > 1 else "",
            "verb": VERBS[self.command],
        }
        spec = {
            "user": self.headers[self.trust.user],
            "groups": self.headers.get_all(self.trust.group) or [],
            "resourceAttributes": attributes,
        }
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        return bool(ask("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"])

    def measured(self, version: str, parts: list[str], query: dict[str, str]) -> None:
        _, namespace, resource, *rest = parts
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metric = rest[-1] if version == CUSTOM else resource
        if metric not in values:
            self.say(404, {"message": f"no metric {metric} is known", "reason": "NotFound"})
            return
        if version == EXTERNAL:
            found = [{"metricName": metric, "metricLabels": {}, "timestamp": now, "value": values[metric]}]
            self.say(200, {"kind": "ExternalMetricValueList", "apiVersion": version, "metadata": {}, "items": found})
            return
        names, value = [rest[0]], values[metric]
        if rest[0] == "*":  # The pods share what there is.
            selected = urlencode({"labelSelector": query.get("labelSelector", "")})
            listed = ask(f"/api/v1/namespaces/{namespace}/{resource}?{selected}")["items"]
            names = [each["metadata"]["name"] for each in listed]
            value = f"{int(value) * 1000 // max(1, len(names))}m"
        kind = {"pods": "Pod", "services": "Service"}[resource]
        items = [
            {
                "describedObject": {"kind": kind, "namespace": namespace, "name": name, "apiVersion": "v1"},
                "metric": {"name": metric},
                "timestamp": now,
                "value": value,
            }
            for name in names
        ]
        self.say(200, {"kind": "MetricValueList", "apiVersion": version, "metadata": {}, "items": items})

    def say(self, status: int, told: dict[str, Any]) -> None:
        if status >= 400:
            told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, **told}
        body = json.dumps({"apiVersion": "v1", **told}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    Handler.trust = Trust()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
    context.load_verify_locations(cadata=Handler.trust.authority)
    context.verify_mode = ssl.CERT_OPTIONAL
    server = ThreadingHTTPServer(("", PORT), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


main()
