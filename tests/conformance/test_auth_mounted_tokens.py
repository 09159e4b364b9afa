"""sig-auth: the tokens that containers find in their files, and what can be done with them from there."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import jwt
import msgspec
import pytest

from tests.conformance.image import ONE
from tests.e2e.conftest import Cluster

MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN = r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> str:
    cluster.kubectl("create", "namespace", "auth")
    cluster.until(lambda: "default" in cluster.kubectl("get", "serviceaccounts", "-n", "auth"), "the account")
    return "auth"


def start(cluster: Cluster, namespace: str, name: str, script: str, **spec: Any) -> None:
    container = {"name": "main", "image": ONE, "command": ["sh", "-c", script], **spec.pop("container", {})}
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, **spec},
    }
    cluster.kubectl("apply", "-f", "-", given=json.dumps(body))


def output(cluster: Cluster, namespace: str, name: str) -> str:
    """What a pod that ends well has said."""
    target = ("-n", namespace, f"pod/{name}")
    cluster.kubectl("wait", *target, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    said = cluster.kubectl("logs", *target)
    cluster.kubectl("delete", *target, "--now")
    return said


def projected(name: str, **token: Any) -> dict[str, Any]:
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600, **token}}
    return {
        "volumes": [{"name": name, "projected": {"sources": [source]}}],
        "container": {"volumeMounts": [{"name": name, "mountPath": "/var/run/secrets/tokens", "readOnly": True}]},
    }


def reviewed(cluster: Cluster, token: str) -> dict[str, Any]:
    """What the API server says of a token."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    status: dict[str, Any] = msgspec.json.decode(
        cluster.kubectl("create", "-f", "-", "-o", "json", given=json.dumps(review))
    )["status"]
    return status


def test_every_container_finds_a_token_the_root_certificates_and_its_namespace(
    cluster: Cluster, namespace: str
) -> None:
    """[sig-auth] ServiceAccounts should mount an API token into pods"""
    start(cluster, namespace, "mounted", f"cd {MOUNT} && cat token && echo && cat namespace && echo && cat ca.crt")
    token, inside, certificate = output(cluster, namespace, "mounted").split("\n", 2)
    assert inside == namespace
    published = cluster.get("configmap", "kube-root-ca.crt", "-n", namespace)["data"]["ca.crt"]
    assert certificate.strip() == published.strip()
    assert reviewed(cluster, token).get("authenticated", False) is False, "it was bound to its pod, which is gone"
    start(cluster, namespace, "alive", "trap 'exit 0' TERM; sleep 600 & wait")
    cluster.kubectl("wait", "-n", namespace, "pod/alive", "--for=condition=Ready", "--timeout=60s")
    status = reviewed(cluster, cluster.kubectl("exec", "-n", namespace, "alive", "--", "cat", f"{MOUNT}/token"))
    assert status["authenticated"] is True
    assert status["user"]["username"] == f"system:serviceaccount:{namespace}:default"
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["alive"]
    cluster.kubectl("delete", "-n", namespace, "pod/alive", "--now")


@pytest.mark.parametrize(
    ("context", "mode", "user", "group"),
    [
        ({"runAsUser": 1000}, "-rw-------", 1000, 0),
        ({"fsGroup": 10000}, "-rw-r-----", 0, 10000),
        ({"runAsUser": 1000, "fsGroup": 10000}, "-rw-r-----", 1000, 10000),
        ({}, "-rw-r--r--", 0, 0),
    ],
)
def test_a_projected_token_belongs_to_who_runs_in_the_pod(
    cluster: Cluster, namespace: str, context: dict[str, int], mode: str, user: int, group: int
) -> None:
    """[sig-auth] ServiceAccounts should mount projected service account token"""
    script = "cd /var/run/secrets/tokens && stat -L -c '%A %u %g' token && cat token"
    start(cluster, namespace, "projected", script, securityContext=context, **projected("sa-token"))
    owner, token = output(cluster, namespace, "projected").splitlines()
    assert owner == f"{mode} {user} {group}"
    assert re.fullmatch(TOKEN, token)


def test_a_pod_verifies_its_own_token_by_what_the_issuer_publishes(cluster: Cluster, namespace: str) -> None:
    """[sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account
    issuer

    Everything is fetched from inside, over TLS that is verified with what the pod was given, by its own right: accounts
    may read the issuer's documents.
    """
    audience = "oidc-discovery-test"
    role = "--clusterrole=system:service-account-issuer-discovery"
    cluster.kubectl("create", "clusterrolebinding", "issuer", role, f"--serviceaccount={namespace}:default")
    script = (
        f"cat /var/run/secrets/tokens/token; echo; token=$(cat {MOUNT}/token); set -e; "
        "https /.well-known/openid-configuration $token | tr -d '\\r' | sed '1,/^$/d'; echo; "
        "https /openid/v1/jwks $token | tr -d '\\r' | sed '1,/^$/d'; echo"
    )
    start(cluster, namespace, "issuer", script, **projected("sa-token", audience=audience))
    lines = output(cluster, namespace, "issuer").splitlines()
    assert len(lines) == 3, lines
    token, configuration, keys = lines
    said = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    found = json.loads(configuration)
    assert found["issuer"] == said["iss"]
    assert found["jwks_uri"].endswith("/openid/v1/jwks")
    header = jwt.get_unverified_header(token)
    assert header["alg"] in found["id_token_signing_alg_values_supported"]
    (key,) = [each for each in jwt.PyJWKSet.from_json(keys).keys if each.key_id == header["kid"]]
    claims = jwt.decode(token, key.key, algorithms=[header["alg"]], audience=audience, issuer=found["issuer"])
    assert claims["sub"] == f"system:serviceaccount:{namespace}:default"
    assert claims["kubernetes.io"]["pod"]["name"] == "issuer"
