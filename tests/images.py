"""Container images made from /bin/busybox with nothing but Python: no builder, no registry, no network.

Tests and examples need small images; `build` writes one as `docker save` would, or an OCI archive. The bytes
depend on the recipe alone, so the same recipe gives the same image id everywhere.

    python -m tests.images shop-backend:v1 backend.tar
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

BUSYBOX = "/bin/busybox"
APPLETS = (
    "sh", "ash", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "echo", "env", "expr",
    "false", "find", "grep", "head", "hostname", "httpd", "id", "ifconfig", "ip", "kill", "ln", "ls",
    "mkdir", "mktemp", "mount", "mv", "nc", "netstat", "nslookup", "ping", "printf", "ps", "pwd", "rm",
    "sed", "seq", "sleep", "sort", "stat", "stty", "sync", "tail", "tar", "tee", "test", "timeout", "touch",
    "tr", "true", "tty", "uname", "uniq", "wc", "wget", "which", "whoami", "xargs", "yes",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """An image: busybox and what is added to it."""

    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ("sh",)
    env: Sequence[str] = ("PATH=/bin",)
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Further files, by absolute path; those that begin with #! are executable."""
    layers: Sequence[bytes] = ()
    """Further layers, as tar, above the one of busybox and files."""
    labels: Mapping[str, str] = field(default_factory=dict)


def build(path: str, name: str, recipe: Recipe = Recipe(), *, kind: str = "docker", compress: bool = False) -> str:
    """Write the archive, answer the image id. `kind` is "docker" (docker save) or "oci"."""
    layers = [_base_layer(recipe), *recipe.layers]
    configuration = _json(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": {
                "Entrypoint": list(recipe.entrypoint) or None,
                "Cmd": list(recipe.cmd) or None,
                "Env": list(recipe.env),
                "WorkingDir": recipe.working_dir,
                "User": recipe.user,
                "Labels": dict(recipe.labels),
                **({"StopSignal": recipe.stop_signal} if recipe.stop_signal else {}),
            },
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
            "history": [],
        }
    )
    blobs = [gzip.compress(layer, mtime=0) if compress else layer for layer in layers]
    contents = _docker(name, configuration, blobs) if kind == "docker" else _oci(name, configuration, blobs, compress)
    with open(path, "wb") as file:
        file.write(tar(contents))
    return _digest(configuration)


def tar(files: Mapping[str, bytes]) -> bytes:
    """A tar of plain files, with the folders above them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        folders: set[str] = set()
        for name, data in files.items():
            parts = name.strip("/").split("/")
            for depth in range(1, len(parts)):
                folder = "/".join(parts[:depth])
                if folder not in folders:
                    folders.add(folder)
                    archive.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
            executable = data.startswith((b"#!", b"\x7fELF"))
            entry = _entry("/".join(parts), tarfile.REGTYPE, 0o755 if executable else 0o644)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _base_layer(recipe: Recipe) -> bytes:
    if not os.path.exists(BUSYBOX):
        pytest.skip(f"needs a static busybox as {BUSYBOX} (Debian: busybox-static)")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder, mode in (
            ("bin", 0o755),
            ("etc", 0o755),
            ("root", 0o700),
            ("tmp", 0o1777),
            ("var", 0o755),
        ):
            archive.addfile(_entry(folder, tarfile.DIRTYPE, mode))
        with open(BUSYBOX, "rb") as file:
            program = file.read()
        entry = _entry("bin/busybox", tarfile.REGTYPE, 0o755)
        entry.size = len(program)
        archive.addfile(entry, io.BytesIO(program))
        for applet in APPLETS:
            link = _entry(f"bin/{applet}", tarfile.SYMTYPE, 0o777)
            link.linkname = "busybox"
            archive.addfile(link)
        files = {
            "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/tmp:/bin/sh\n",
            "/etc/group": b"root:x:0:\napp:x:1000:\naudio:x:29:app\n",
            **recipe.files,
        }
        made = {"bin", "etc", "root", "tmp", "var"}
        for name, data in files.items():
            parts = name.strip("/").split("/")
            for depth in range(1, len(parts)):
                folder = "/".join(parts[:depth])
                if folder not in made:
                    made.add(folder)
                    archive.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
            entry = _entry("/".join(parts), tarfile.REGTYPE, 0o755 if data.startswith(b"#!") else 0o644)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _docker(name: str, configuration: bytes, blobs: Sequence[bytes]) -> dict[str, bytes]:
    identity = _digest(configuration).removeprefix("sha256:")
    files = {f"{identity}.json": configuration}
    names = []
    for blob in blobs:
        layer = f"{_digest(blob).removeprefix('sha256:')}/layer.tar"
        files[layer] = blob
        names.append(layer)
    files["manifest.json"] = _json([{"Config": f"{identity}.json", "RepoTags": [name], "Layers": names}])
    return files


def _oci(name: str, configuration: bytes, blobs: Sequence[bytes], compressed: bool) -> dict[str, bytes]:
    kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compressed else "")
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", configuration),
            "layers": [_descriptor(kind, blob) for blob in blobs],
        }
    )
    descriptor = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
    return {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "manifests": [descriptor]}),
        **{f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}": blob for blob in (configuration, manifest, *blobs)},
    }


def _descriptor(kind: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": _digest(data), "size": len(data)}


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, stat.S_IMODE(mode), 1_704_067_200
    return entry


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


if __name__ == "__main__":
    print(build(sys.argv[2], sys.argv[1]))
