"""`knarr node`: make this machine a node of a cluster that runs on another.

At first with what `knarr token create` printed there; afterwards `knarr node` alone goes on as the node that this
machine is: <data-dir>/node.json and <data-dir>/pki hold what is needed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from knarr.cli.exit_codes import FAILED, USAGE
from knarr.cli.progress import TerminalProgress, process_start_s
from knarr.cli.up import detach, hold, machine_problem, prepared
from knarr.config import INTERFACE_NAME_LENGTH_MAX, default_data_dir, default_node_name

if TYPE_CHECKING:
    from knarr.cli.joining import Invitation
    from knarr.cli.lock import DataFolderLock
    from knarr.cli.node_process import NodeFlags
    from knarr.cli.progress import Progress

MEMORY = "node.json"
DEFAULTS = {
    "node_ip": "",
    "provider_id": "",
    "proxy_mode": "auto",
    "bridge_name": "knarr0",
    "port": 10250,
    "verbosity": 0,
}


def node(parsed: argparse.Namespace) -> int:
    """Answers the exit code: 0 after an orderly end (detached: once ready)."""
    start_s = process_start_s()
    from knarr.cli.joining import Invitation, problem_of
    from knarr.cli.kubeconfig import KubeconfigError

    kubeconfig = parsed.kubeconfig and str(Path(parsed.kubeconfig).absolute())  # In the background it is elsewhere.
    invitation = Invitation(parsed.server, parsed.token, tuple(parsed.discovery_token_ca_cert_hash), kubeconfig)
    data = Path(parsed.data_dir or default_data_dir())
    try:
        flags, invitation = _flags(parsed, data, invitation)
    except KubeconfigError as error:
        print(f"knarr: {error}", file=sys.stderr)
        return USAGE
    except msgspec.DecodeError as error:
        print(f"knarr: {data / MEMORY}: {error}", file=sys.stderr)
        return USAGE
    joined = (data / "pki" / "kubelet-client.crt").exists() and (data / "pki" / "ca.crt").exists()
    problem = next((each for each in (*_problems(flags), None if joined else problem_of(invitation)) if each), None)
    if problem:
        print(f"knarr: {problem}", file=sys.stderr)
        return USAGE
    lacking = machine_problem("oci")
    if lacking is not None:
        print(f"knarr: {lacking}", file=sys.stderr)
        return FAILED
    data.mkdir(mode=0o700, parents=True, exist_ok=True)

    def live(lock: DataFolderLock, progress: Progress) -> int:
        _remember(data, flags)
        with prepared():
            from knarr.cli.node_process import main
        return main(flags, invitation, lock, progress, start_s)

    if parsed.detach:
        return detach(data, live)
    return hold(data, TerminalProgress(), live)


def _flags(parsed: argparse.Namespace, data: Path, invitation: Invitation) -> tuple[NodeFlags, Invitation]:
    """What is said now, else what was said when this machine joined, else the defaults."""
    from knarr.cli import kubeconfig
    from knarr.cli.node_process import NodeFlags

    said = {name: getattr(parsed, name) for name in DEFAULTS if getattr(parsed, name) is not None}
    if parsed.node_name:
        said["name"] = parsed.node_name
    if invitation.kubeconfig and not invitation.server:
        server = kubeconfig.read(Path(invitation.kubeconfig)).server
        invitation = msgspec.structs.replace(invitation, server=server)
    if invitation.server:
        said["server"] = invitation.server
    try:
        before = msgspec.json.decode((data / MEMORY).read_bytes(), type=dict)
    except FileNotFoundError:
        before = {"name": default_node_name(), "server": ""}
    settings = {**DEFAULTS, **before, **said, "data_dir": str(data)}
    return msgspec.convert(settings, NodeFlags), invitation


def _remember(data: Path, flags: NodeFlags) -> None:
    temporary = data / f".{MEMORY}.new"
    temporary.write_bytes(msgspec.json.encode(flags))
    temporary.replace(data / MEMORY)


def _problems(flags: NodeFlags) -> list[str]:
    import ipaddress

    found = []
    if not os.path.isabs(flags.data_dir):
        found.append(f"--data-dir: must be an absolute path, not {flags.data_dir!r}")
    if re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", flags.name) is None:
        found.append(f"--node-name: must be a DNS-1123 name, not {flags.name!r}")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", flags.bridge_name) or len(flags.bridge_name) > INTERFACE_NAME_LENGTH_MAX:
        found.append(f"--bridge-name: must be an interface name, not {flags.bridge_name!r}")
    if not 1 <= flags.port <= 65535:
        found.append(f"--port: must be 1 to 65535, not {flags.port}")
    if flags.node_ip:
        try:
            versions = [ipaddress.ip_address(each).version for each in flags.node_ip.split(",")]
            if len(set(versions)) < len(versions):
                found.append(f"--node-ip: must be one address, or one of each family, not {flags.node_ip!r}")
        except ValueError:
            found.append(f"--node-ip: must be an IP address, or one of each family, not {flags.node_ip!r}")
    return found
