"""Paths in a container's or an image's file tree, followed as a process inside would follow them.

The tree belongs to a stranger: a symbolic link to `/etc/shadow` in it means the tree's own `/etc/shadow`.
"""

from __future__ import annotations

import os

LINKS_MAX = 40
"""The kernel's own limit (MAXSYMLINKS): a loop of links ends here."""


class TooManyLinks(ValueError):
    """A loop of symbolic links."""


def within(root: str, path: str) -> str:
    """The place of `path` below `root` with every symbolic link followed, none of them out of `root`.

    Parts that don't exist are kept as they are, so the answer can be created. Safe only while nobody else
    changes the tree.
    """
    resolved: list[str] = []
    pending = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            del resolved[-1:]
            continue
        here = os.path.join(root, *resolved, part)
        if os.path.islink(here):
            links += 1
            if links > LINKS_MAX:
                raise TooManyLinks(path)
            aim = os.readlink(here)
            if aim.startswith("/"):
                resolved.clear()
            pending.extend(step for step in reversed(aim.split("/")) if step not in ("", "."))
        else:
            resolved.append(part)
    return os.path.join(root, *resolved)
