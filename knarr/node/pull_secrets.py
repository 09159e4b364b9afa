"""Which credentials a pod brings for an image: its imagePullSecrets, read as Docker's configuration.

An entry of the configuration holds for a registry, or for a path in one; parts of a host's name may be patterns. Of
those that match, the most specific comes first; each is tried (upstream's credential provider).
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from knarr.api.core.v1 import Secret
from knarr.node.runtime import references
from knarr.node.runtime.contract import Credentials

JSON_TYPE, JSON_KEY = "kubernetes.io/dockerconfigjson", ".dockerconfigjson"
LEGACY_TYPE, LEGACY_KEY = "kubernetes.io/dockercfg", ".dockercfg"
DOCKER_HUB = "index.docker.io"


def credentials_for(image: str, secrets: Iterable[Secret]) -> list[Credentials]:
    """Those to try, in order; none: the registry is asked as anybody."""
    reference = references.parse(image)
    host, port = _host_and_port(reference.domain)
    hosts = (host, DOCKER_HUB) if host == "docker.io" else (host,)
    found = [
        (place, credentials)
        for secret in secrets
        for place, credentials in _entries(secret)
        if any(_matches(place, each, port, reference.path) for each in hosts)
    ]
    found.sort(key=lambda entry: entry[0], reverse=True)
    return list(dict.fromkeys(credentials for _, credentials in found))


def _entries(secret: Secret) -> Iterator[tuple[str, Credentials]]:
    """host[:port][/path] and what is shown there. What can't be read is passed over."""
    try:
        if secret.type == JSON_TYPE:
            entries = json.loads(secret.data.get(JSON_KEY, b"{}"))["auths"]
        elif secret.type == LEGACY_TYPE:
            entries = json.loads(secret.data.get(LEGACY_KEY, b"{}"))
        else:
            return
    except (ValueError, KeyError, TypeError):
        return
    if not isinstance(entries, Mapping):
        return
    for key, entry in entries.items():
        credentials = _credentials(entry) if isinstance(entry, Mapping) else None
        if credentials is not None:
            yield _place(str(key)), credentials


def _credentials(entry: Mapping[str, Any]) -> Credentials | None:
    name, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"]), validate=False).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
        name, _, password = text.partition(":")
    token = str(entry.get("identitytoken") or "")
    return Credentials(name, password, token) if name or token else None


def _place(key: str) -> str:
    """https://index.docker.io/v1/ is index.docker.io."""
    parts = urlsplit(key if "://" in key else f"https://{key}")
    path = parts.path
    if path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    return parts.netloc + (path.rstrip("/") if path != "/" else "")


def _matches(place: str, host: str, port: str, path: str) -> bool:
    where, _, wanted_path = place.partition("/")
    wanted_host, wanted_port = _host_and_port(where)
    patterns, parts = wanted_host.split("."), host.split(".")
    return (
        wanted_port == port
        and len(patterns) == len(parts)
        and all(fnmatch.fnmatchcase(part, pattern) for part, pattern in zip(parts, patterns, strict=True))
        and path.startswith(wanted_path)
    )


def _host_and_port(domain: str) -> tuple[str, str]:
    if domain.endswith("]"):
        return domain, ""
    host, colon, port = domain.rpartition(":")
    return (host, port) if colon else (domain, "")
