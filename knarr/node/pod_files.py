"""The files that a pod has besides its volumes: /etc/hosts, /etc/resolv.conf, termination messages and their mounts.

Below <root>/pods/<uid>: etc-hosts, resolv.conf, containers/<name>/<restart count> (the termination message). Meant for
threads.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from knarr.api.core.v1 import Container, Pod
from knarr.node import name_files
from knarr.node.config import NodeConfig
from knarr.node.log_rotation import rotated
from knarr.node.logs import last_lines
from knarr.node.runtime import contract
from knarr.node.runtime.contract import Mount

TERMINATION_LOG = "/dev/termination-log"
MESSAGE_BYTES_MAX = 4096
"""Of one message file that is read."""
MESSAGES_BYTES_MAX = 12 << 10
"""Of all containers of a pod together: a status must stay small."""
FALLBACK_BYTES_MAX = 2048
FALLBACK_LINES_MAX = 80


def write_resolver_configuration(pod: Pod, config: NodeConfig) -> None:
    """resolv.conf: needed before any container, known before the sandbox."""
    try:
        node = name_files.parse_resolv_conf(Path(config.resolv_conf).read_text())
    except OSError:
        node = name_files.ResolverConfiguration()
    answer = name_files.resolver_configuration(pod, node, config.cluster_dns, config.cluster_domain)
    _write(config.pod_folder(pod.metadata.uid or "") / "resolv.conf", answer.text())


def write_hosts(pod: Pod, ips: Sequence[str], config: NodeConfig) -> None:
    """/etc/hosts: names the pod's own addresses."""
    assert pod.spec
    if pod.spec.host_network:
        try:
            text = name_files.host_network_hosts_file(pod, Path("/etc/hosts").read_text())
        except OSError:
            text = name_files.host_network_hosts_file(pod, "127.0.0.1\tlocalhost\n")
    else:
        text = name_files.hosts_file(pod, ips, config.cluster_domain)
    _write(config.pod_folder(pod.metadata.uid or "") / "etc-hosts", text)


def mounts(pod: Pod, container: Container, attempt: int, config: NodeConfig) -> list[Mount]:
    """Mounts of these files; what the container mounts itself at the same place wins."""
    folder = config.pod_folder(pod.metadata.uid or "")
    theirs = {os.path.normpath(mount.mount_path) for mount in container.volume_mounts}
    message = _message_file(folder, container.name, attempt)
    message.parent.mkdir(parents=True, exist_ok=True)
    message.touch()
    message.chmod(0o666)
    wanted = [
        Mount(str(folder / "etc-hosts"), "/etc/hosts"),
        Mount(str(folder / "resolv.conf"), "/etc/resolv.conf"),
        Mount(str(message), container.termination_message_path or TERMINATION_LOG),
    ]
    return [mount for mount in wanted if mount.container_path not in theirs]


def termination_message(pod: Pod, container: Container, run: contract.Container, config: NodeConfig) -> str:
    """What the container left behind: its message file, or the end of its log where that is asked for."""
    assert pod.spec
    count = max(1, len(pod.spec.containers) + len(pod.spec.init_containers))
    limit = min(MESSAGE_BYTES_MAX, MESSAGES_BYTES_MAX // count)
    path = _message_file(config.pod_folder(pod.metadata.uid or ""), container.name, run.attempt)
    data = b""
    try:
        with open(path, "rb") as file:
            data = file.read(limit)
    except OSError:
        pass
    if not data and container.termination_message_policy == "FallbackToLogsOnError" and run.exit_code:
        data = last_lines(run.log_path, FALLBACK_LINES_MAX, min(limit, FALLBACK_BYTES_MAX))
    return data.decode("utf-8", "replace")


def forget_run(pod_uid: str, container: str, run: contract.Container, config: NodeConfig) -> None:
    """Remove the log and the message of a run that nobody can ask for any more."""
    message = _message_file(config.pod_folder(pod_uid), container, run.attempt)
    for path in (Path(run.log_path), *rotated(run.log_path), message):
        path.unlink(missing_ok=True)


def remove_logs(pod: Pod, config: NodeConfig) -> None:
    metadata = pod.metadata
    folder = config.log_folder(metadata.namespace or "", metadata.name or "", metadata.uid or "")
    shutil.rmtree(folder, ignore_errors=True)


def log_folders(config: NodeConfig) -> dict[str, list[Path]]:
    """The log folders that there are, by the uid of their pod."""
    found: dict[str, list[Path]] = {}
    for folder in config.log_root.glob("*_*_*"):
        found.setdefault(folder.name.rpartition("_")[2], []).append(folder)
    return found


def remove_folders(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _message_file(folder: Path, container: str, attempt: int) -> Path:
    return folder / "containers" / container / str(attempt)


def _write(path: Path, text: str) -> None:
    """In place: containers have the file itself mounted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
