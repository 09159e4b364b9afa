"""Ingress as users have it: kubectl, real pods, curl by name from outside."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.e2e.conftest import Cluster
from tests.edge.ingress.objects import tls_secret

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")

HOST = "shop.example"


def curl(cluster: Cluster, url: str, *more: str) -> str:
    """What an address of this machine answers to who asks for a name."""
    http, https = cluster.ingress_ports
    [node] = cluster.get("nodes")["items"]
    address = next(each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP")
    names = [part for port in (http, https) for part in ("--resolve", f"{HOST}:{port}:{address}")]
    command = ["curl", "-sk", "--max-time", "20", *names, *more, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=40, check=False).stdout


def applied(cluster: Cluster, *objects: dict[str, Any]) -> None:
    for each in objects:
        cluster.kubectl("apply", "-f", "-", given=json.dumps(each))


def test_an_ingress_leads_to_pods_by_name_with_and_without_tls(cluster: Cluster, tools: str) -> None:
    http, https = cluster.ingress_ports
    command = "mkdir /tmp/www; echo hello from $HOSTNAME > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www"
    cluster.kubectl("run", "web", f"--image={tools}", "--port=8080", "--command", "--", "sh", "-c", command)
    cluster.kubectl("expose", "pod", "web", "--port=80", "--target-port=8080")
    assert "(default)" in cluster.kubectl("describe", "ingressclass") or cluster.get("ingressclass", "knarr")
    cluster.kubectl("create", "ingress", "web", f"--rule={HOST}/*=web:80")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    plain = f"http://{HOST}:{http}/"
    cluster.until(lambda: curl(cluster, plain) == "hello from web\n", "an answer through the Ingress")
    shown = cluster.get("ingress", "web")
    assert shown["spec"]["ingressClassName"] == "knarr"
    assert cluster.until(lambda: cluster.get("ingress", "web")["status"]["loadBalancer"].get("ingress"), "an address")
    assert curl(cluster, plain, "-o", "/dev/null", "-w", "%{http_code}", "-H", "host: other.example") == "404"

    pair = tls_secret("web", HOST)
    data = {name: base64.b64encode(each).decode() for name, each in pair.data.items()}
    applied(
        cluster,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "web"},
            "type": "kubernetes.io/tls",
            "data": data,
        },
    )
    tls = json.dumps({"spec": {"tls": [{"hosts": [HOST], "secretName": "web"}]}})
    cluster.kubectl("patch", "ingress", "web", "--type=merge", "-p", tls)
    secure = f"https://{HOST}:{https}/"
    cluster.until(lambda: f"subject: CN={HOST}" in _certificate(cluster, secure), "the certificate of the Secret")
    cluster.until(lambda: curl(cluster, secure) == "hello from web\n", "an answer by TLS")
    code = ("-o", "/dev/null", "-w", "%{http_code} %{redirect_url}")
    cluster.until(lambda: curl(cluster, plain, *code) == f"308 {secure}", "that it leads there")

    cluster.kubectl("annotate", "ingress", "web", "nginx.ingress.kubernetes.io/server-snippet=return 200;")
    refused = "would inject configuration into the proxy"
    cluster.until(lambda: refused in cluster.kubectl("describe", "ingress", "web"), "an event about the snippet")
    cluster.until(lambda: "404" in curl(cluster, secure), "that it is no longer served")
    cluster.kubectl("delete", "ingress", "web")
    cluster.kubectl("delete", "pod", "web", "--now")


def _certificate(cluster: Cluster, url: str) -> str:
    http, https = cluster.ingress_ports
    del http
    command = ["curl", "-skv", "--max-time", "20", "--resolve", f"{HOST}:{https}:127.0.0.1", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=40, check=False).stderr
