"""What a server says of its own version (/version)."""

from __future__ import annotations

from knarr.api.types import Struct, always


class Info(Struct):
    major: str = always("")
    minor: str = always("")
    emulation_major: str | None = None
    emulation_minor: str | None = None
    min_compatibility_major: str | None = None
    min_compatibility_minor: str | None = None
    git_version: str = always("")
    git_commit: str = always("")
    git_tree_state: str = always("")
    build_date: str = always("")
    go_version: str = always("")
    compiler: str = always("")
    platform: str = always("")
