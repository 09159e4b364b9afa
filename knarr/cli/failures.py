"""What went wrong, in a line that a person can act on: where, and why."""

from __future__ import annotations

import re

from knarr.cli.kubeconfig import KubeconfigError


def described(failure: BaseException) -> str:
    """What the operating system refuses as `where: why`; a mistake of ours with its type, which says where to look."""
    if isinstance(failure, OSError):
        if failure.filename is not None and failure.strerror:
            return f"{failure.filename}: {failure.strerror}"
        return re.sub(r"^\[Errno \d+\] ", "", str(failure)) or type(failure).__name__
    if isinstance(failure, KubeconfigError):
        return str(failure)
    return f"{type(failure).__name__}: {failure}" if str(failure) else type(failure).__name__
