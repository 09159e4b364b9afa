"""Which user a container runs as: numbers, from names in the image's own /etc/passwd and /etc/group.

The rules are those of Docker and the CRI runtimes: `user`, `user:group`, each a name or a number; the
security context's numbers outweigh the image's.
"""

from __future__ import annotations

import os

from msgspec import Struct

from knarr.node.runtime import paths
from knarr.node.runtime.contract import RuntimeFailure, SecurityContext

DATABASE_BYTES_MAX = 1 << 20
"""Of /etc/passwd and /etc/group in an image; a larger file is no user database."""
_ID_MAX = 2**31 - 1


class User(Struct, frozen=True):
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    """Supplemental groups, sorted; the primary one among them, as the CRI runtimes do."""


def resolve(root: str, image_user: str, security: SecurityContext) -> User:
    """The user for a container whose file tree is at `root`."""
    passwd = _lines(root, "etc/passwd", 7)
    group = _lines(root, "etc/group", 4)
    user_text, _, group_text = image_user.partition(":")
    if security.run_as_user is not None:
        user_text, group_text = str(security.run_as_user), ""
    entry = _entry(passwd, user_text or "0")
    if entry is None and not _is_id(user_text or "0"):
        raise RuntimeFailure(
            "CreateContainerError", f"unable to find user {user_text}: no matching entries in passwd file"
        )
    uid = int(entry[2]) if entry else int(user_text or "0")
    gid = int(entry[3]) if entry and _is_id(entry[3]) else 0
    if group_text:
        gid = _group_id(group, group_text)
    if security.run_as_group is not None:
        gid = security.run_as_group
    groups = {gid, *security.supplemental_groups}
    if entry and not group_text:
        groups.update(int(line[2]) for line in group if _is_id(line[2]) and entry[0] in line[3].split(","))
    return User(uid, gid, tuple(sorted(groups)))


def check_non_root(image_user: str, security: SecurityContext) -> None:
    """runAsNonRoot: refuse what is, or can't be told not to be, user 0."""
    if not security.run_as_non_root:
        return
    if security.run_as_user is not None:
        if security.run_as_user == 0:
            raise RuntimeFailure("CreateContainerConfigError", "container's runAsUser breaks non-root policy")
        return
    name = image_user.partition(":")[0]
    if not name or (_is_id(name) and int(name) == 0):
        raise RuntimeFailure("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")
    if not _is_id(name):
        raise RuntimeFailure(
            "CreateContainerConfigError",
            f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root",
        )


def _entry(passwd: list[list[str]], user: str) -> list[str] | None:
    by_name = next((line for line in passwd if line[0] == user and _is_id(line[2])), None)
    if by_name:
        return by_name
    return next((line for line in passwd if _is_id(user) and _is_id(line[2]) and int(line[2]) == int(user)), None)


def _group_id(group: list[list[str]], text: str) -> int:
    for line in group:
        if line[0] == text and _is_id(line[2]):
            return int(line[2])
    if _is_id(text):
        return int(text)
    raise RuntimeFailure("CreateContainerError", f"unable to find group {text}: no matching entries in group file")


def _lines(root: str, name: str, fields: int) -> list[list[str]]:
    try:
        descriptor = os.open(paths.within(root, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, paths.TooManyLinks):
        return []
    with open(descriptor, "rb") as file:
        text = file.read(DATABASE_BYTES_MAX).decode("utf-8", "replace")
    split = (line.split(":") for line in text.splitlines() if line and not line.startswith("#"))
    return [parts for parts in split if len(parts) >= fields]


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= _ID_MAX
