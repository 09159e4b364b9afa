"""Settings of the kernel (sysctl) that are the whole machine's: changed while they are needed, and put back afterwards.

/run/knarr/settings-<network namespace>.json remembers what was found and who needs it changed: several clusters may
run on one machine, and each may be killed at any time. The last one that goes puts back what was found, unless
somebody has set it to something else meanwhile. Like the settings themselves, /run begins anew when the machine boots.

Meant for threads; all is about the network namespace that the calling thread is in.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from knarr.network.netlink import read_setting, write_setting

FOLDER = Path("/run/knarr")
_SO_NETNS_COOKIE = 71
"""A number of the network namespace that is never another's (Linux 5.14)."""


class Changed(msgspec.Struct):
    """A setting that somebody needs."""

    found: str
    value: str
    users: list[str]
    along: dict[str, str] = {}
    """What was found of others that the kernel changes along with it."""


def need(name: str, value: str, user: str, *, along: Sequence[str] = ()) -> None:
    """Set a /proc/sys/net setting, for as long as `user` needs it. Idempotent."""
    with _record() as changed:
        held = changed.get(name)
        if held is None or held.value != value:
            found = {each: read_setting(each) for each in along}
            held = changed[name] = Changed(read_setting(name), value, held.users if held else [], found)
        if user not in held.users:
            held.users.append(user)
    write_setting(name, value)


def release(user: str) -> None:
    """`user` needs nothing any more. Idempotent."""
    with _record() as changed:
        for name, held in list(changed.items()):
            if user in held.users:
                held.users.remove(user)
            if not held.users:
                del changed[name]
                _put_back(name, held)


def _put_back(name: str, held: Changed) -> None:
    try:
        if read_setting(name) != held.value or held.found == held.value:
            return
        write_setting(name, held.found)
        for each, found in held.along.items():
            write_setting(each, found)
    except FileNotFoundError:
        return  # it went with its interface


@contextmanager
def _record() -> Iterator[dict[str, Changed]]:
    """What is remembered, for one at a time; what is different afterwards is kept."""
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open(FOLDER / "settings.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = FOLDER / f"settings-{_namespace()}.json"
        before = path.read_bytes() if path.exists() else b"{}"
        changed = msgspec.json.decode(before, type=dict[str, Changed])
        try:
            yield changed
        finally:
            after = msgspec.json.encode(changed)
            if not changed:
                path.unlink(missing_ok=True)
            elif after != before:
                written = path.with_suffix(".new")
                written.write_bytes(after)
                written.replace(path)


def _namespace() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            return asking.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8).hex()
        except OSError:
            return f"inode-{os.stat('/proc/thread-self/ns/net').st_ino}"
