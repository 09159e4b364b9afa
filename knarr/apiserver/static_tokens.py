"""A file of tokens (upstream's --token-auth-file): lines of token,user,uid and perhaps "group1,group2".

It is read once at start; tokens last until the process ends.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from knarr.client.transport import User

FILE_BYTES_MAX = 4 << 20
AUTHENTICATED = "system:authenticated"


class TokenFileError(Exception):
    """A token file that can't be used."""


def read_token_file(path: Path) -> Mapping[str, User]:
    """Token → user. Raises TokenFileError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TokenFileError(f"{path}: {error.strerror}") from None
    if len(content) > FILE_BYTES_MAX:
        raise TokenFileError(f"{path}: larger than {FILE_BYTES_MAX} bytes")
    users: dict[str, User] = {}
    for number, row in enumerate(csv.reader(content.decode(errors="replace").splitlines(), strict=True), 1):
        if not row:
            continue
        if len(row) < 3:
            raise TokenFileError(f"{path}, line {number}: token, user and uid are needed, there are {len(row)} columns")
        token, name, uid = (field.strip() for field in row[:3])
        if not token:
            raise TokenFileError(f"{path}, line {number}: the token is empty")
        groups = [group.strip() for group in row[3].split(",")] if len(row) > 3 and row[3] else []
        users[token] = User(name, (*groups, AUTHENTICATED), uid)
    return users
