"""The kubeconfig: how kubectl, Helm and client libraries find the cluster and prove who they are.

`knarr up` puts one cluster, one user and one context, all named `knarr`, into the file that kubectl would write to, and
makes the context the current one; everything else in the file stays. `knarr down --purge` takes them out again.
Format: client.authentication config v1, as `kubectl config view --raw` prints it.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

NAME = "knarr"
_PARTS = (("clusters", "cluster"), ("users", "user"), ("contexts", "context"))


class KubeconfigError(Exception):
    """A kubeconfig that can't be read or lacks what is needed."""


class _Entry(Struct):
    name: str | None = None
    cluster: dict[str, Any] | None = None
    user: dict[str, Any] | None = None
    context: dict[str, Any] | None = None


class _File(Struct):
    """The form that a kubeconfig must have: what else is in it is its owner's."""

    current_context: str | None = field(default=None, name="current-context")
    clusters: list[_Entry] | None = None
    users: list[_Entry] | None = None
    contexts: list[_Entry] | None = None


class Access(Struct, frozen=True):
    """How a client reaches a cluster."""

    server: str
    ca_pem: bytes
    certificate_pem: bytes
    key_pem: bytes
    namespace: str = "default"
    token: str = ""
    """In place of a certificate."""


def default_path() -> Path:
    """Where kubectl writes: the first file of $KUBECONFIG, else ~/.kube/config."""
    named = [name for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    return Path(named[0]) if named else Path.home() / ".kube/config"


def add(path: Path, access: Access) -> bool:
    """Put the cluster into the file; False when it says all this already."""
    before = _read(path)
    after = with_entry(before, access)
    if after == before:
        return False
    _write(path, after)
    return True


def remove(path: Path, server: str | None = None) -> bool:
    """Take the cluster out of the file, unless the entry there is of another server; False when nothing changed."""
    before = _read(path)
    held = _named(before, "clusters", NAME, "cluster").get("server")
    if held is None or (server is not None and held != server):
        return False
    after = without_entry(before)
    _write(path, after)
    return True


def read(path: Path) -> Access:
    """The access that the file's current context stands for."""
    config = _read(path)
    context = _named(config, "contexts", config.get("current-context") or NAME, "context")
    cluster = _named(config, "clusters", context.get("cluster", ""), "cluster")
    user = _named(config, "users", context.get("user", ""), "user")
    if not cluster.get("server"):
        raise KubeconfigError(f"{path} names no cluster; is `knarr up` running, or --kubeconfig missing?")
    token = str(user.get("token") or "")
    if not token and user.get("tokenFile"):
        token = (path.parent / str(user["tokenFile"])).read_text().strip()
    return Access(
        server=cluster["server"],
        ca_pem=_data(path, cluster, "certificate-authority"),
        certificate_pem=b"" if token else _data(path, user, "client-certificate"),
        key_pem=b"" if token else _data(path, user, "client-key"),
        namespace=context.get("namespace") or "default",
        token=token,
    )


def with_entry(config: Mapping[str, Any], access: Access) -> dict[str, Any]:
    """`config` with the entries of `access` in place of, or after, what it holds."""
    entries = {
        "clusters": {
            "name": NAME,
            "cluster": {"certificate-authority-data": _text(access.ca_pem), "server": access.server},
        },
        "users": {
            "name": NAME,
            "user": {
                "client-certificate-data": _text(access.certificate_pem),
                "client-key-data": _text(access.key_pem),
            },
        },
        "contexts": {"name": NAME, "context": {"cluster": NAME, "user": NAME}},
    }
    result: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", **config, "current-context": NAME}
    for part, entry in entries.items():
        held = list(config.get(part) or [])
        places = [place for place, other in enumerate(held) if other.get("name") == NAME]
        if places:
            held[places[0]] = entry
        else:
            held.append(entry)
        result[part] = held
    return result


def without_entry(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config` less what `with_entry` put in."""
    result = dict(config)
    for part, _ in _PARTS:
        result[part] = [entry for entry in config.get(part) or [] if entry.get("name") != NAME]
    if config.get("current-context") == NAME:
        result["current-context"] = result["contexts"][0]["name"] if result["contexts"] else ""
    return result


def _named(config: Mapping[str, Any], part: str, name: str, what: str) -> Mapping[str, Any]:
    return next((entry.get(what) or {} for entry in config.get(part) or [] if entry.get("name") == name), {})


def _data(path: Path, entry: Mapping[str, Any], name: str) -> bytes:
    """A PEM that is embedded, or in a file beside the kubeconfig."""
    text = entry.get(f"{name}-data")
    if text:
        try:
            return base64.b64decode(str(text))
        except ValueError as error:
            raise KubeconfigError(f"{path}: {name}-data: {error}") from None
    if file := entry.get(name):
        return (path.parent / str(file)).read_bytes()
    raise KubeconfigError(f"{path}: the current context has no {name}")


def _text(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        # JSON and YAML alike; libyaml's loader where it is built in, which is ten times as fast.
        config = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KubeconfigError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise KubeconfigError(f"{path}: not YAML: {error}") from None
    if config is None:
        return {}
    try:
        msgspec.convert(config, _File)
    except msgspec.ValidationError as error:
        raise KubeconfigError(f"{path}: not a kubeconfig: {error}") from None
    found: dict[str, Any] = config
    return found


def _write(path: Path, config: Mapping[str, Any]) -> None:
    import yaml

    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    target = path.resolve()  # a symbolic link stays one
    temporary = target.with_name(f".{target.name}.knarr")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w") as file:
        yaml.dump(dict(config), file, getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(target)
