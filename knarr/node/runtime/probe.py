"""Find an OCI runtime that really works on this machine, by running a container with it.

A version number doesn't tell: crun 1.8 refuses hosts with hybrid cgroups, where runc runs. A found runtime is
remembered until the program changes or the machine restarts, so only the first start pays for the try.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile

import msgspec

from knarr.node.runtime import files
from knarr.node.runtime.contract import RuntimeFailure

CANDIDATES = ("crun", "runc")
"""In order of preference: crun starts containers faster."""
PROBE_S_MAX = 20.0
"""A container that does nothing takes well under a second, also on a busy machine."""
_MEMORY = "probe.json"


class Chosen(msgspec.Struct, frozen=True):
    binary: str
    version: str
    conmon: str
    wanted: str | None
    signature: str
    """Changes when the program or the machine's boot does."""


async def choose(wanted: str | None, root: str, cgroups_path: str, boot_id: str) -> Chosen:
    """The runtime to use; RuntimeFailure says what was tried and why it failed."""
    conmon = await asyncio.to_thread(shutil.which, "conmon")
    if conmon is None:
        raise RuntimeFailure("RuntimeUnavailable", "conmon is not installed (apt install conmon)")
    memory = os.path.join(root, _MEMORY)
    remembered = await asyncio.to_thread(_remembered, memory)
    if (
        remembered
        and (remembered.wanted, remembered.conmon) == (wanted, conmon)
        and remembered.signature == await asyncio.to_thread(_signature, remembered.binary, boot_id)
    ):
        return remembered
    refused = []
    for name in (wanted,) if wanted else CANDIDATES:
        binary = await asyncio.to_thread(shutil.which, name)
        if binary is None:
            refused.append(f"{name}: not installed")
            continue
        trouble = await _try(binary, root, cgroups_path)
        if trouble:
            refused.append(f"{name}: {trouble}")
            continue
        signature = await asyncio.to_thread(_signature, binary, boot_id)
        chosen = Chosen(binary, await _version(binary), conmon, wanted, signature)
        await asyncio.to_thread(files.write, memory, msgspec.json.encode(chosen))
        return chosen
    raise RuntimeFailure("RuntimeUnavailable", f"no OCI runtime works here: {'; '.join(refused)}")


async def _try(binary: str, root: str, cgroups_path: str) -> str:
    """Run `true` in a container; answers what went wrong, or nothing."""
    bundle = await asyncio.to_thread(tempfile.mkdtemp, prefix="probe-", dir=root)
    name = os.path.basename(bundle)
    try:
        await asyncio.to_thread(_write_bundle, bundle, f"{cgroups_path}-{name}")
        code, said = await _run(binary, f"--root={bundle}/state", "run", "--bundle", bundle, f"knarr-{name}")
        return "" if code == 0 else said.strip().splitlines()[-1] if said.strip() else f"exit code {code}"
    finally:
        await asyncio.to_thread(shutil.rmtree, bundle, True)


def _write_bundle(bundle: str, cgroups_path: str) -> None:
    """A root of nothing but the machine's own programs, bound read-only."""
    program = shutil.which("true") or "/bin/true"
    os.mkdir(os.path.join(bundle, "rootfs"))
    mounts = [
        {"destination": folder, "type": "bind", "source": folder, "options": ["rbind", "ro"]}
        for folder in ("/bin", "/usr", "/lib", "/lib64", "/nix")
        if os.path.isdir(folder)
    ]
    document = {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": [program], "cwd": "/"},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, *mounts],
        "linux": {
            "cgroupsPath": cgroups_path,
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "network", "ipc", "uts")],
            "resources": {"cpu": {"shares": 2}, "memory": {"limit": 256 << 20}},
        },
    }
    with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as file:
        json.dump(document, file)


async def _version(binary: str) -> str:
    _, said = await _run(binary, "--version")
    return said.partition("\n")[0].strip()


async def _run(*line: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *line,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), PROBE_S_MAX)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return -1, f"no end after {PROBE_S_MAX:.0f} s"
    return process.returncode or 0, said.decode("utf-8", "replace")


def _remembered(path: str) -> Chosen | None:
    data = files.read(path)
    try:
        return msgspec.json.decode(data, type=Chosen) if data else None
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None


def _signature(binary: str, boot_id: str) -> str:
    try:
        there = os.stat(binary)
    except FileNotFoundError:
        return ""
    return f"{there.st_mtime_ns}-{there.st_size}-{boot_id}"
