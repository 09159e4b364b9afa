"""What a cluster leaves on a machine, seen from outside of it: the demo compares before and after."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from knarr.node.runtime.oci_ground import group_of

BUILT_IN = re.compile(
    r"\*|COMMIT|#|\}|type |:(INPUT|OUTPUT|FORWARD|PREROUTING|POSTROUTING) "
    r"|table ip6? (filter|nat|mangle|raw|security) \{|chain (INPUT|OUTPUT|FORWARD|PREROUTING|POSTROUTING) \{"
)
"""What iptables makes when somebody only looks at its tables, and as nft shows it: it holds no rule."""


def snapshot(data_folder: Path, bridge: str) -> dict[str, set[str]]:
    """Processes, mounts, namespaces, interfaces, cgroups and kernel rules that could be the cluster's."""
    return {
        "process": _processes(data_folder),
        "mount": _mounts(data_folder),
        "network namespace": _namespaces(data_folder),
        "interface": _interfaces(bridge),
        "cgroup": _cgroups(data_folder),
        "nftables rule": _rules(["nft", "-s", "list", "ruleset"]),
        "iptables rule": _rules(["iptables-save"]) | _rules(["ip6tables-save"]),
    }


def left(before: dict[str, set[str]], after: dict[str, set[str]]) -> list[str]:
    """What is there after and was not before."""
    return [f"{kind}: {each}" for kind, found in after.items() for each in sorted(found - before.get(kind, set()))]


def _processes(data_folder: Path) -> set[str]:
    """Processes that name the data folder, or have their root, their folder or an open file in it."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            mounts = (entry / "mountinfo").read_text()
        except OSError:
            continue  # it ended meanwhile
        in_container = str(data_folder) in mounts and _differs(entry / "ns/mnt")
        if str(data_folder) in command or in_container:
            found.add(f"{entry.name} {command[:80]}")
    return found


def _differs(namespace: Path) -> bool:
    try:
        return os.readlink(namespace) != os.readlink("/proc/self/ns/mnt")
    except OSError:
        return False


def _mounts(data_folder: Path) -> set[str]:
    points = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    return {point for point in points if point.startswith(str(data_folder))}


def _namespaces(data_folder: Path) -> set[str]:
    """Namespaces that somebody keeps by a file of the data folder (those of other programs come and go)."""
    lines = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return {words[4] for words in lines if " nsfs " in " ".join(words) and words[4].startswith(str(data_folder))}


def _interfaces(bridge: str) -> set[str]:
    names = {each.name for each in Path("/sys/class/net").iterdir()}
    return {name for name in names if name == bridge or name.startswith(("veth", "knarr", "kn"))}


def _cgroups(data_folder: Path) -> set[str]:
    """Groups at the top, or of a controller, as the cluster's are (those of other clusters come and go)."""
    name = group_of(str(data_folder / "runtime")).lstrip("/")
    return {str(each) for pattern in (name, f"*/{name}") for each in Path("/sys/fs/cgroup").glob(pattern)}


def _rules(command: list[str]) -> set[str]:
    """Rules as lines, less counters and comments; none where the tool is not installed."""
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return set()
    lines = (re.sub(r"\[\d+:\d+\]", "", line).strip() for line in listed.splitlines())
    return {line for line in lines if line and not BUILT_IN.match(line)}
