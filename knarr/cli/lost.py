"""A data folder that somebody deleted while its cluster ran: what is found of the cluster without it.

The process      holds the lock, though the file has no name any more. It knows by heart what it put into the kernel,
                 so it is told to end, and takes that out.
Where it was killed too:
containers       are in control groups that are named by the folder.
mounts           are below the folder.
interfaces, rules
                 by a copy of the record of what runs. It is in /run/knarr: like the kernel's own, it ends with the
                 machine.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

RECORDS = Path("/run/knarr")


def process_of(folder: Path) -> int | None:
    """Which process holds the lock of a folder that was deleted, or of one in its place."""
    for each in Path("/proc").glob("[0-9]*"):
        if holds(folder, int(each.name)):
            return int(each.name)
    return None


def holds(folder: Path, pid: int) -> bool:
    wanted = f"{folder.resolve() / 'lock'} (deleted)"
    try:
        return any(os.readlink(each) == wanted for each in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has ended, or is somebody else's
        return False


def record_of(folder: Path) -> Path:
    """Where the copy of its record is."""
    return RECORDS / f"cluster-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.json"


def mounts_below(folder: Path) -> list[str]:
    """Innermost first."""
    top = f"{folder.resolve()}/"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        places = [_unescaped(line.split(" ", 5)[4]) for line in lines]
    return [each for each in reversed(places) if each.startswith(top)]


def _unescaped(place: str) -> str:
    for character in " \t\n\\":
        place = place.replace(f"\\{ord(character):03o}", character)
    return place
