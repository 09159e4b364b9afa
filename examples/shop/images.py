"""The shop's three images, made of nothing but a static busybox, in the format of `docker save`.

    python examples/shop/images.py FOLDER      writes backend-v1.tar, backend-v2.tar and frontend-v1.tar

No build tool and no registry is needed: an image archive is a tar file with a layer (another tar file), a config that
says what to run, and a manifest that names both (Docker Image Specification v1.2). The same input always gives the same
bytes, so an image keeps its id.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Machine names as the OCI image specification has them."""
APPLETS = ("sh", "httpd", "wget", "sleep", "cat", "ls", "env", "hostname", "nslookup", "ps", "vi")

RUN = """#!/bin/sh
# The first process of the container. The kernel spares a first process from signals that it has no handler for, and
# httpd has none: so this shell takes SIGTERM and ends with it.
trap 'exit 0' TERM INT
httpd -f -p 80 -h /www &
wait
"""

BACKEND = """#!/bin/sh
read -r name </proc/sys/kernel/hostname
answer="backend {version} $name"
printf 'Content-Type: text/plain\\r\\nContent-Length: %d\\r\\n\\r\\n%s\\n' $((${{#answer}} + 1)) "$answer"
"""

FRONTEND = """#!/bin/sh
read -r name </proc/sys/kernel/hostname
if answer=$(wget -qO- http://backend); then
  status='200 OK'
  answer="frontend {version} $name: $answer"
else
  status='502 Bad Gateway'
  answer="frontend {version} $name: no answer from the backend"
fi
printf 'Status: %s\\r\\nContent-Type: text/plain\\r\\nContent-Length: %d\\r\\n\\r\\n%s\\n' \\
  "$status" $((${{#answer}} + 1)) "$answer"
"""

SCRIPTS = {"backend": BACKEND, "frontend": FRONTEND}


def archive(name: str, version: str) -> bytes:
    """The image `shop-<name>:<version>` as a `docker save` archive."""
    layer = _tar(_files(SCRIPTS[name].format(version=version)))
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Cmd": ["/run"], "Env": ["PATH=/bin"], "ExposedPorts": {"80/tcp": {}}, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "examples/shop/images.py"}],
    }
    config_json = json.dumps(config, sort_keys=True).encode()
    config_name = f"{hashlib.sha256(config_json).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [f"shop-{name}:{version}"], "Layers": ["layer.tar"]}]
    return _tar(
        {
            config_name: (config_json, 0o644),
            "layer.tar": (layer, 0o644),
            "manifest.json": (json.dumps(manifest).encode(), 0o644),
        }
    )


def write(folder: Path) -> list[Path]:
    """Write the shop's archives into `folder`; answers their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, version in (("backend", "v1"), ("backend", "v2"), ("frontend", "v1")):
        path = folder / f"{name}-{version}.tar"
        path.write_bytes(archive(name, version))
        paths.append(path)
    return paths


def _files(script: str) -> dict[str, tuple[bytes | str, int]]:
    """Content (or, as text, what a symbolic link points to) and mode of everything in the image."""
    files: dict[str, tuple[bytes | str, int]] = {"bin/busybox": (BUSYBOX.read_bytes(), 0o755)}
    files |= {f"bin/{applet}": ("busybox", 0o777) for applet in APPLETS}
    files["run"] = (RUN.encode(), 0o755)
    # httpd runs this for a path that ends in "/" where there is no index.html.
    files["www/cgi-bin/index.cgi"] = (script.encode(), 0o755)
    files["etc/passwd"] = (b"root:x:0:0:root:/:/bin/sh\n", 0o644)
    files["etc/group"] = (b"root:x:0:\n", 0o644)
    return files


def _tar(files: Mapping[str, tuple[bytes | str, int]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        made: set[str] = set()
        for name, (content, mode) in files.items():
            for parent in reversed(Path(name).parents):
                if str(parent) != "." and str(parent) not in made:
                    made.add(str(parent))
                    folder = tarfile.TarInfo(str(parent))
                    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(folder)
            info = tarfile.TarInfo(name)
            info.mode = mode
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


if __name__ == "__main__":
    for written in write(Path(sys.argv[1] if len(sys.argv) > 1 else ".")):
        print(written)
