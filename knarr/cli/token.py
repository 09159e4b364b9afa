"""`knarr token`: tokens by which machines join (Secrets of the type bootstrap.kubernetes.io/token, as `kubeadm token`).

`create` prints the whole command for the other machine. A token is good for any number of machines until it expires;
for a node that has joined it means nothing any more.
"""

from __future__ import annotations

import argparse
import base64
import re
import secrets
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from knarr.cli import kubeconfig
from knarr.cli.connection import ApiFailure, Connection
from knarr.cli.exit_codes import FAILED, OK, USAGE

PATH = "/api/v1/namespaces/kube-system/secrets"
TYPE = "bootstrap.kubernetes.io/token"
GROUP = "system:bootstrappers:kubeadm:default-node-token"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
LIFE_UNITS = {"s": 1, "m": 60, "h": 3600}


def token(parsed: argparse.Namespace) -> int:
    """create, list or delete; answers the exit code."""
    try:
        access = kubeconfig.read(Path(parsed.kubeconfig) if parsed.kubeconfig else kubeconfig.default_path())
        connection = Connection(access)
    except kubeconfig.KubeconfigError as error:
        print(f"knarr: {error}", file=sys.stderr)
        return FAILED
    try:
        match parsed.action:
            case "create":
                return _create(connection, parsed.ttl, parsed.description, only_token=parsed.only_token)
            case "list":
                print(_table(connection.get(PATH, fieldSelector=f"type={TYPE}")["items"]))
            case "delete":
                for each in parsed.token:
                    connection.send("DELETE", f"{PATH}/bootstrap-token-{each.partition('.')[0]}")
                    print(f"deleted {each.partition('.')[0]}")
    except ApiFailure as error:
        print(f"knarr: {error}", file=sys.stderr)
        return FAILED
    finally:
        connection.close()
    return OK


def _create(connection: Connection, ttl: str, description: str, *, only_token: bool) -> int:
    from knarr.cli.joining import hash_of

    life_s = seconds(ttl)
    if life_s is None:
        print(f"knarr: --ttl: must be like 24h, 90m or 0 for ever, not {ttl!r}", file=sys.stderr)
        return USAGE
    identity, secret = (_random(length) for length in (6, 16))
    connection.send("POST", PATH, _secret(identity, secret, life_s, description))
    made = f"{identity}.{secret}"
    if only_token:
        print(made)
        return OK
    public = connection.get("/api/v1/namespaces/kube-public/configmaps/cluster-info")["data"]["kubeconfig"]
    server = re.search(r'"server":"([^"]+)"', public)
    pin = hash_of(connection.access.ca_pem)
    address = server[1] if server else connection.access.server
    print(f"knarr node --server {address} --token {made} --discovery-token-ca-cert-hash {pin}")
    return OK


def _secret(identity: str, secret: str, life_s: int, description: str) -> dict[str, Any]:
    data = {
        "token-id": identity,
        "token-secret": secret,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "auth-extra-groups": GROUP,
    }
    if description:
        data["description"] = description
    if life_s:
        data["expiration"] = (datetime.now(UTC) + timedelta(seconds=life_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"name": f"bootstrap-token-{identity}", "namespace": "kube-system"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": TYPE, "stringData": data}


def _table(items: list[dict[str, Any]]) -> str:
    """Tokens and when they expire; the secret parts stay where they are."""
    rows = [("TOKEN ID", "EXPIRES", "DESCRIPTION")]
    for each in items:
        held = {key: base64.b64decode(value).decode(errors="replace") for key, value in each.get("data", {}).items()}
        rows.append((held.get("token-id", ""), held.get("expiration", "<never>"), held.get("description", "<none>")))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def seconds(text: str) -> int | None:
    """Of a duration such as 1h30m; None when it is none."""
    if text == "0":
        return 0
    if re.fullmatch(r"(\d{1,6}[hms])+", text) is None:
        return None
    return sum(int(number) * LIFE_UNITS[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


def _random(length: int) -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(length))
