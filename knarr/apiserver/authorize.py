"""Whether they may. Everyone who is authenticated may do everything: roles come with RBAC, at this place."""

from __future__ import annotations

from knarr.api.errors import Forbidden
from knarr.apiserver.authenticate import AUTHENTICATED
from knarr.client.transport import User


def authorize(user: User, verb: str, path: str) -> None:
    """Raises Forbidden."""
    if AUTHENTICATED not in user.groups:
        raise Forbidden(f'User "{user.name}" cannot {verb} path "{path}"')
